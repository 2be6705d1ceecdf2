"""One port by UDP and TCP for known hosts: what goes wrong in one request harms no other."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence

import pytest
from netmail_connmgr.adapters import udp_and_tcp
from netmail_connmgr.adapters.udp_and_tcp import Service, serve
from prometheus_client import REGISTRY

from tests.connmgr.front_ends import ask_udp

NAME = "test"


async def datagram(data: bytes) -> bytes | None:
    match data:
        case b"silence":
            return None
        case b"bug":
            raise RuntimeError(data)
        case b"wait":
            await asyncio.sleep(3600)
    return data.upper()


async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        match line:
            case b"bug\n":
                raise RuntimeError(line)
            case b"late\n":
                raise TimeoutError
            case b"end\n":
                return
        writer.write(line.upper())


def service(*allowed: str) -> Service:
    networks = tuple(ipaddress.ip_network(text) for text in allowed or ("127.0.0.0/8", "::1"))
    return Service(NAME, networks, datagram, stream)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serve(service(), ["127.0.0.1:0"], reuse_port=False) as ports:
        yield ports[0]


def counted(outcome: str) -> float:
    labels = {"front_end": NAME, "outcome": outcome}
    return REGISTRY.get_sample_value("netmail_connmgr_front_end_requests_total", labels) or 0


async def dialogue(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_both_transports_answer_on_one_port(port: int) -> None:
    assert await ask_udp(port, b"hello") == b"HELLO"
    assert await dialogue(port, b"hello\nend\n") == b"HELLO\n"
    assert await ask_udp(port, b"silence", patience=0.2) is None


@pytest.mark.parametrize("fault", [b"bug", b"late"])
async def test_a_fault_ends_its_connection_only(port: int, fault: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await dialogue(port, fault + b"\n") == b""
    assert await ask_udp(port, b"bug", patience=0.2) is None
    writer.write(b"still there\n")
    async with asyncio.timeout(20):
        assert await reader.readline() == b"STILL THERE\n"
    writer.close()


async def test_ipv6_has_its_own_listener_and_ipv4_is_not_on_it() -> None:
    async with serve(service(), ["[::1]:0"], reuse_port=False) as (port,):
        assert await dialogue(port, b"hello\nend\n", "::1") == b"HELLO\n"
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("::1", port))
            await loop.sock_sendall(client, b"hello")
            async with asyncio.timeout(20):
                assert await loop.sock_recv(client, 100) == b"HELLO"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_strangers_are_counted_and_hear_nothing() -> None:
    before = counted("source not allowed")
    async with serve(service("203.0.113.0/24"), ["127.0.0.1:0"], reuse_port=False) as (port,):
        assert await ask_udp(port, b"hello", patience=0.2) is None
        assert await dialogue(port, b"hello\n") == b""
    assert counted("source not allowed") == before + 2


async def test_a_crowd_is_dropped_beyond_a_bound(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_and_tcp, "_MAX_DATAGRAMS", 1)
    monkeypatch.setattr(udp_and_tcp, "_MAX_CONNECTIONS", 1)
    before = counted("dropped")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\n")
    async with asyncio.timeout(20):
        assert await reader.readline() == b"HELLO\n"
    assert await dialogue(port, b"hello\n") == b""
    assert await ask_udp(port, b"wait", patience=0.2) is None
    assert await ask_udp(port, b"hello", patience=0.2) is None
    assert counted("dropped") == before + 2
    writer.close()
    async with asyncio.timeout(20):
        while not (answer := await dialogue(port, b"again\nend\n")):  # noqa: ASYNC110 - over there
            await asyncio.sleep(0.01)
    assert answer == b"AGAIN\n"


async def test_workers_share_a_port() -> None:
    async with contextlib.AsyncExitStack() as stack:

        async def another(listen: Sequence[str]) -> int:
            ports = await stack.enter_async_context(serve(service(), listen, reuse_port=True))
            return ports[0]

        port = await another(["127.0.0.1:0"])
        assert await another([f"127.0.0.1:{port}"]) == port
        for _ in range(20):
            assert await ask_udp(port, b"hello") == b"HELLO"
            assert await dialogue(port, b"hello\nend\n") == b"HELLO\n"
