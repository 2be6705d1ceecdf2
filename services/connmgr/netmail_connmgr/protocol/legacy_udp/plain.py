"""The protocol of NIMS and NetMail 2 and 3, without authentication.

`request, address, nameLen, counter`, each an unsigned long, then `name`. What a request has no use
for is whatever lay on the client's stack.
"""

from enum import IntEnum
from typing import NamedTuple

from netmail_connmgr.protocol.legacy_udp.layout import Layout

__all__ = [
    "MAX_NAME",
    "MAX_SIZE",
    "CheckResult",
    "Malformed",
    "PlainRequest",
    "RequestNumber",
    "parse",
    "reply",
]

MAX_NAME = 255
"""Octets of a user name that we know; the protocol has room for one more."""
_NAME_FIELD = 256

MAX_SIZE = 5 * 8 + _NAME_FIELD


class Malformed(ValueError):
    """A datagram that is no request, in any layout or in more than one."""


class RequestNumber(IntEnum):
    """What a client wants."""

    STORE = 0
    CHECK = 1
    STORE_NAME = 2
    CHECK_NAME = 3


class CheckResult(IntEnum):
    """Answer to CHECK and CHECK_NAME; clients take everything but the first for found."""

    NOT_FOUND = 0
    FOUND = 1
    FOUND_NAME = 2


class PlainRequest(NamedTuple):
    """A request.

    Attributes:
        address: 4 octets, in network order.
        name: with STORE_NAME; as it came, at most 256 octets.
    """

    layout: Layout
    number: RequestNumber
    address: bytes
    name: bytes = b""


class _Form:
    """One layout of the struct."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.name_offset = 4 * layout.word
        self.bare = 5 * layout.word
        """The struct with a name of one octet, and what the compiler adds to it."""
        self.checked = self.bare + _NAME_FIELD
        self._head = layout.struct(f"L{layout.word}sL")
        self._reply = layout.struct(f"LLLL{self.checked - self.name_offset}s")

    def begins(self, number: RequestNumber) -> bytes:
        """The first four octets of such a request."""
        return number.to_bytes(self.layout.word, self.layout.order)[:4]

    def parse(self, data: bytes) -> PlainRequest | None:
        if len(data) < self.bare:
            return None
        number, field, name_length = self._head.unpack_from(data)
        if number > RequestNumber.CHECK_NAME:
            return None
        extra = len(data) - self.bare
        name = b""
        if number == RequestNumber.STORE_NAME:
            if extra != name_length:
                return None
            name = data[self.name_offset : self.name_offset + extra]
        elif extra != (0 if number == RequestNumber.STORE else _NAME_FIELD):
            return None
        address = self.layout.address(field)
        if address is None or not any(address):
            return None
        return PlainRequest(self.layout, RequestNumber(number), address, name)

    def reply(self, result: CheckResult, name: bytes) -> bytes:
        return self._reply.pack(result, 0, len(name), 0, name)


_FORMS = {layout: _Form(layout) for layout in Layout}
_FORMS_BY_BEGIN = {
    begin: tuple(
        form for form in _FORMS.values() if begin in {form.begins(one) for one in RequestNumber}
    )
    for begin in {form.begins(one) for form in _FORMS.values() for one in RequestNumber}
}
"""The layouts that a datagram may be of, by its first four octets."""


def parse(data: bytes) -> PlainRequest:
    """Reads a datagram of at most MAX_SIZE octets.

    Request number, length and, with STORE_NAME, nameLen tell the layouts apart. STORE without a
    name is the same octets in both orders of ILP32.

    Raises: Malformed.
    """
    if len(data) > MAX_SIZE:
        raise Malformed
    forms = _FORMS_BY_BEGIN.get(data[:4], ())
    fitting = [request for form in forms if (request := form.parse(data)) is not None]
    if len(fitting) != 1 and len({_meaning(request) for request in fitting}) != 1:
        raise Malformed
    return fitting[0]


def reply(layout: Layout, result: CheckResult, name: bytes = b"") -> bytes:
    """Answers CHECK (NOT_FOUND, FOUND) or CHECK_NAME in the client's own layout.

    As long as the request, zeroed where nothing is said.

    Raises: ValueError, for a name of more than MAX_NAME octets: it is never cut.
    """
    if len(name) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} octets")
    return _FORMS[layout].reply(result, name)


def _meaning(request: PlainRequest) -> tuple[object, ...]:
    """What is told apart: who gets no answer may be of any layout."""
    return request[1:] if request.number == RequestNumber.STORE else request
