"""Fuzz target: what IMAP shows of a message's inside (netmail_pop_imap.protocol.mime)."""

from collections.abc import Iterable
from itertools import pairwise

from netmail_pop_imap.protocol.imap.commands import Section, SectionText
from netmail_pop_imap.protocol.mime import (
    Part,
    SectionReader,
    body_structure,
    envelope,
    field_selector,
)
from netmail_pop_imap.protocol.mime.fields import header_end


def seeds() -> Iterable[bytes]:
    """Messages of every build."""
    yield b'From: A <a@b>\r\nTo: g: c@d, "e f"@g (h);\r\nSubject: i\r\n j\r\n\r\nbody\r\n'
    yield (
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\na\r\n--x\r\n'
        b"Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nb\r\n--x--\r\nend"
    )
    yield (
        b"Content-Type: multipart/digest; boundary=y\n\n--y\n\nFrom: q@r\n\nt\n--y\n"
        b'Content-Type: text/html; charset=utf-8\nContent-Disposition: inline; filename="z"\n'
        b"Content-Language: de, en\nContent-ID: <1>\nContent-Transfer-Encoding: 8bit\n\n<p>\n--y--"
    )
    yield b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nabcd\r\n"
    yield b"\r\nno header"
    yield b'From: <@a,@b:c@d>, "\\"" <e@[1.2.3.4]>, f@g (h (i)\r\nDate: \xff\r\n'


def one_input(message: bytes) -> None:
    """Every rule that must hold whatever a message contains."""
    reader = SectionReader(message)
    _nested(reader.root)
    for extended in (False, True):
        _balanced(body_structure(message, reader.root, extended=extended))
    end = header_end(message, 0, len(message))
    _balanced(envelope(message[:end]))
    header = reader.read(Section(b"", text=SectionText.HEADER))
    text = reader.read(Section(b"", text=SectionText.TEXT))
    assert (header or b"") + (text or b"") == message
    for part in ((1,), (2,), (1, 1), (2, 1), (1, 1, 1)):
        for which in (SectionText.ALL, SectionText.MIME, SectionText.HEADER, SectionText.TEXT):
            octets = reader.read(Section(b"", part, which))
            assert octets is None or octets in message
    _fields(message[:end])


def _fields(header: bytes) -> None:
    """Every field is in exactly one of HEADER.FIELDS and HEADER.FIELDS.NOT."""
    names = frozenset({b"FROM", b"SUBJECT", b"CONTENT-TYPE"})
    chosen = field_selector(Section(b"", text=SectionText.HEADER_FIELDS, fields=names))(header)
    rest = field_selector(Section(b"", text=SectionText.HEADER_FIELDS_NOT, fields=names))(header)
    everything = field_selector(
        # No field can have this name.
        Section(b"", text=SectionText.HEADER_FIELDS_NOT, fields=frozenset({b":"}))
    )(header)
    assert chosen.endswith(b"\r\n")
    assert len(chosen) + len(rest) == len(everything) + 2


def _nested(part: Part) -> None:
    assert part.start <= part.body <= part.end
    inner = [part.message] if part.message else part.children
    edges = [part.body, *(edge for p in inner for edge in (p.start, p.end)), part.end]
    assert all(a <= b for a, b in pairwise(edges))
    for child in inner:
        _nested(child)


def _balanced(text: bytes) -> None:
    """A client can read it: parentheses match, outside of strings."""
    depth = position = 0
    while position < len(text):
        octet = text[position : position + 1]
        if octet == b'"':
            position += 1
            while text[position : position + 1] != b'"':
                assert text[position] not in b"\r\n\0"
                position += 2 if text[position : position + 1] == b"\\" else 1
        elif octet == b"{":
            end = text.index(b"}", position)
            position = end + 2 + int(text[position + 1 : end])
        depth += (octet == b"(") - (octet == b")")
        position += 1
        assert depth > 0 or position == len(text)
    assert depth == 0
