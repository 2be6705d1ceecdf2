"""Small request protocols that are spoken by UDP and by TCP, on one port, with known hosts only."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netmail_common.config._base import parse_host_port
from netmail_common.listening import bind_socket, peer_address
from netmail_common.logging import get_logger
from netmail_common.networks import Network
from netmail_common.shared_networks import is_within

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.front_end import FrontEndSetup

__all__ = ["Service", "known_hosts", "serve"]

log = get_logger(__name__)

_MAX_DATAGRAMS = 1000
"""Datagrams that wait for an answer; more are dropped, and asked again."""
_MAX_CONNECTIONS = 1000
_READ = 65_536
_BACKLOG = 1024
_PORT_TRIES = 20

Datagram = Callable[[bytes], Awaitable[bytes | None]]
Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def known_hosts(setup: FrontEndSetup, texts: Sequence[str], section: str) -> tuple[Network, ...]:
    """Reads SECTION.allowed_sources, of which there must be some. Raises: ConfigError."""
    if not texts:
        raise setup.error(
            f"{section}.listen needs {section}.allowed_sources: nobody else is answered"
        )
    return setup.allowed_sources(texts, section)


@dataclass(frozen=True, slots=True)
class Service:
    """What is served.

    Attributes:
        name: of the front end, for the metrics.
        allowed: networks that are answered; everybody else gets silence.
        datagram: answers a datagram; None: not at all.
        stream: serves a connection and returns when it is over; OSError and TimeoutError end it.
    """

    name: str
    allowed: tuple[Network, ...]
    datagram: Datagram
    stream: Stream


@contextlib.asynccontextmanager
async def serve(
    service: Service, listen: Sequence[str], *, reuse_port: bool
) -> AsyncIterator[list[int]]:
    """Serves until the block ends; gives the ports, one for each address.

    Raises: OSError, when an address cannot be had.
    """
    ports = []
    async with contextlib.AsyncExitStack() as stack:
        listener = _Listener(service)
        stack.push_async_callback(listener.close)
        for address in listen:
            tcp, udp = await asyncio.to_thread(_bind, address, reuse_port=reuse_port)
            ports.append(tcp.getsockname()[1])
            await listener.open(tcp, udp)
        yield ports


class _Listener:
    """The sockets of a service and what goes on behind them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._servers: list[asyncio.Server] = []
        self._transports: list[asyncio.DatagramTransport] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._connections = 0
        self._may_ask = functools.lru_cache(maxsize=1024)(self._is_allowed)

    async def open(self, tcp: socket.socket, udp: socket.socket) -> None:
        """Serves two sockets."""
        self._servers.append(
            await asyncio.start_server(self.connected, sock=tcp, limit=_READ, backlog=_BACKLOG)
        )
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), sock=udp
        )
        self._transports.append(transport)

    async def close(self) -> None:
        """Stops listening and ends what goes on."""
        for server in self._servers:
            server.close()
        for transport in self._transports:
            transport.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def datagram(self, transport: asyncio.DatagramTransport, data: bytes, source: Any) -> None:
        """A datagram has come."""
        if not self._may_ask(source[0]):
            self._count("source not allowed")
        elif self._waiting >= _MAX_DATAGRAMS:
            self._count("dropped")
        else:
            self._waiting += 1
            self._start(self._answer(transport, data, source))

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection has come."""
        peer = writer.get_extra_info("peername")
        if not peer or not self._may_ask(peer[0]):
            self._count("source not allowed")
        elif self._connections >= _MAX_CONNECTIONS:
            self._count("dropped")
        else:
            self._connections += 1
            self._start(self._serve(reader, writer))
            return
        writer.transport.abort()

    async def _answer(self, transport: asyncio.DatagramTransport, data: bytes, source: Any) -> None:
        try:
            answer = await self._service.datagram(data)
            if answer is not None:
                transport.sendto(answer, source)
        except Exception:
            log.exception("datagram not answered", front_end=self._service.name)
        finally:
            self._waiting -= 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._service.stream(reader, writer)
            writer.close()
        except (OSError, TimeoutError):
            pass
        except Exception:
            log.exception("connection not served", front_end=self._service.name)
        finally:
            self._connections -= 1
            if not writer.is_closing():
                writer.transport.abort()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, outcome: str) -> None:
        metrics.FRONT_END_REQUESTS.labels(self._service.name, outcome).inc()

    def _is_allowed(self, host: str) -> bool:
        return is_within(peer_address(host), self._service.allowed)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._listener.datagram(self._transport, data, addr)


def _bind(text: str, *, reuse_port: bool) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket on the same port.

    Raises: OSError.
    """
    host, port = parse_host_port(text)
    for attempt in range(_PORT_TRIES):
        tcp = bind_socket(host, port, socket.SOCK_STREAM, reuse_port=reuse_port)
        try:
            chosen = tcp.getsockname()[1]
            udp = bind_socket(host, chosen, socket.SOCK_DGRAM, reuse_port=reuse_port)
        except OSError:
            tcp.close()
            # A port of the kernel's choosing may be free for one of them only.
            if port or attempt == _PORT_TRIES - 1:
                raise
        else:
            return tcp, udp
    raise OSError(text)
