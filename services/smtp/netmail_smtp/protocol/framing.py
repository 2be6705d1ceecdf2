"""What the client sent and nobody has looked at yet: command lines out of whole buffers.

Only CRLF ends a line (RFC 5321 2.3.8). A bare CR or LF stays inside the line, where the grammar
refuses it.
"""


class LineTooLong(Exception):
    """The line was longer than the limit; its octets are gone, the next line can be read."""


class InputBuffer:
    """Octets received, read off by line or by count.

    Keeps at most `limit` octets of an unfinished line: the rest of a longer one is dropped as it
    comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._position = 0
        self._scanned = 0
        self._dropping = False
        self.dropped = 0
        """Octets of the unfinished line that were dropped because it is too long."""

    def __len__(self) -> int:
        """Octets that wait."""
        return len(self._data) - self._position

    def feed(self, data: bytes) -> None:
        """Adds what was received."""
        if self._position == len(self._data):
            self._data.clear()
            self._position = self._scanned = 0
        elif self._position > 65_536:
            del self._data[: self._position]
            self._scanned -= self._position
            self._position = 0
        self._data += data

    def take_line(self) -> bytes | None:
        """The next line without its CRLF; None: more octets are needed.

        Raises: LineTooLong.
        """
        start = max(self._position, self._scanned - 1)
        end = self._data.find(b"\r\n", start)
        if end < 0:
            self._scanned = len(self._data)
            if len(self) > self._limit + 1:
                self._dropping = True
            if self._dropping:
                self._drop_unfinished()
            return None
        line = bytes(self._data[self._position : end])
        self._position = self._scanned = end + 2
        if self._dropping or len(line) > self._limit:
            self._dropping = False
            self.dropped = 0
            raise LineTooLong
        return line

    def take_line_if(self, verb: bytes) -> bytes | None:
        """The next line, if it is complete, not too long, and begins with VERB and a space."""
        end = self._position + len(verb)
        if self._data[self._position : end].upper() != verb or self._data[end : end + 1] != b" ":
            return None
        line_end = self._data.find(b"\r\n", self._position)
        if self._dropping or line_end < 0 or line_end - self._position > self._limit:
            return None
        return self.take_line()

    def take(self, count: int) -> bytes:
        """Up to `count` octets."""
        end = min(len(self._data), self._position + count)
        taken = bytes(self._data[self._position : end])
        self._position = self._scanned = end
        return taken

    def take_all(self) -> bytes:
        """Everything that waits."""
        return self.take(len(self))

    def clear(self) -> None:
        """Forgets everything."""
        self._data.clear()
        self._position = self._scanned = 0
        self._dropping = False

    def _drop_unfinished(self) -> None:
        # A CR may be the first half of the line's end.
        keep = 1 if self._data.endswith(b"\r") else 0
        self.dropped += len(self) - keep
        del self._data[: len(self._data) - keep]
        self._position = self._scanned = 0
