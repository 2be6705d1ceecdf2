"""Requests as Postfix sends them to a policy server."""

from netmail_connmgr.domain.address_map import AddressMap, parse_entries
from netmail_connmgr.protocol.postfix_policy import PolicyReader, PolicyRequest

ADDRESS = b"\xc0\x00\x02\x01"
MAP = AddressMap(parse_entries("alice@example.org alice\nbob@example.org bob\n"))


def request(**attributes: str) -> bytes:
    """A request as Postfix 3.7 sends it."""
    known = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "192.0.2.1",
        "client_name": "unknown",
        "helo_name": "client.example",
        "sender": "alice@example.org",
        "recipient": "eve@example.net",
        "recipient_count": "0",
        "queue_id": "",
        "instance": "167.6b07039a.9e095.0",
        "size": "108",
        "sasl_username": "",
        "policy_context": "",
        **attributes,
    }
    return "".join(f"{name}={value}\n" for name, value in known.items()).encode() + b"\n"


def one(data: bytes) -> PolicyRequest:
    (found,) = PolicyReader().feed(data)
    return found
