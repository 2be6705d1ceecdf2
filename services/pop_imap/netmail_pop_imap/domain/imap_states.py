"""States of an IMAP session (RFC 3501 section 3) and what is announced in them."""

from collections.abc import Iterable
from enum import Enum, auto


class State(Enum):
    """Which commands make sense."""

    NOT_AUTHENTICATED = auto()
    AUTHENTICATED = auto()
    SELECTED = auto()


_ALWAYS = ("SASL-IR", "ID", "ENABLE", "IDLE")
_AFTER_LOGIN = (
    "UIDPLUS",
    "MOVE",
    "NAMESPACE",
    "UNSELECT",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "CHILDREN",
    "ESEARCH",
    "CONDSTORE",
    "STATUS=SIZE",
    "OBJECTID",
    "SAVEDATE",
    "QUOTA",
    "QUOTA=RES-STORAGE",
)


def capabilities(
    *,
    authenticated: bool,
    starttls: bool,
    login: bool,
    mechanisms: Iterable[str],
    literals: str,
    append_limit: int,
) -> str:
    """What CAPABILITY lists.

    Args:
        authenticated: after the login.
        starttls: it can be asked for.
        login: LOGIN is allowed here.
        mechanisms: for AUTHENTICATE.
        literals: LITERAL+ or LITERAL- (RFC 7888).
        append_limit: octets of a message (RFC 7889).
    """
    names = ["IMAP4rev1", literals, *_ALWAYS]
    if authenticated:
        names += [*_AFTER_LOGIN, f"APPENDLIMIT={append_limit}"]
    else:
        if starttls:
            names.append("STARTTLS")
        if not login:
            names.append("LOGINDISABLED")
        names += [f"AUTH={mechanism}" for mechanism in mechanisms]
    return " ".join(names)
