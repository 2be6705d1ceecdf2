"""Fuzz target: mail addresses and domains, and the one way to compare them."""

import unicodedata
from collections.abc import Iterable

from netmail_common.mail_address import (
    AddressError,
    MailAddress,
    fold,
    parse_domain,
    parse_mail_address,
    split_subaddress,
)


def seeds() -> Iterable[bytes]:
    """Addresses in every spelling, and some that are none."""
    yield b"alice@example.org"
    yield b"Alice+tag@EXAMPLE.org"
    yield b'"a b\\"c"@example.org'
    yield b'"a\\\\b"@example.org'
    yield b"x@[192.0.2.1]"
    yield b"x@[IPv6:2001:db8::1]"
    yield b"x@xn--bcher-kva.example"
    yield "zoë@bücher.example".encode()
    yield "zoe\u0308@ｅxample.org".encode()  # noqa: RUF001 - that is the point
    yield "Straße\u0130@example.org".encode()
    yield "\ufb01\u0345@example.org".encode()
    yield "\u037e\u1fef\u212a@example.org".encode()
    yield b"@a,@b:c@d"
    yield b'"@"@a'
    yield b"a@b@c"
    yield b"a..b@c"


def one_input(data: bytes) -> None:
    """What is read can be written and read again, and is the same address then."""
    text = data.decode("utf-8", "surrogateescape")
    assert fold(fold(text)) == fold(text)
    try:
        address = parse_mail_address(text)
    except AddressError:
        return
    assert parse_mail_address(str(address)) == address
    assert MailAddress.from_wire(address.wire) == address
    decomposed = unicodedata.normalize("NFD", address.local)
    assert MailAddress(decomposed, address.domain).key() == address.key()
    _check_parts(text, address)


def _check_parts(text: str, address: MailAddress) -> None:
    assert address.domain.isascii()
    assert address.is_literal or address.domain == address.domain.lower()
    assert parse_domain(address.domain) == address.domain
    assert not set(address.domain) & set(' @"<>\\,;()')
    assert address.local
    assert not any(ord(character) < 0x20 or character == "\x7f" for character in address.local)
    if not text.startswith('"'):
        # What was not quoted says so: nothing in it can end a path or begin a domain.
        assert not set(address.local) & set(' @"<>\\,;:()[]')
        assert text.count("@") == 1
    user, tag = split_subaddress(address.local, "+")
    assert user
    assert address.local in {f"{user}+{tag}", user}
