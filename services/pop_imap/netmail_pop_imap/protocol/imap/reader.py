r"""Cuts the octets of a connection into commands; literals included, large ones streamed.

A command is handed over whole, its literals inside as they came (`{5}\r\nhello`). At each literal
the caller is asked first (`LiteralAnnounced`), since a synchronizing one waits for a go-ahead, one
may be too large, and APPEND's is not collected but streamed.

Only CRLF ends a line. Memory: at most `max_line` octets of a command's text, the collected
literals that the caller agreed to, and what `feed` brought.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

_LITERAL = re.compile(rb"(~?)\{([0-9]{1,20})(\+?)\}\Z")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A whole command, without its last CRLF."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """A line that `expect_line` asked for, without CRLF."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class LiteralAnnounced:
    """The command so far ends with a literal; the reader waits for collect, stream or refuse.

    Attributes:
        prefix: the command before the `{`, earlier literals included.
        size: octets.
        synchronizing: the client waits for `+`.
        binary: `~{n}` (RFC 3516).
    """

    prefix: bytes
    size: int
    synchronizing: bool
    binary: bool


@dataclass(frozen=True, slots=True)
class LiteralData:
    """Octets of a streamed literal; `last` says that it is complete."""

    octets: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Discarded:
    """The rest of a refused command has been consumed; its start, for the tag."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line over the limit has been consumed to its end; its start, for the tag."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Endless:
    """A line that goes on far beyond the limit; its start, for the tag. The session must end."""

    octets: bytes


Event = CommandLine | Line | LiteralAnnounced | LiteralData | Discarded | Overlong | Endless

_ENDLESS = 16
"""Times the limit of a line."""
_TAIL = 64
"""Octets that an announcement of a literal has room in."""


class _Mode(Enum):
    TEXT = auto()
    LINE = auto()
    ANNOUNCED = auto()
    COLLECT = auto()
    STREAM = auto()
    DISCARD_LITERAL = auto()
    DISCARD_TEXT = auto()
    OVERLONG = auto()


class CommandReader:
    """Sans-IO: `feed` octets, take events from `next_event` until it gives None."""

    __slots__ = (
        "_buffer",
        "_command",
        "_left",
        "_mode",
        "_overlong_in",
        "_scanned",
        "_start",
        "_text",
        "max_line",
    )

    def __init__(self, max_line: int) -> None:
        self.max_line = max_line
        self._buffer = b""
        self._start = 0
        self._scanned = 0
        self._mode = _Mode.TEXT
        self._overlong_in = _Mode.TEXT
        self._command: list[bytes] = []
        self._text = 0
        self._left = 0

    @property
    def backlog(self) -> int:
        """Octets fed and not yet part of an event."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Takes octets from the client."""
        if self._start == len(self._buffer):
            self._buffer = data
            self._scanned = 0
        else:
            self._buffer = self._buffer[self._start :] + data
            self._scanned = max(0, self._scanned - self._start)
        self._start = 0

    def next_event(self) -> Event | None:
        """The next event; None: more octets are needed, or the caller has not decided yet."""
        while True:
            if self._mode is _Mode.ANNOUNCED:
                return None
            if self._mode is _Mode.STREAM:
                return self._stream()
            if self._mode is _Mode.OVERLONG:
                ended, event = self._skip_overlong()
                if event is not None or not ended:
                    return event
                continue
            if self._mode in {_Mode.COLLECT, _Mode.DISCARD_LITERAL}:
                if not self._pass_literal():
                    return None
                continue
            line = self._line()
            if line is None:
                return self._check_length()
            event = self._take(line)
            if event is not None:
                return event

    # Decisions of the caller.

    def collect(self) -> None:
        """The announced literal becomes part of the command."""
        self._mode = _Mode.COLLECT

    def stream(self) -> None:
        """The announced literal comes as LiteralData; the command then goes on as a new one."""
        self._command.clear()
        self._text = 0
        self._mode = _Mode.STREAM

    def refuse(self, *, coming: bool) -> None:
        """The announced literal is not wanted.

        Args:
            coming: the client sends it all the same (non-synchronizing): it is consumed with the
                rest of the command, then Discarded comes. Else the command ends here.
        """
        if coming:
            self._mode = _Mode.DISCARD_LITERAL
            self._command = [b"".join(self._command)[:128]]
        else:
            self._reset()

    def expect_line(self) -> None:
        """The next line is not a command (SASL response, DONE)."""
        self._mode = _Mode.LINE

    def discard_command(self) -> None:
        """What follows up to the end of the command is of no use (after a streamed literal)."""
        self._mode = _Mode.DISCARD_TEXT

    # Inside.

    def _reset(self) -> None:
        self._command.clear()
        self._text = 0
        self._mode = _Mode.TEXT

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._scanned)
        if end < 0:
            self._scanned = max(self._start, len(self._buffer) - 1)
            return None
        line = self._buffer[self._start : end]
        self._advance(end + 2)
        return line

    def _advance(self, position: int) -> None:
        self._start = self._scanned = position
        if position == len(self._buffer):
            self._buffer = b""
            self._start = self._scanned = 0

    def _check_length(self) -> Event | None:
        # A CR at the end may be half of the CRLF, which does not count.
        length = self.backlog - self._buffer.endswith(b"\r")
        if length + self._text > self.max_line:
            if self._mode is not _Mode.DISCARD_TEXT:
                self._command.append(self._buffer[self._start : self._start + 128])
            self._drop_buffer()
            self._overlong_in, self._mode = self._mode, _Mode.OVERLONG
        return None

    def _drop_buffer(self) -> None:
        """Forgets the buffer but its end, which may announce a literal, or be half of a CRLF."""
        dropped = max(0, self.backlog - _TAIL)
        self._text += dropped
        self._start += dropped
        self._scanned = max(self._start, len(self._buffer) - 1)

    def _skip_overlong(self) -> tuple[bool, Event | None]:
        """To the end of the line, as if it had come in one piece; whether that was reached."""
        end = self._buffer.find(b"\r\n", self._scanned)
        start = b"".join(self._command)[:128]
        if end < 0:
            self._drop_buffer()
            return False, Endless(start) if self._text > _ENDLESS * self.max_line else None
        literal = _LITERAL.search(self._buffer[self._start : end])
        self._advance(end + 2)
        if self._overlong_in is _Mode.DISCARD_TEXT:
            return True, self._discard_text(literal)
        if self._overlong_in is _Mode.LINE:
            literal = None
        return True, self._overlong_command(start, literal)

    def _take(self, line: bytes) -> Event | None:
        if self._mode is _Mode.LINE:
            self._mode = _Mode.TEXT
            if len(line) > self.max_line:
                return Overlong(line[:128])
            return Line(line)
        self._text += len(line)
        literal = _LITERAL.search(line)
        if self._mode is _Mode.DISCARD_TEXT:
            return self._discard_text(literal)
        if self._text > self.max_line:
            start = b"".join([*self._command, line[:128]])[:128]
            return self._overlong_command(start, literal)
        if literal is None:
            self._command.append(line)
            octets = line if len(self._command) == 1 else b"".join(self._command)
            self._reset()
            return CommandLine(octets)
        self._left = int(literal[2])
        prefix = line[: literal.start()]
        self._command.append(prefix)
        self._mode = _Mode.ANNOUNCED
        return LiteralAnnounced(
            b"".join(self._command), self._left, not literal[3], bool(literal[1])
        )

    def _overlong_command(self, start: bytes, literal: re.Match[bytes] | None) -> Event | None:
        self._command = [start]
        if literal is not None and literal[3]:
            self._left = int(literal[2])
            self._mode = _Mode.DISCARD_LITERAL
            return None
        self._reset()
        return Overlong(start)

    def _discard_text(self, literal: re.Match[bytes] | None) -> Event | None:
        if literal is not None and literal[3]:
            self._left = int(literal[2])
            self._mode = _Mode.DISCARD_LITERAL
            return None
        start = b"".join(self._command)[:128]
        self._reset()
        return Discarded(start)

    def _pass_literal(self) -> bool:
        """Collects or skips the literal; False: more octets are needed."""
        return self._collect() if self._mode is _Mode.COLLECT else self._skip_literal()

    def _collect(self) -> bool:
        if self.backlog < self._left:
            return False
        end = self._start + self._left
        self._command.append(b"{%d}\r\n" % self._left)
        self._command.append(self._buffer[self._start : end])
        self._advance(end)
        self._mode = _Mode.TEXT
        return True

    def _stream(self) -> Event | None:
        size = min(self.backlog, self._left)
        if size == 0 and self._left:
            return None
        data = self._buffer[self._start : self._start + size]
        self._advance(self._start + size)
        self._left -= size
        if self._left == 0:
            self._mode = _Mode.TEXT
        return LiteralData(data, last=self._left == 0)

    def _skip_literal(self) -> bool:
        size = min(self.backlog, self._left)
        self._advance(self._start + size)
        self._left -= size
        if self._left:
            return False
        self._text = 0
        self._mode = _Mode.DISCARD_TEXT
        return True
