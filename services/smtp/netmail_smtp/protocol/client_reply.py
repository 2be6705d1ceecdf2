"""SMTP replies as a client reads them (RFC 5321 4.2, RFC 2034): strict about form and size."""

import re
from dataclasses import dataclass

MAX_LINE = 2048
"""Octets of one reply line without CRLF; RFC 5321 4.5.3.1.5 says 512."""
MAX_LINES = 200
_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])([^\r\n]*))?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ReplyError(Exception):
    """The server does not speak SMTP; the text says what is wrong, not what it sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, all of its lines."""

    code: int
    lines: tuple[str, ...]

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code (RFC 3463) if there is one of the reply's own class."""
        match = _ENHANCED.match(self.lines[-1]) or _ENHANCED.match(self.lines[0])
        if match is None or match[1][0] != str(self.code)[0]:
            return None
        return match[1]

    @property
    def positive(self) -> bool:
        """2yz."""
        return 200 <= self.code < 300

    @property
    def transient(self) -> bool:
        """4yz."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5yz."""
        return self.code >= 500

    def __str__(self) -> str:
        """The reply on one line of at most 1,000 characters, control characters replaced."""
        return _UNPRINTABLE.sub("?", f"{self.code} {' '.join(self.lines)}".strip()[:1000])


class ReplyParser:
    """Cuts replies out of a stream. Bare LF or CR never ends a line."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code = b""
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Octets have arrived that belong to no complete reply."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """Takes octets, gives the replies that they complete.

        Raises: ReplyError; nothing can be read after it.
        """
        self._buffer += data
        replies = []
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            reply = self._line(line)
            if reply is not None:
                replies.append(reply)
        if len(self._buffer) > MAX_LINE + 1:
            raise ReplyError("a reply line is too long")
        return replies

    def _line(self, line: bytes) -> Reply | None:
        if not line.endswith(b"\r\n"):
            raise ReplyError("a reply line ends in a bare LF")
        if len(line) > MAX_LINE + 2:
            raise ReplyError("a reply line is too long")
        match = _LINE.fullmatch(line[:-2])
        if match is None:
            raise ReplyError("a line is not an SMTP reply")
        if self._code and match[1] != self._code:
            raise ReplyError("a reply has two codes")
        if len(self._lines) >= MAX_LINES:
            raise ReplyError("a reply has too many lines")
        self._lines.append((match[3] or b"").decode("utf-8", "replace"))
        if match[2] == b"-":
            self._code = match[1]
            return None
        reply = Reply(int(match[1]), tuple(self._lines))
        self._code = b""
        self._lines = []
        return reply
