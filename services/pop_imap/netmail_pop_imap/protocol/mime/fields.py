"""Header fields in octets (RFC 5322 2.2), tolerant: LF ends a line, odd lines are skipped."""

import re

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:(.*(?:\n[ \t].*)*)", re.MULTILINE)
_FOLD = re.compile(rb"\r?\n[ \t]*")


def header_end(data: bytes, start: int, end: int) -> int:
    """Where the body begins: after the empty line that ends the header at `start`, or `end`."""
    if data.startswith(b"\r\n", start, end):
        return start + 2
    if data.startswith(b"\n", start, end):
        return start + 1
    crlf = data.find(b"\r\n\r\n", start, end)
    # Most headers end there; only if a bare LF comes before it need the slower search decide.
    match = _EMPTY_LINE.search(data, start, end if crlf < 0 else crlf + 4)
    return end if match is None else match.end()


def unfold(value: bytes) -> bytes:
    """One line, without the white space around it (RFC 5322 2.2.3); folds become one space."""
    if b"\n" in value:
        value = _FOLD.sub(b" ", value)
    return value.strip(b" \t\r\n")


def first_fields(data: bytes, start: int, end: int) -> dict[bytes, bytes]:
    """The fields by lower-case name, unfolded; of several with one name the first."""
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELD.findall(data[start:end]):
        key = name.lower()
        if key not in fields:
            fields[key] = unfold(value)
    return fields
