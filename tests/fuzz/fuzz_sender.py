"""Fuzz target: From, Sender and Resent-*: no address may hide from the check."""

import re
from collections.abc import Iterable

from netmail_common.address_list import AddressFieldError, parse_address_field
from netmail_common.config import SenderBinding
from netmail_common.header import scan_header
from netmail_common.mail_address import parse_mail_address
from netmail_smtp.domain.identity import (
    AuthenticatedSender,
    OwnAddresses,
    UserName,
    header_senders,
)
from netmail_smtp.protocol.reply import MessageRefused

_SENDER = AuthenticatedSender(
    UserName("alice", "users.demo"),
    OwnAddresses(["alice@example.org"], "+"),
    frozenset({"example.org"}),
    SenderBinding.STRICT,
)
_NAMES = (b"from", b"sender", b"resent-from", b"resent-sender")
_SPACED = re.compile(rb"(?:resent-)?(?:from|sender)[ \t]+:", re.IGNORECASE)


def seeds() -> Iterable[bytes]:
    """Address fields: the first octet says whether it is a value or a header."""
    yield b'vAlice <alice@example.org>, "B, C" <b@x>, G: d@x, e@x;, f@x (c (d) \\))'
    yield b"v=?utf-8?q?a=40b?= <alice@example.org>"
    yield b"v=?utf-8?q?alice?=@example.org"
    yield b'v"alice@example.org" <mallory@evil>'
    yield b"valice@example.org <mallory@evil>"
    yield b"v<@a,@b:alice@example.org>"
    yield b'v"a\\"b"@[192.0.2.1],x@y'
    yield "vzoë@bücher.example, alice@ex\u0430mple.org".encode()
    yield b"hFrom: alice@example.org\r\nSender: alice@example.org\r\nResent-From: x: a@b;\r\n"
    yield b"hFrom: alice@example.org\r\nFrom: mallory@evil\r\n"
    yield b"hFrom: alice@example.org\r\n"
    yield b"hFrom : alice@example.org\r\n"
    yield b"v<alice@example.org>,<b@x>"
    yield b"v<alice@example.org,b@x>"
    yield b"hFrom : mallory@evil\r\nFrom: alice@example.org\r\n"
    yield b"hFrom: alice+tag@example.org\r\n , mallory@evil\r\n"


def one_input(data: bytes) -> None:
    """A value is read with every address that it has; a header passes only with alice's own."""
    if data[:1] == b"h":
        _check_header(data[1:].replace(b"\r", b"").replace(b"\n", b"\r\n"))
    else:
        _check_value(data[1:])


def _check_value(value: bytes) -> None:
    try:
        field = parse_address_field(value)
    except AddressFieldError:
        return
    assert len(field.addresses) == _visible_ats(value.decode())
    for address in field.addresses:
        assert parse_mail_address(str(address)) == address
        assert "=?" not in address.local


def _visible_ats(text: str) -> int:
    """How many @ stand outside comments and quoted strings."""
    count, depth, quoted, at = 0, 0, False, 0
    while at < len(text):
        character = text[at]
        if character == "\\" and (quoted or depth):
            at += 1
        elif quoted:
            quoted = character != '"'
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth and character == '"':
            quoted = True
        elif not depth and character == "@":
            count += 1
        at += 1
    return count


def _check_header(octets: bytes) -> None:
    header = scan_header(octets + b"\r\n")
    try:
        _SENDER.check(header_senders(header), {})
    except MessageRefused:
        return
    # Passed: every line that any reader could take for a sender field names alice only.
    lines = (octets + b"\r\n").partition(b"\r\n\r\n")[0].split(b"\r\n")
    senders = [n for n in (x.partition(b":")[0].strip().lower() for x in lines) if n in _NAMES]
    assert senders.count(b"from") == 1
    assert not any(_SPACED.match(line) for line in lines)
    for field in header.fields:
        if field.name.encode() in _NAMES:
            for address in parse_address_field(header.value(field)).addresses:
                assert address.key().partition("+")[0].partition("@")[0] == "alice"
                assert address.domain == "example.org"
