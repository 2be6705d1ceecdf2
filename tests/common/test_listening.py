"""Sockets to listen on, and the addresses of peers."""

import asyncio
import socket
from ipaddress import ip_address

import pytest
from netmail_common.listening import bind_socket, listen_on, peer_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        # Other spellings that embed an IPv4 address are the network map's business.
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
        ("::192.0.2.1", "::192.0.2.1"),
    ],
)
def test_a_peer_s_address_has_no_mapping_and_no_zone(text: str, address: str) -> None:
    assert peer_address(text) == ip_address(address)


async def test_what_is_accepted_does_not_wait_to_fill_segments() -> None:
    with (
        listen_on("127.0.0.1:0", backlog=1, reuse_port=False) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            asyncio.Protocol, accepted
        )
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()


def test_an_address_that_is_taken_is_named() -> None:
    with listen_on("127.0.0.1:0", backlog=1, reuse_port=False) as listening:
        taken = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use"):
            listen_on(taken, backlog=1, reuse_port=False)


@pytest.mark.parametrize(("kind", "backlog"), [(socket.SOCK_STREAM, 1), (socket.SOCK_DGRAM, 0)])
def test_processes_share_a_port_if_all_of_them_say_so(
    kind: socket.SocketKind, backlog: int
) -> None:
    with bind_socket("127.0.0.1", 0, kind, reuse_port=True, backlog=backlog) as first:
        port = first.getsockname()[1]
        bind_socket("127.0.0.1", port, kind, reuse_port=True, backlog=backlog).close()
        with pytest.raises(OSError, match="already in use"):
            bind_socket("127.0.0.1", port, kind, reuse_port=False, backlog=backlog)


def test_an_ipv6_socket_takes_no_ipv4() -> None:
    with bind_socket("::1", 0, socket.SOCK_STREAM, reuse_port=False) as bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_host_without_an_address_of_the_family_cannot_be_bound() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the resolver's words
        bind_socket(
            "::1", 0, socket.SOCK_DGRAM, reuse_port=False, family=socket.AddressFamily.AF_INET
        )
