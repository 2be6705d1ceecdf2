"""ENVELOPE (RFC 3501 7.4.2)."""

import re

from netmail_pop_imap.protocol.imap.respond import nstring
from netmail_pop_imap.protocol.mime.address import parse_addresses
from netmail_pop_imap.protocol.mime.fields import unfold

_FIELDS = re.compile(
    rb"^(date|subject|from|sender|reply-to|to|cc|bcc|in-reply-to|message-id)[ \t]*:"
    rb"(.*(?:\n[ \t].*)*)",
    re.IGNORECASE | re.MULTILINE,
)
_LISTS = {b"to", b"cc", b"bcc"}


def envelope(header: bytes) -> bytes:
    """The parenthesised list, from the octets of a message's header."""
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELDS.findall(header):
        key = name.lower()
        text = unfold(value)
        if key not in fields:
            fields[key] = text
        elif key in _LISTS:  # more than one is forbidden, and people want to see them all
            fields[key] += b", " + text
    get = fields.get
    sender = _addresses(get(b"from"))
    return b"(%b)" % b" ".join(
        (
            nstring(get(b"date")),
            nstring(get(b"subject")),
            sender,
            _addresses(get(b"sender"), sender),
            _addresses(get(b"reply-to"), sender),
            _addresses(get(b"to")),
            _addresses(get(b"cc")),
            _addresses(get(b"bcc")),
            nstring(get(b"in-reply-to")),
            nstring(get(b"message-id")),
        )
    )


def _addresses(value: bytes | None, default: bytes = b"NIL") -> bytes:
    if not value:
        return default
    addresses = parse_addresses(value)
    if not addresses:
        return default
    return b"(%b)" % b"".join(
        b"(%b %b %b %b)" % (nstring(a.name), nstring(a.route), nstring(a.mailbox), nstring(a.host))
        for a in addresses
    )
