"""Fuzz target: mail addresses and domains, and the one way to compare them."""

from collections.abc import Iterable

from netmail_common.mail_address import (
    AddressError,
    MailAddress,
    parse_mail_address,
    split_subaddress,
)


def seeds() -> Iterable[bytes]:
    """Addresses in every spelling."""
    yield b"alice@example.org"
    yield b"Alice+tag@EXAMPLE.org"
    yield b'"a b\\"c"@example.org'
    yield b"x@[192.0.2.1]"
    yield b"x@[IPv6:2001:db8::1]"
    yield b"x@xn--bcher-kva.example"
    yield "zoë@bücher.example".encode()
    yield "zoe\u0308@ｅxample.org".encode()  # noqa: RUF001 - that is the point
    yield b"@a,@b:c@d"
    yield b'"@"@a'


def one_input(data: bytes) -> None:
    """What is read can be written and read again, and is the same address then."""
    try:
        address = parse_mail_address(data.decode("utf-8", "replace"))
    except AddressError:
        return
    assert parse_mail_address(str(address)) == address
    assert MailAddress.from_wire(address.wire) == address
    again = MailAddress.from_wire(address.key())
    assert again.key() == address.key()
    _check_parts(address)


def _check_parts(address: MailAddress) -> None:
    assert address.domain.isascii()
    assert address.is_literal or address.domain == address.domain.lower()
    assert address.local
    assert not any(ord(character) < 0x20 or character == "\x7f" for character in address.local)
    user, tag = split_subaddress(address.local, "+")
    assert user
    assert address.local in {f"{user}+{tag}", user}
