"""Framing of message content: DATA (RFC 5321 4.5.2) and BDAT (RFC 3030).

Whole buffers in, whole chunks out. The data ends at CRLF "." CRLF and nowhere else: readers that
take a bare LF or CR for a line's end, or half of one, let one message smuggle another. What has a
bare CR or LF is read to its true end, and then refused.
"""

from dataclasses import dataclass
from enum import Enum, auto

from netmail_smtp.protocol.reply import MessageRefused

_END = b"\r\n.\r\n"


class DotReader:
    """Reads the content that follows a 354 reply, dots removed."""

    def __init__(self) -> None:
        # The line before the first one has ended; these two octets are not part of the content.
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Takes what was received.

        Returns: content, with dots removed and CRLF kept; and what follows the end of the data, or
            None while the end has not come.
        """
        buffer = self._held + data
        end = buffer.find(_END)
        if end >= 0:
            # The CRLF before the dot ends the last line; it belongs to the content.
            return self._unstuff(buffer[: end + 2]), buffer[end + 5 :]
        held = _overlap(buffer)
        content = self._unstuff(buffer[: len(buffer) - held])
        self._held = buffer[len(buffer) - held :]
        return content, None

    def _unstuff(self, body: bytes) -> bytes:
        # What could begin the end marker is held back, so no CRLF "." is cut in two here.
        if b"\r\n." in body:
            body = body.replace(b"\r\n.", b"\r\n")
        if self._skip:
            skipped = min(self._skip, len(body))
            self._skip -= skipped
            return body[skipped:]
        return body


def _overlap(buffer: bytes) -> int:
    """Length of the longest end of `buffer` that is a beginning of the end marker."""
    for length in (4, 3, 2, 1):
        if buffer.endswith(_END[:length]):
            return length
    return 0


class ChunkReader:
    """Counts the octets of one BDAT chunk off, whether or not the command was accepted."""

    def __init__(self, size: int) -> None:
        self.remaining = size

    def feed(self, data: bytes) -> bytes:
        """Takes at most `remaining` octets; gives them back as content.

        Raises: ValueError: more octets than the chunk has.
        """
        if len(data) > self.remaining:
            raise ValueError("more octets than the chunk has")
        self.remaining -= len(data)
        return data


class SizeState(Enum):
    """How the size of a message stands to the limit."""

    FITS = auto()
    OVER = auto()
    """Refused after its end with 552; what still comes is dropped."""
    FAR_OVER = auto()
    """Twice the limit: refused at once, and the connection ends."""


@dataclass(slots=True)
class ContentCheck:
    """Watches the content of one message go by.

    Attributes:
        limit: octets; 0: none.
        size: octets so far.
        bare_line_end: a CR without LF, or an LF without CR, was seen.
    """

    limit: int
    size: int = 0
    bare_line_end: bool = False
    _ends_in_cr: bool = False

    def feed(self, chunk: bytes) -> SizeState:
        """Counts a chunk."""
        if chunk:
            self.size += len(chunk)
            if not self.bare_line_end:
                self._check_line_ends(chunk)
        if not self.limit or self.size <= self.limit:
            return SizeState.FITS
        return SizeState.OVER if self.size < 2 * self.limit else SizeState.FAR_OVER

    def finish(self) -> None:
        """Call it at the end of the message.

        Raises: MessageRefused.
        """
        if self.limit and self.size > self.limit:
            raise MessageRefused(552, "5.3.4", f"The message is larger than {self.limit} octets")
        if self.bare_line_end or self._ends_in_cr:
            raise MessageRefused(550, "5.6.11", "The message has a bare CR or LF")

    def _check_line_ends(self, chunk: bytes) -> None:
        # A BDAT chunk may begin between CR and LF.
        pairs = chunk.count(b"\r\n")
        returns, feeds = chunk.count(b"\r"), chunk.count(b"\n")
        if self._ends_in_cr:
            if not chunk.startswith(b"\n"):
                self.bare_line_end = True
                return
            feeds -= 1
        self._ends_in_cr = chunk.endswith(b"\r")
        if self._ends_in_cr:
            returns -= 1
        self.bare_line_end = returns != pairs or feeds != pairs
