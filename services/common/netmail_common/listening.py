"""Sockets to listen on, and who is at the other end of what comes in by them."""

import socket
from ipaddress import IPv6Address, ip_address

from netmail_common.config._base import parse_host_port
from netmail_common.networks import Address

__all__ = ["bind_socket", "listen_on", "peer_address"]


def bind_socket(
    host: str,
    port: int,
    kind: socket.SocketKind,
    *,
    reuse_port: bool,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    backlog: int = 0,
) -> socket.socket:
    """A socket that does not block, at the first address of a host; looks its name up.

    An IPv6 socket takes no IPv4.

    Args:
        host: name or address.
        port: 0 for one of the kernel's choosing.
        kind: SOCK_STREAM or SOCK_DGRAM.
        reuse_port: other processes are bound to the same port.
        family: that alone counts.
        backlog: connections that may wait to be accepted; 0: it does not listen.

    Raises: OSError.
    """
    found, _, protocol, _, address = socket.getaddrinfo(host, port, family, kind)[0]
    # asyncio sets TCP_NODELAY only where the protocol is named.
    bound = socket.socket(found, kind, protocol)
    try:
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if found == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
        if backlog:
            bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound


def listen_on(text: str, *, backlog: int, reuse_port: bool) -> socket.socket:
    """A TCP socket that listens; looks a host name up.

    Args:
        text: host:port.
        backlog: connections that may wait to be accepted.
        reuse_port: other processes listen on the same port.

    Raises: OSError, naming what it cannot listen on.
    """
    host, port = parse_host_port(text)
    try:
        return bind_socket(host, port, socket.SOCK_STREAM, reuse_port=reuse_port, backlog=backlog)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {text}: {error.strerror}") from error


def peer_address(text: str) -> Address:
    """The address of a peer, as the kernel or a proxy gives it; IPv4-mapped ones are IPv4.

    A zone id counts for nothing.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
