"""The acceptor of public listeners, on real sockets."""

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog
from netmail_common import proxy_header
from netmail_common.acceptor import AcceptorHandle, ClientInfo, accept_connections
from netmail_common.certificates import LocalAuthority
from netmail_common.config.common import ListenerConfig
from netmail_common.tls import ServerTls

from tests.loops import on_both_loops

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


class Echo(asyncio.Protocol):
    """Says who is there, then echoes."""

    def __init__(self, client: ClientInfo) -> None:
        self.client = client

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(f"{self.client.address} {self.client.may_grant}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def accept(
    context: ServerTls | None = None, **settings: Any
) -> AbstractAsyncContextManager[AcceptorHandle]:
    listener = ListenerConfig.model_validate({"listen": ["127.0.0.1:0"], **settings})
    return accept_connections(
        listener, protocol_factory=Echo, tls=context, busy=lambda _: b"421 busy\r\n"
    )


async def connect(
    handle: AcceptorHandle, first: bytes = b"", **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", handle.ports[0], **options)
    writer.write(first)
    return reader, writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def until_no_connections(handle: AcceptorHandle) -> None:
    async with asyncio.timeout(5):
        while handle.connections:  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.005)


@on_both_loops
async def test_a_client_is_known_by_its_address_and_counted_until_it_goes() -> None:
    async with accept() as handle:
        reader, writer = await connect(handle, b"hello\n")
        assert await reader.readline() == b"127.0.0.1 True\n"
        assert await reader.readline() == b"hello\n"
        assert handle.connections == 1
        await close(writer)
        await until_no_connections(handle)


@on_both_loops
async def test_ipv6_clients_are_accepted_like_ipv4() -> None:
    async with accept(listen=["[::1]:0", "127.0.0.1:0"]) as handle:
        reader, writer = await asyncio.open_connection("::1", handle.ports[0])
        assert await reader.readline() == b"::1 True\n"
        await close(writer)


@on_both_loops
async def test_one_connection_too_many_is_told_and_closed() -> None:
    async with accept(max_connections=1) as handle:
        reader, first = await connect(handle)
        await reader.readline()
        reader, second = await connect(handle)
        assert await reader.read() == b"421 busy\r\n"
        await close(second)
        await close(first)
        await until_no_connections(handle)
        reader, third = await connect(handle)
        assert await reader.readline() == b"127.0.0.1 True\n"
        await close(third)


@on_both_loops
async def test_the_limit_per_address_leaves_others_in() -> None:
    async with accept(max_connections_per_address=1) as handle:
        reader, first = await connect(handle)
        await reader.readline()
        reader, second = await connect(handle)
        assert await reader.read() == b"421 busy\r\n"
        reader, third = await connect(handle, local_addr=("127.0.0.9", 0))
        assert await reader.readline() == b"127.0.0.9 True\n"
        for writer in (first, second, third):
            await close(writer)


@on_both_loops
async def test_a_proxy_names_the_client_and_what_follows_is_the_clients() -> None:
    async with accept(proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]) as handle:
        reader, writer = await connect(
            handle, b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 25\r\nEHLO x\r\n"
        )
        assert await reader.readline() == b"192.0.2.7 True\n"
        assert await reader.readline() == b"EHLO x\r\n"
        await close(writer)


@on_both_loops
async def test_a_header_that_comes_octet_by_octet_is_read() -> None:
    header = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 12) + bytes([192, 0, 2, 8, 192, 0, 2, 1])
    async with accept(proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]) as handle:
        reader, writer = await connect(handle)
        for octet in header + struct.pack("!HH", 1, 2) + b"X":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.001)
        assert await reader.readline() == b"192.0.2.8 True\n"
        assert await reader.readexactly(1) == b"X"
        await close(writer)


@on_both_loops
async def test_a_proxys_own_connection_may_not_grant() -> None:
    async with accept(proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]) as handle:
        reader, writer = await connect(handle, SIGNATURE + struct.pack("!BBH", 0x20, 0, 0))
        assert await reader.readline() == b"127.0.0.1 False\n"
        await close(writer)


