"""FETCH and its items (RFC 3501 6.4.5, RFC 7162 3.1.4, RFC 8474, RFC 8514)."""

import re

from netmail_pop_imap.protocol.imap.commands import Command, Fetch, Metadata, Section, SectionText
from netmail_pop_imap.protocol.imap.errors import BadCommand
from netmail_pop_imap.protocol.imap.lexer import SEQUENCE, Cursor
from netmail_pop_imap.protocol.imap.respond import astring
from netmail_pop_imap.protocol.imap.sequence import parse_sequence_set

_NAME = re.compile(rb"[A-Za-z0-9.]+")
_PARTS = re.compile(rb"[0-9]{1,10}(?:\.[0-9]{1,10})*")
_TEXT = re.compile(rb"(?i:HEADER\.FIELDS\.NOT|HEADER\.FIELDS|HEADER|TEXT|MIME)(?=[\] ])")
_PARTIAL = re.compile(rb"<([0-9]{1,10})\.([0-9]{1,10})>")

_MAX_ITEMS = 100
_MAX_PART_DEPTH = 100

_FAST = (Metadata.FLAGS, Metadata.INTERNALDATE, Metadata.SIZE)
_MACROS: dict[bytes, tuple[Metadata, ...]] = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, Metadata.ENVELOPE),
    b"FULL": (*_FAST, Metadata.ENVELOPE, Metadata.BODY),
}
_WHOLE = {
    b"RFC822": Section(b"RFC822"),
    b"RFC822.HEADER": Section(b"RFC822.HEADER", text=SectionText.HEADER, seen=False),
    b"RFC822.TEXT": Section(b"RFC822.TEXT", text=SectionText.TEXT),
}
_METADATA = {item.value: item for item in Metadata}

Item = Metadata | Section


def parse_fetch(cursor: Cursor, tag: str, name: str) -> Command:
    """What follows FETCH or UID FETCH."""
    cursor.space()
    messages = parse_sequence_set(cursor.match(SEQUENCE, "a sequence set"))
    cursor.space()
    items = _items(cursor)
    changed_since = None
    if cursor.skip(b" ("):
        if cursor.keyword() != "CHANGEDSINCE":
            raise BadCommand("Unknown FETCH modifier")
        cursor.space()
        changed_since = cursor.number((1 << 63) - 1)
        cursor.expect(b")")
        if Metadata.MODSEQ not in items:
            items.append(Metadata.MODSEQ)
    uid = name.startswith("UID ")
    if uid and Metadata.UID not in items:
        items.insert(0, Metadata.UID)
    return Fetch(tag, name, messages, tuple(dict.fromkeys(items)), uid, changed_since)


def _items(cursor: Cursor) -> list[Item]:
    if cursor.at(b"("):
        items = cursor.items(lambda: _item(cursor))
        if len(items) > _MAX_ITEMS:
            raise BadCommand("Too many items")
        return items
    macro = _NAME.match(cursor.data, cursor.position)
    if macro is not None and (expanded := _MACROS.get(macro[0].upper())):
        cursor.position = macro.end()
        return list(expanded)
    return [_item(cursor)]


def _item(cursor: Cursor) -> Item:
    name = cursor.match(_NAME, "a FETCH item").upper()
    if name in {b"BODY", b"BODY.PEEK"} and cursor.skip(b"["):
        return _section(cursor, seen=name == b"BODY")
    if name in _WHOLE:
        return _WHOLE[name]
    if name not in _METADATA:
        raise BadCommand("Unknown FETCH item")
    return _METADATA[name]


def _section(cursor: Cursor, *, seen: bool) -> Section:
    start = cursor.position
    part: tuple[int, ...] = ()
    text = SectionText.ALL
    fields: list[bytes] = []
    label_fields = b""
    numbers = _PARTS.match(cursor.data, cursor.position)
    if numbers is not None:
        part = tuple(int(number) for number in numbers[0].split(b"."))
        if not all(part) or len(part) > _MAX_PART_DEPTH:
            raise BadCommand("Invalid part number")
        cursor.position = numbers.end()
    if part == () or cursor.skip(b"."):
        text = _section_text(cursor, required=bool(part))
    label = cursor.data[start : cursor.position].upper()
    if text in {SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT}:
        cursor.space()
        fields = cursor.items(cursor.astring)
        label_fields = b" (" + b" ".join(map(astring, fields)) + b")"
    if text is SectionText.MIME and not part:
        raise BadCommand("MIME needs a part number")
    cursor.expect(b"]")
    label = b"BODY[" + label + label_fields + b"]"
    partial = None
    match = _PARTIAL.match(cursor.data, cursor.position)
    if match is not None:
        cursor.position = match.end()
        partial = (int(match[1]), int(match[2]))
        if partial[1] == 0 or max(partial) > 0xFFFFFFFF:
            raise BadCommand("Invalid partial")
        label += b"<%d>" % partial[0]
    names = frozenset(field.upper() for field in fields)
    return Section(label, part, text, names, partial, seen)


def _section_text(cursor: Cursor, *, required: bool) -> SectionText:
    match = _TEXT.match(cursor.data, cursor.position)
    if match is None:
        if required or not cursor.at(b"]"):
            raise BadCommand("Unknown section")
        return SectionText.ALL
    cursor.position = match.end()
    return SectionText(match[0].decode("ascii").upper())
