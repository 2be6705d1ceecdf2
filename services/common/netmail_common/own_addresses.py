"""The addresses of this machine or pod, as the kernel lists them (rtnetlink(7))."""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

__all__ = ["own_addresses"]

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLMSG_DONE = 3
_NLMSG_ERROR = 2
_REQUEST_DUMP = 0x301
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_HEADER = struct.Struct("=IHHII")
_ADDRESS_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")


def own_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """Addresses of all interfaces but loopback and link-local ones.

    Raises: OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(2)
        size = _HEADER.size + _ADDRESS_MESSAGE.size
        netlink.send(
            _HEADER.pack(size, _RTM_GETADDR, _REQUEST_DUMP, 1, 0)
            + _ADDRESS_MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        )
        found: set[IPv4Address | IPv6Address] = set()
        while True:
            for kind, body in _messages(netlink.recv(1 << 16)):
                if kind == _NLMSG_DONE:
                    return frozenset(
                        one for one in found if not (one.is_loopback or one.is_link_local)
                    )
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    raise OSError(-code, os.strerror(-code))
                if kind == _RTM_NEWADDR:
                    found.update(_address(body))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(max(length, _HEADER.size) + 3) & ~3 :]


def _address(body: bytes) -> Iterator[IPv4Address | IPv6Address]:
    """The address of an RTM_NEWADDR message: IFA_LOCAL, on a tunnel's end too, else IFA_ADDRESS."""
    attributes: dict[int, bytes] = {}
    data = body[_ADDRESS_MESSAGE.size :]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        attributes[kind] = data[_ATTRIBUTE.size : length]
        data = data[(max(length, _ATTRIBUTE.size) + 3) & ~3 :]
    octets = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if octets is not None and len(octets) in {4, 16}:
        yield ipaddress.ip_address(octets)
