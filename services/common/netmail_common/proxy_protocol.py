"""PROXY protocol versions 1 and 2, sans-IO (haproxy's proxy-protocol.txt, 2.1 and 2.2)."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = [
    "MAX_HEADER",
    "Endpoint",
    "NeedMore",
    "ProxyHeader",
    "ProxyProtocolError",
    "parse_header",
]

MAX_HEADER = 4096
"""Octets of a whole version 2 header, TLVs included; version 1 has 107 at most."""

_V1_MAX = 107
_V1_START = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = 16
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = 0, 1, 2, 3
_STREAM = 1


class ProxyProtocolError(Exception):
    """The connection does not begin with a PROXY header that we take."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header is not complete: at least `missing` more octets belong to it."""

    missing: int


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete header."""

    source: Endpoint | None
    """The client; None when the proxy does not say (LOCAL, UNKNOWN, AF_UNIX)."""
    destination: Endpoint | None
    length: int
    """Octets of the header; what follows is the client's."""

    @property
    def grants(self) -> bool:
        """Whether the client's address is known, and may therefore vouch for somebody."""
        return self.source is not None


def parse_header(buffer: bytes) -> NeedMore | ProxyHeader:
    """Reads the header at the start of BUFFER.

    Raises: ProxyProtocolError as soon as BUFFER cannot become a header.
    """
    if buffer[:12] == _V2_SIGNATURE[: len(buffer[:12])] and buffer:
        return _parse_v2(buffer)
    if buffer[:6] == _V1_START[: len(buffer[:6])]:
        return _parse_v1(buffer)
    raise ProxyProtocolError("no PROXY protocol header")


def _parse_v1(buffer: bytes) -> NeedMore | ProxyHeader:
    end = buffer.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(buffer) >= _V1_MAX:
            raise ProxyProtocolError("version 1 header without an end")
        # "PROXY UNKNOWN" and its end are 15 octets; afterwards only the next one is certain.
        return NeedMore(max(1, 15 - len(buffer)))
    try:
        words = buffer[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyProtocolError("version 1 header is not ASCII") from None
    length = end + 2
    if len(words) > 1 and words[1] == "UNKNOWN":
        return ProxyHeader(None, None, length)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyProtocolError("version 1 header is malformed")
    family = 4 if words[1] == "TCP4" else 6
    return ProxyHeader(
        _v1_endpoint(words[2], words[4], family), _v1_endpoint(words[3], words[5], family), length
    )


def _v1_endpoint(address_text: str, port_text: str, family: int) -> Endpoint:
    try:
        address = ip_address(address_text)
    except ValueError:
        raise ProxyProtocolError("version 1 header has a malformed address") from None
    if address.version != family or "%" in address_text:
        raise ProxyProtocolError("version 1 header has an address of another family")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise ProxyProtocolError("version 1 header has a malformed port")
    port = int(port_text)
    if port > 65535 or (len(port_text) > 1 and port_text[0] == "0"):
        raise ProxyProtocolError("version 1 header has a malformed port")
    return Endpoint(address, port)


def _parse_v2(buffer: bytes) -> NeedMore | ProxyHeader:
    if len(buffer) < _V2_FIXED:
        return NeedMore(_V2_FIXED - len(buffer))
    version_command, family_transport, size = struct.unpack_from("!BBH", buffer, 12)
    if version_command >> 4 != 2:
        raise ProxyProtocolError("not version 2")
    command = version_command & 0x0F
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError("version 2 header has an unknown command")
    length = _V2_FIXED + size
    if length > MAX_HEADER:
        raise ProxyProtocolError("version 2 header is too long")
    if len(buffer) < length:
        return NeedMore(length - len(buffer))
    if command == _LOCAL:
        return ProxyHeader(None, None, length)
    family, transport = family_transport >> 4, family_transport & 0x0F
    if family in (_UNSPEC, _UNIX):
        return ProxyHeader(None, None, length)
    if family not in (_INET, _INET6) or transport != _STREAM:
        raise ProxyProtocolError("version 2 header has an unknown family or transport")
    return _v2_addresses(buffer[_V2_FIXED:length], family, length)


def _v2_addresses(block: bytes, family: int, length: int) -> ProxyHeader:
    width = 4 if family == _INET else 16
    if len(block) < 2 * width + 4:
        raise ProxyProtocolError("version 2 header is too short for its addresses")
    source, destination = block[:width], block[width : 2 * width]
    source_port, destination_port = struct.unpack_from("!HH", block, 2 * width)
    return ProxyHeader(
        Endpoint(ip_address(source), source_port),
        Endpoint(ip_address(destination), destination_port),
        length,
    )
