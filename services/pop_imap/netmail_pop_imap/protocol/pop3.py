"""POP3 on the wire (RFC 1939, 2449, 5034, 6856), sans-IO: command lines in, replies out."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netmail_pop_imap.protocol.errors import BadCommand, LineTooLong

MAX_LINE = 12_290
"""Octets of a line with its CRLF: a SASL response may be that long (RFC 5034 4)."""

_COMMAND = re.compile(rb"([A-Za-z0-9]{1,16})(?: (.*))?", re.DOTALL)
_NUMBER = re.compile(rb"[0-9]{1,10}")

TERMINATOR = b".\r\n"


class LineReader:
    """Cuts the octets of a client into lines that end with CRLF.

    Bare CR and bare LF end nothing; a line that has one is refused where it is parsed.
    """

    __slots__ = ("_buffer", "_limit", "_searched")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Takes octets as they come."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """The next line without its CRLF; None: there is no whole one yet.

        Raises: LineTooLong.
        """
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            if len(self._buffer) > self._limit:
                raise LineTooLong
            self._searched = max(0, len(self._buffer) - 1)
            return None
        if end + 2 > self._limit:
            raise LineTooLong
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._searched = 0
        return line


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the verb in capitals and the rest of the line."""

    verb: str
    rest: bytes | None

    def no_argument(self) -> None:
        """Raises: BadCommand if there is one."""
        if self.rest is not None:
            raise BadCommand(f"{self.verb} takes no argument")

    def text(self) -> str:
        """The whole rest as UTF-8 text: user names and passwords may have spaces in them.

        Raises: BadCommand.
        """
        if not self.rest:
            raise BadCommand(f"{self.verb} needs an argument")
        try:
            return self.rest.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCommand("not UTF-8") from None

    def number(self) -> int:
        """The message number that is the one argument. Raises: BadCommand."""
        return self.numbers(1)[0]

    def optional_number(self) -> int | None:
        """The message number, or None without an argument. Raises: BadCommand."""
        return None if self.rest is None else self.number()

    def numbers(self, count: int) -> list[int]:
        """Exactly that many numbers. Raises: BadCommand."""
        words = (self.rest or b"").split(b" ")
        if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
            what = "a number" if count == 1 else f"{count} numbers"
            raise BadCommand(f"{self.verb} needs {what}")
        return [int(word) for word in words]


def parse_command(line: bytes) -> Command:
    """Reads a command line. Raises: BadCommand."""
    match = _COMMAND.fullmatch(line)
    if match is None or b"\r" in line or b"\n" in line or b"\0" in line:
        raise BadCommand("not a command")
    return Command(match[1].decode("ascii").upper(), match[2])


def ok(text: str = "") -> bytes:
    """A positive reply of one line."""
    return b"+OK " + text.encode("ascii") + b"\r\n" if text else b"+OK\r\n"


def continuation(encoded: bytes) -> bytes:
    """A SASL challenge (RFC 5034 4)."""
    return b"+ " + encoded + b"\r\n"


def listing(text: str, lines: Iterable[str]) -> bytes:
    """A positive reply of several lines; no line may begin with a dot."""
    body = "\r\n".join(lines)
    return f"+OK {text}\r\n{body}\r\n.\r\n".encode() if body else f"+OK {text}\r\n.\r\n".encode()


def numbered(values: Iterable[tuple[int, object]]) -> Iterator[str]:
    """Lines of LIST and UIDL."""
    return (f"{number} {value}" for number, value in values)


def capabilities(
    *, mechanisms: Sequence[str], user: bool, stls: bool, implementation: str | None
) -> bytes:
    """The reply to CAPA (RFC 2449, RFC 3206, RFC 5034, RFC 6856).

    Args:
        mechanisms: SASL mechanisms that may be used now.
        user: USER and PASS may be used now.
        stls: STLS may be used now.
        implementation: only named after the login; strangers need not know.
    """
    lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"]
    lines.append("UTF8 USER" if user else "UTF8")
    if user:
        lines.append("USER")
    if mechanisms:
        lines.append("SASL " + " ".join(mechanisms))
    if stls:
        lines.append("STLS")
    if implementation is not None:
        lines.append(f"IMPLEMENTATION {implementation}")
    return listing("capabilities follow", lines)


class DotStuffer:
    r"""Byte-stuffs a message of any size, piece by piece (RFC 1939 3), at the speed of `replace`.

    A dot after any LF is doubled, after a bare one too: clients that cut lines at LF would take
    a bare LF, dot, LF for the end of the message.
    """

    __slots__ = ("_line_start",)

    def __init__(self) -> None:
        self._line_start = True

    def feed(self, data: bytes) -> bytes:
        """The next piece, stuffed."""
        if not data:
            return b""
        stuffed = data.replace(b"\n.", b"\n..")
        if self._line_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_start = data.endswith(b"\n")
        return stuffed

    def finish(self) -> bytes:
        """What ends the message: a line end if it has none, and the dot."""
        return TERMINATOR if self._line_start else b"\r\n" + TERMINATOR


class TopCutter:
    """Cuts a message after its header and the first lines of its body (RFC 1939 7, TOP)."""

    __slots__ = ("_in_header", "_left", "_tail", "done")

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._in_header = True
        self._tail = b"\n"
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """What of the next piece belongs to the answer; `done` says that nothing more will."""
        if self.done:
            return b""
        position = 0
        if self._in_header:
            position = self._end_of_header(data)
            if position < 0:
                return data
            self._in_header = False
        while self._left:
            end = data.find(b"\n", position)
            if end < 0:
                return data
            position = end + 1
            self._left -= 1
        self.done = True
        return data[:position]

    def _end_of_header(self, data: bytes) -> int:
        """Where the body begins in `data`; -1: not here. The empty line may lie across pieces."""
        joined = self._tail + data
        skipped = len(self._tail)
        found = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := joined.find(mark)) >= 0]
        if found:
            return min(found) - skipped
        self._tail = joined[-2:]
        return -1
