"""Fuzz target: the PROXY protocol header, versions 1 and 2."""

import struct
from collections.abc import Iterable

from netmail_common.proxy_protocol import (
    MAX_HEADER,
    NeedMore,
    ProxyHeader,
    ProxyProtocolError,
    parse_header,
)

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def seeds() -> Iterable[bytes]:
    """Headers as haproxy writes them, and what follows."""
    yield b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\nEHLO x\r\n"
    yield b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n"
    yield b"PROXY UNKNOWN\r\nEHLO"
    yield b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"
    four = bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack("!HH", 40000, 25)
    yield _SIGNATURE + b"\x21\x11" + struct.pack("!H", 12) + four + b"EHLO x\r\n"
    yield _SIGNATURE + b"\x21\x21" + struct.pack("!H", 36) + bytes(36)
    yield _SIGNATURE + b"\x20\x00" + struct.pack("!H", 0)
    yield _SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + bytes(216)
    yield _SIGNATURE + b"\x21\x11" + struct.pack("!H", 20) + four + b"\x04\x00\x05hello"


def one_input(data: bytes) -> None:
    """Whole or octet by octet, the same header; it is bounded, and what it names is an address."""
    whole = _parse(data)
    if isinstance(whole, ProxyHeader):
        assert 0 < whole.length <= min(len(data), MAX_HEADER)
        assert whole.grants == (whole.source is not None)
        assert (whole.source is None) == (whole.destination is None)
        for length in range(whole.length):
            assert isinstance(_parse(data[:length]), NeedMore)
        assert _parse(data[: whole.length]) == whole
        assert _parse(data + b"x") == whole
    elif isinstance(whole, NeedMore):
        assert whole.missing > 0
        assert len(data) + whole.missing <= MAX_HEADER + 16


def _parse(data: bytes) -> NeedMore | ProxyHeader | None:
    try:
        return parse_header(data)
    except ProxyProtocolError:
        return None
