"""What NetMail's own agents speak on UDP port 689: two protocols, told apart by length.

Sans-IO: a datagram in, what it asks for out; that knows how it is answered.
"""

from netmail_connmgr.protocol.legacy_udp.access_hash import (
    CREDENTIAL_LENGTH,
    CredentialError,
    Handshake,
    access_hash,
    parse_access_hash,
    tree_of,
)
from netmail_connmgr.protocol.legacy_udp.reception import (
    MAX_DATAGRAM,
    Reception,
    Refused,
    protocol_of,
)
from netmail_connmgr.protocol.legacy_udp.requests import (
    Connect,
    PlainEnquiry,
    Register,
    Relay,
    Reply,
    Request,
)

__all__ = [
    "CREDENTIAL_LENGTH",
    "MAX_DATAGRAM",
    "Connect",
    "CredentialError",
    "Handshake",
    "PlainEnquiry",
    "Reception",
    "Refused",
    "Register",
    "Relay",
    "Reply",
    "Request",
    "access_hash",
    "parse_access_hash",
    "protocol_of",
    "tree_of",
]
