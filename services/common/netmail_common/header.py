"""Header scan: where the fields of a message are, without re-serialising anything (RFC 5322 2.2).

The input has CRLF line ends only; what has a bare CR or LF was refused before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A field name is printable ASCII without colon (RFC 5322 3.6.8). White space before the colon is
# obsolete syntax, which readers take differently; it is kept apart, never ignored.
_FIELD = re.compile(rb"([!-9;-~]+)([ \t]*):([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)(?:\r\n|\Z)")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\Z|[\r\n])")
_FOLD = re.compile(rb"\r\n(?=[ \t])")


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field of a header, by its offsets.

    Attributes:
        name: lower case.
        start: of its name.
        value_start: behind the colon.
        end: behind its last CRLF.
        space_before_colon: obsolete syntax, `From :`.
    """

    name: str
    start: int
    value_start: int
    end: int
    space_before_colon: bool


@dataclass(frozen=True, slots=True)
class Header:
    """The header section of a message.

    Attributes:
        data: the message, or as much of it as was scanned.
        fields: in their order.
        stray_lines: offsets (start, end) of lines that are neither field nor continuation.
        end: where the header's lines end: the offset of the empty line, or of the message's end.
        body: where the body begins: behind the empty line.
    """

    data: bytes
    fields: tuple[HeaderField, ...]
    stray_lines: tuple[tuple[int, int], ...]
    end: int
    body: int

    @property
    def begins_with_field(self) -> bool:
        """False: put before other fields it would continue them, or hide among them."""
        return bool(self.fields) and self.fields[0].start == 0

    def all(self, name: str) -> list[HeaderField]:
        """Fields of that name (lower case)."""
        return [field for field in self.fields if field.name == name]

    def count(self, name: str) -> int:
        """How many fields of that name (lower case) there are."""
        return sum(field.name == name for field in self.fields)

    def value(self, field: HeaderField) -> bytes:
        """Octets of a field's value as they stand there, folded, without the last CRLF."""
        end = field.end
        if self.data[end - 2 : end] == b"\r\n":
            end -= 2
        return self.data[field.value_start : end]

    def longest_line(self) -> int:
        """Octets of its longest line, CRLF not counted."""
        if self.end <= 998:
            return self.end
        return max(len(line) for line in self.data[: self.end].split(b"\r\n"))

    def without(self, dropped: Iterator[HeaderField]) -> list[bytes]:
        """The header's lines in pieces, the given fields (in order) left out."""
        pieces, position = [], 0
        for field in dropped:
            if field.start > position:
                pieces.append(self.data[position : field.start])
            position = field.end
        if position < self.end:
            pieces.append(self.data[position : self.end])
        return pieces


def header_end(data: bytes) -> int:
    """Offset of the empty line that ends the header; -1: there is none (yet)."""
    if data.startswith(b"\r\n"):
        return 0
    end = data.find(b"\r\n\r\n")
    return -1 if end < 0 else end + 2


def scan_header(data: bytes) -> Header:
    """Finds the fields of a message's header.

    Lines that are no field do not end it: readers differ on whether they do, so what follows them
    is looked at as well, up to the first empty line.
    """
    end = header_end(data)
    body = end + 2
    if end < 0:
        end = body = len(data)
    fields: list[HeaderField] = []
    stray: list[tuple[int, int]] = []
    position = 0
    while position < end:
        match = _FIELD.match(data, position, end)
        if match is not None:
            fields.append(
                HeaderField(
                    match[1].decode("ascii").lower(),
                    position,
                    match.start(3),
                    match.end(),
                    match.end(2) > match.end(1),
                )
            )
        else:
            match = _LINE.match(data, position, end)
            if match is None or match.end() == position:
                break
            stray.append((position, match.end()))
        position = match.end()
    return Header(data, tuple(fields), tuple(stray), end, body)


def unfold(value: bytes) -> bytes:
    """Takes the line ends out of a folded value (RFC 5322 2.2.3)."""
    return _FOLD.sub(b"", value) if b"\r\n" in value else value
