"""The tree of a message's parts, as offsets into its octets (RFC 2046 section 5).

Tolerant: missing close delimiters, boundaries that never come, unknown types, LF line ends.
Bounded: beyond MAX_DEPTH or MAX_PARTS a part is not looked into.
"""

from dataclasses import dataclass, field

from netmail_pop_imap.protocol.mime.fields import first_fields, header_end
from netmail_pop_imap.protocol.mime.parameters import Parameters, media_type

MAX_DEPTH = 50
MAX_PARTS = 5000

_TEXT_PLAIN = (b"text", b"plain", ((b"charset", b"us-ascii"),))
_DIGEST_ITEM = (b"message", b"rfc822", ())
_TRANSPARENT = {b"", b"7bit", b"8bit", b"binary"}


@dataclass(slots=True)
class Part:
    """A message or body part.

    Attributes:
        start: offset of its header.
        body: offset of its body.
        end: offset after its body.
        fields: its header fields, unfolded, by lower-case name.
        type: as written, and so are subtype and parameters.
        children: of a multipart; never empty there.
        message: the message inside a message/rfc822 part.
    """

    start: int
    body: int
    end: int
    fields: dict[bytes, bytes]
    type: bytes
    subtype: bytes
    parameters: Parameters
    children: list["Part"] = field(default_factory=list)
    message: "Part | None" = None

    @property
    def is_multipart(self) -> bool:
        """Whether it has children."""
        return bool(self.children)


class _Budget:
    """Parts that may still be made."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_PARTS


def parse_structure(data: bytes) -> Part:
    """The tree of a whole message."""
    return _parse(data, 0, len(data), _TEXT_PLAIN, 0, _Budget())


def _parse(
    data: bytes,
    start: int,
    end: int,
    default: tuple[bytes, bytes, Parameters],
    depth: int,
    budget: _Budget,
) -> Part:
    budget.left -= 1
    body = header_end(data, start, end)
    fields = first_fields(data, start, body)
    kind = media_type(fields.get(b"content-type")) or default
    boundary = None
    if kind[0].lower() == b"multipart":
        boundary = next((v for k, v in kind[2] if k.lower() == b"boundary" and v), None)
        if boundary is None:
            kind = _TEXT_PLAIN
    part = Part(start, body, end, fields, *kind)
    if boundary is not None:
        inner = _DIGEST_ITEM if kind[1].lower() == b"digest" else _TEXT_PLAIN
        if depth < MAX_DEPTH and budget.left > 0:
            for first, last in _pieces(data, body, end, boundary, budget.left):
                part.children.append(_parse(data, first, last, inner, depth + 1, budget))
        if not part.children:  # the grammar of BODYSTRUCTURE wants one
            part.children.append(Part(end, end, end, {}, *_TEXT_PLAIN))
    elif _is_message(part) and depth < MAX_DEPTH and budget.left > 0:
        part.message = _parse(data, body, end, _TEXT_PLAIN, depth + 1, budget)
    return part


def _is_message(part: Part) -> bool:
    if part.type.lower() != b"message" or part.subtype.lower() != b"rfc822":
        return False
    encoding = part.fields.get(b"content-transfer-encoding", b"").lower()
    return encoding in _TRANSPARENT  # others are forbidden there (RFC 2046 5.2.1) and opaque


def _pieces(
    data: bytes, start: int, end: int, boundary: bytes, limit: int
) -> list[tuple[int, int]]:
    """Offsets of the parts between the delimiter lines."""
    delimiter = b"--" + boundary
    pieces: list[tuple[int, int]] = []
    opened = -1
    position = start
    while len(pieces) < limit:
        at = _delimiter_line(data, position, end, start, delimiter)
        if at < 0:
            break
        if opened >= 0:
            pieces.append((opened, max(opened, _before_line(data, at, opened))))
        rest = at + len(delimiter)
        if data.startswith(b"--", rest, end):
            return pieces
        line_end = data.find(b"\n", rest, end)
        if line_end < 0:
            return pieces
        opened = position = line_end + 1
    if opened >= 0 and len(pieces) < limit:
        pieces.append((opened, end))
    return pieces


def _delimiter_line(data: bytes, position: int, end: int, first: int, delimiter: bytes) -> int:
    """Offset of the next line that is this delimiter and nothing longer; -1: none."""
    at = position
    while True:
        if not (at in {first, position} and data.startswith(delimiter, at, end)):
            at = data.find(b"\n" + delimiter, max(at - 1, first), end)
            if at < 0:
                return -1
            at += 1
        if _ends_line(data, at + len(delimiter), end):
            return at
        at += 1


def _ends_line(data: bytes, position: int, end: int) -> bool:
    if data.startswith(b"--", position, end):
        position += 2
    while position < end and data[position] in b" \t":
        position += 1
    return position == end or data[position] in b"\r\n"


def _before_line(data: bytes, at: int, floor: int) -> int:
    """Without the line end before offset `at`; it belongs to the delimiter (RFC 2046 5.1.1)."""
    if at > floor and data[at - 1] == 0x0A:
        at -= 1
        if at > floor and data[at - 1] == 0x0D:
            at -= 1
    return at
