"""BODY and BODYSTRUCTURE (RFC 3501 7.4.2)."""

import re

from netmail_pop_imap.protocol.imap.respond import nstring, quote
from netmail_pop_imap.protocol.mime.envelope import envelope
from netmail_pop_imap.protocol.mime.parameters import Parameters, disposition, strip_comments
from netmail_pop_imap.protocol.mime.structure import Part

_LANGUAGE = re.compile(rb"[A-Za-z0-9-]+")


def body_structure(data: bytes, part: Part, *, extended: bool) -> bytes:
    """The parenthesised list.

    Args:
        data: the whole message.
        part: where to begin, usually the message.
        extended: BODYSTRUCTURE; else BODY, without extension data.
    """
    if part.is_multipart:
        return _multipart(data, part, extended=extended)
    fields = part.fields
    items = [
        quote(part.type),
        quote(part.subtype),
        _parameters(part.parameters),
        nstring(fields.get(b"content-id") or None),
        nstring(fields.get(b"content-description") or None),
        quote(strip_comments(fields.get(b"content-transfer-encoding", b"")).strip() or b"7bit"),
        b"%d" % (part.end - part.body),
    ]
    if part.message is not None:
        inner = part.message
        items += [
            envelope(data[inner.start : inner.body]),
            body_structure(data, inner, extended=extended),
            b"%d" % data.count(b"\n", part.body, part.end),
        ]
    elif part.type.lower() == b"text" or _is_opaque_message(part):
        if _is_opaque_message(part):  # the grammar knows no message/rfc822 without these
            items += [envelope(b""), _EMPTY_TEXT]
        items.append(b"%d" % data.count(b"\n", part.body, part.end))
    if extended:
        items.append(nstring(fields.get(b"content-md5") or None))
        items += _extension(part)
    return b"(%b)" % b" ".join(items)


_EMPTY_TEXT = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)'


def _is_opaque_message(part: Part) -> bool:
    """message/rfc822 that was not looked into (encoded, or too deep)."""
    return (
        part.message is None
        and part.type.lower() == b"message"
        and part.subtype.lower() == b"rfc822"
    )


def _multipart(data: bytes, part: Part, *, extended: bool) -> bytes:
    children = b"".join(body_structure(data, c, extended=extended) for c in part.children)
    items = [children, quote(part.subtype)]
    if extended:
        items.append(_parameters(part.parameters))
        items += _extension(part)
    return b"(%b)" % b" ".join(items)


def _extension(part: Part) -> list[bytes]:
    """Disposition, language, location."""
    fields = part.fields
    found = disposition(fields.get(b"content-disposition"))
    shown = b"NIL" if found is None else b"(%b %b)" % (quote(found[0]), _parameters(found[1]))
    return [
        shown,
        _language(fields.get(b"content-language")),
        nstring(fields.get(b"content-location") or None),
    ]


def _language(value: bytes | None) -> bytes:
    tags = _LANGUAGE.findall(strip_comments(value)) if value else []
    if not tags:
        return b"NIL"
    if len(tags) == 1:
        return quote(tags[0])
    return b"(%b)" % b" ".join(map(quote, tags))


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join(b"%b %b" % (quote(k), quote(v)) for k, v in parameters)
