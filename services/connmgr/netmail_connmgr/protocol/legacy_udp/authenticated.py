"""The protocol of Hula, with authentication: one struct for requests, one for replies."""

import functools
from enum import IntEnum
from typing import NamedTuple

from netmail_connmgr.protocol.legacy_udp.layout import Layout
from netmail_connmgr.protocol.legacy_udp.plain import MAX_NAME, Malformed

__all__ = [
    "MAX_COMMENT",
    "REQUEST_SIZES",
    "AuthenticatedRequest",
    "Command",
    "Result",
    "parse",
    "reply",
    "require_auth_detail",
    "text_detail",
]

MAX_COMMENT = 128
_USER_FIELD = 257
_EVENT_FIELD = 17
_PASS_DIGITS = 32
_MAX_EVENTS = 256
"""There are a dozen; what follows their NUL is whatever lay on the client's stack."""
_MAX_REPLIES = 256
"""That are kept, of 400 octets each."""


class Command(IntEnum):
    """What a client wants; other numbers come too."""

    VERIFY = 1
    NOTIFY = 2


class Result(IntEnum):
    """What it is answered."""

    __hash__ = int.__hash__  # Enum's own is Python code

    OK = 0
    DENY_TEMPORARY = 1
    DENY_PERMANENT = 2
    ALLOWED = 3
    MUST_AUTH = 4
    """Never a verdict: the client takes it for a handshake."""
    INVALID_AUTH = 100
    UNKNOWN_COMMAND = 101
    DBERR = 102
    SHUTTING_DOWN = 103
    RECEIVER_DISABLED = 104
    CONNECTION_LIMIT = 105
    NO_MEMORY = 106
    UNKNOWN = 200


class AuthenticatedRequest(NamedTuple):
    """A request.

    Attributes:
        password: 32 octets, hex digits of an MD5 if the client has a salt.
        address: 4 octets, in network order.
        event: upper case, without its NUL.
        user_field: detail.authenticated.user, as it came.
    """

    layout: Layout
    password: bytes
    command: int
    address: bytes
    event: bytes
    user_field: bytes

    @property
    def user(self) -> bytes | None:
        """What stands before its NUL; None if it does not end within its field."""
        name, end, _ = self.user_field.partition(b"\0")
        return name if end else None


class _Form:
    """One layout of both structs; the gaps are the compilers'."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        word = layout.word
        gap = -33 % word
        # The address lies in one half of its field, as Layout.address says; the other is zero.
        half = f"4s{word - 4}s" if layout.order == "little" else f"{word - 4}s4s"
        self._address_first = layout.order == "little"
        self._zeros = bytes(word - 4)
        detail_offset = {4: 80, 8: 96}[word]
        head = f"{_PASS_DIGITS}sx{gap}xL{half}17x{_EVENT_FIELD}s"
        self._request = layout.struct(
            f"{head}{detail_offset - layout.struct(head).size}x{_USER_FIELD}s"
        )
        self.request_size = {4: 344, 8: 368}[word]
        self._reply = layout.struct(f"L{MAX_COMMENT + 1}s3x260s")
        self.require_auth = layout.struct("i").pack(1)

    def parse(self, data: bytes) -> AuthenticatedRequest:
        password, command, address, rest, event, user = self._request.unpack_from(data)
        if not self._address_first:
            address, rest = rest, address
        if rest != self._zeros:
            raise Malformed
        return AuthenticatedRequest(self.layout, password, command, address, _event(event), user)

    def reply(self, result: Result, comment: bytes, detail: bytes) -> bytes:
        return self._reply.pack(result, comment, detail)


_FORMS = {layout: _Form(layout) for layout in Layout}
_ORDERS = {
    344: (_FORMS[Layout.ILP32_LITTLE], _FORMS[Layout.ILP32_BIG], slice(36, 40)),
    368: (_FORMS[Layout.LP64_LITTLE], _FORMS[Layout.LP64_BIG], slice(40, 48)),
}
"""Both byte orders of a size, and where its command stands."""

REQUEST_SIZES = frozenset(_ORDERS)


def parse(data: bytes) -> AuthenticatedRequest:
    """Reads a datagram of one of REQUEST_SIZES octets.

    The smaller reading of the command tells the byte order; where both are the same, it is little.

    Raises: Malformed, also for an address whose upper half is not zero.
    """
    orders = _ORDERS.get(len(data))
    if orders is None:
        raise Malformed
    little, big, field = orders
    command = data[field]
    # Comparing as big-endian numbers is comparing octets.
    return (big if command < command[::-1] else little).parse(data)


@functools.lru_cache(maxsize=_MAX_REPLIES)
def reply(layout: Layout, result: Result, comment: str = "", detail: bytes = b"") -> bytes:
    """A whole reply in the client's own layout, zeroed where nothing is said.

    Most say nothing but their result.

    Args:
        comment: for people; printable ASCII of it, cut at MAX_COMMENT.
        detail: text_detail or require_auth_detail: the client has one field for all of them.
    """
    return _FORMS[layout].reply(result, _printable(comment) if comment else b"", detail)


def text_detail(text: bytes) -> bytes:
    """A user name or a salt. Raises: ValueError, if it is longer than MAX_NAME or has a NUL."""
    if len(text) > MAX_NAME or 0 in text:
        raise ValueError(f"a detail of more than {MAX_NAME} octets, or with a NUL")
    return text


def require_auth_detail(layout: Layout) -> bytes:
    """connect.requireAuth, set."""
    return _FORMS[layout].require_auth


@functools.lru_cache(maxsize=_MAX_EVENTS)
def _event(field: bytes) -> bytes:
    return field.partition(b"\0")[0].upper()


def _printable(comment: str) -> bytes:
    octets = comment.encode("ascii", "replace")
    return bytes(octet for octet in octets if 32 <= octet < 127)[:MAX_COMMENT]
