"""SCRAM's client-first-message (RFC 5802 7), as far as the server must know it before verifying."""

import re
from dataclasses import dataclass

from scramp.utils import ScramException, saslprep

from netmail_common.sasl._errors import AuthMalformed
from netmail_common.sasl._prepare import check_user_name

# gs2-header without channel binding, authzid (some clients repeat their name there), no mandatory
# extensions, optional extensions kept.
_CLIENT_FIRST = re.compile(
    r"(?P<flag>[ny]),(?:a=(?P<authzid>(?:[^\x00,=]|=2C|=3D)+))?,"
    r"n=(?P<name>(?:[^\x00,=]|=2C|=3D)+),r=(?P<nonce>[!-+\--~]+)"
    r"(?:,[A-Za-z]=[^\x00,]+)*"
)
MAX_CLIENT_FIRST = 4096


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """What a client-first-message says.

    Attributes:
        username: SASLprepared.
        nonce: the client's part.
        text: the whole message.
    """

    username: str
    nonce: str
    text: str


def parse_client_first(message: bytes) -> ClientFirst:
    """Reads a client-first-message of SCRAM without channel binding.

    The flag `y` is fine: the client could bind channels and has not seen us offer it.

    Raises: AuthMalformed, also when it asks to act as somebody else.
    """
    if len(message) > MAX_CLIENT_FIRST:
        raise AuthMalformed
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuthMalformed from error
    match = _CLIENT_FIRST.fullmatch(text)
    if match is None or (match["authzid"] or match["name"]) != match["name"]:
        raise AuthMalformed
    try:
        name = check_user_name(saslprep(match["name"].replace("=2C", ",").replace("=3D", "=")))
    except (ScramException, ValueError) as error:
        raise AuthMalformed from error
    return ClientFirst(name, match["nonce"], text)