@pytest.mark.parametrize("trusted", [[], ["192.0.2.0/24"]])
@on_both_loops
async def test_a_header_from_elsewhere_than_a_trusted_proxy_is_refused(trusted: list[str]) -> None:
    async with accept(proxy_protocol=True, proxy_trusted_networks=trusted) as handle:
        reader, writer = await connect(handle)
        assert await reader.read() == b""
        await close(writer)


@on_both_loops
async def test_a_client_without_the_header_is_refused() -> None:
    async with accept(proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]) as handle:
        reader, writer = await connect(handle, b"EHLO x\r\n")
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert await reader.read() != b""
        writer.close()


@on_both_loops
async def test_a_header_that_does_not_come_in_time_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy_header.read_proxy_header, "__defaults__", (0.05,))
    async with accept(proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]) as handle:
        reader, writer = await connect(handle, b"PROXY TCP4")
        assert await reader.read() == b""
        await close(writer)


@pytest.fixture(scope="module")
def tls_files(
    authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("listener")
    paths = folder / "x.pem", folder / "x.key"
    authority.issue_server("mail.example.org", *paths)
    return paths


def trusting(authority: LocalAuthority) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority.certificate_pem.decode())
    return context


@on_both_loops
async def test_implicit_tls_behind_a_proxy(
    tls_files: tuple[Path, Path], authority: LocalAuthority
) -> None:
    tls = ServerTls(*tls_files, "1.2")
    async with accept(
        tls, tls="implicit", proxy_protocol=True, proxy_trusted_networks=["127.0.0.0/8"]
    ) as handle:
        reader, writer = await connect(handle, b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 465\r\n")
        await writer.drain()
        await writer.start_tls(trusting(authority), server_hostname="mail.example.org")
        assert await reader.readline() == b"192.0.2.7 True\n"
        await close(writer)
        await until_no_connections(handle)


@on_both_loops
async def test_a_failed_handshake_gives_its_place_back(tls_files: tuple[Path, Path]) -> None:
    async with accept(ServerTls(*tls_files, "1.2"), tls="implicit") as handle:
        reader, writer = await connect(handle, b"EHLO this is not TLS\r\n")
        await reader.read()
        writer.close()
        await until_no_connections(handle)


@on_both_loops
async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with accept() as handle:
        address = f"127.0.0.1:{handle.ports[0]}"
        with pytest.raises(OSError, match=address):
            async with accept(listen=[address]):
                pass


@on_both_loops
async def test_after_stop_accepting_open_connections_go_on() -> None:
    async with accept() as handle:
        reader, writer = await connect(handle)
        await reader.readline()
        handle.stop_accepting()
        handle.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await connect(handle)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        await close(writer)


@on_both_loops
async def test_who_has_connected_before_the_stop_is_served() -> None:
    async with accept() as handle:
        waiting = socket.create_connection(("127.0.0.1", handle.ports[0]))
        handle.stop_accepting()
        waiting.setblocking(False)
        greeting = await asyncio.get_running_loop().sock_recv(waiting, 100)
        assert greeting == b"127.0.0.1 True\n"
        waiting.close()
        await until_no_connections(handle)


@on_both_loops
async def test_a_flood_of_refusals_is_one_log_line_a_second() -> None:
    async with accept(max_connections=1) as handle:
        reader, first = await connect(handle)
        await reader.readline()
        with structlog.testing.capture_logs() as logs:
            for _ in range(20):
                reader, writer = await connect(handle)
                assert await reader.read() == b"421 busy\r\n"
                await close(writer)
        assert 1 <= len(logs) < 20
        assert logs[0]["reason"] == "too many connections"
        await close(first)


@on_both_loops
async def test_a_bug_in_the_protocol_gives_its_place_back() -> None:
    def broken(_client: ClientInfo) -> asyncio.Protocol:
        raise RuntimeError("a bug")

    seen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    listener = ListenerConfig.model_validate({"listen": ["127.0.0.1:0"]})
    async with accept_connections(
        listener, protocol_factory=broken, tls=None, busy=lambda _: b""
    ) as handle:
        _, writer = await connect(handle)
        await until(lambda: seen)
        assert handle.connections == 0
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
            gc.collect()
