"""PROXY headers as a proxy writes them, and as it never would."""

import struct
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PROXY, LOCAL = 0x21, 0x20
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31


def v1(source: str, *, family: str = "", port: str = "40000") -> bytes:
    """Version 1, with the source as it is written."""
    family = family or ("TCP6" if ":" in source else "TCP4")
    destination = "2001:db8:ffff::25" if family == "TCP6" else "198.51.100.25"
    return f"PROXY {family} {source} {destination} {port} 25\r\n".encode()


def v2(source: str) -> bytes:
    """Version 2, by the octets of the source."""
    packed = ip_address(source).packed
    family = TCP4 if len(packed) == 4 else TCP6
    destination = bytes(len(packed) - 1) + b"\x19"
    return v2_raw(PROXY, family, packed + destination + struct.pack("!HH", 40000, 25))


def v2_raw(command: int, family: int, body: bytes, *, size: int | None = None) -> bytes:
    """Version 2 of any kind."""
    length = len(body) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, family, length) + body
