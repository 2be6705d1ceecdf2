"""WHOSON (E. Crosser, 1998): requests of a line and an empty line, and replies of the same shape.

`LOGIN ADDRESS USER`, `LOGOUT ADDRESS`, `QUERY ADDRESS`, `QUIT`. A reply begins with `+` (yes), `-`
(no) or `*` (cannot say).
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum

__all__ = ["MAX_REQUEST", "BadRequest", "Request", "RequestReader", "Sign", "Verb", "reply"]

MAX_REQUEST = 1024
"""Octets of a request, its empty line included."""
_MAX_TEXT = 600
"""Characters of a reply: two names of 255 octets fit."""


class Verb(Enum):
    """What is asked for."""

    LOGIN = "LOGIN"
    LOGOUT = "LOGOUT"
    QUERY = "QUERY"
    QUIT = "QUIT"


class Sign(Enum):
    """How a reply begins."""

    YES = "+"
    NO = "-"
    ERROR = "*"


class BadRequest(ValueError):
    """A request that is none; the text is for the client and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        address: 4 or 16 octets; empty for QUIT.
        user: LOGIN's only.
    """

    verb: Verb
    address: bytes = b""
    user: str = ""


class RequestReader:
    """Takes octets in any pieces, gives requests.

    After a request that is too long nothing more comes out: where the next one begins cannot be
    known.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self.broken = False

    @property
    def pending(self) -> bool:
        """Whether a request has begun and is not complete."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        """Takes what has arrived."""
        if not self.broken:
            self._buffer += data

    def next_request(self) -> Request | None:
        """The next complete request; None: more octets are needed.

        Raises: BadRequest; the next call goes on behind the bad request, unless `broken`.
        """
        while not self.broken:
            end = self._buffer.find(b"\n")
            if self._size + (end + 1 or len(self._buffer)) > MAX_REQUEST:
                self.broken = True
                self._buffer.clear()
                self._lines.clear()
                raise BadRequest("request too long")
            if end < 0:
                return None
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            if line:
                self._size += end + 1
                self._lines.append(line)
            elif self._lines:
                lines, self._lines, self._size = self._lines, [], 0
                return _parse(lines)
        return None


def reply(sign: Sign, text: str) -> bytes:
    """A reply; what cannot be printed stands as `?`."""
    printable = "".join(one if one.isprintable() else "?" for one in text[:_MAX_TEXT])
    return f"{sign.value}{printable}\r\n\r\n".encode()


def _parse(lines: list[bytes]) -> Request:
    """Raises: BadRequest."""
    if len(lines) > 1:
        raise BadRequest("one line, then an empty line")
    try:
        words = lines[0].decode().split(None, 2)
    except UnicodeDecodeError:
        raise BadRequest("not UTF-8") from None
    verb = _VERBS.get(words[0].upper()) if words else None
    if verb is None:
        raise BadRequest("LOGIN, LOGOUT, QUERY or QUIT")
    if verb is Verb.QUIT:
        return Request(verb)
    try:
        address = ipaddress.ip_address(words[1]).packed
    except (IndexError, ValueError):
        raise BadRequest("an IP address follows") from None
    if verb is not Verb.LOGIN:
        return Request(verb, address)
    user = words[2].rstrip() if len(words) > 2 else ""
    if not user:
        raise BadRequest("a user's name follows the address")
    return Request(verb, address, user)


_VERBS = {verb.value: verb for verb in Verb}
