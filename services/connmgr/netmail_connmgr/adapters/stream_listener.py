"""Connections from known hosts, by TCP or a Unix socket, for front ends that talk over streams."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netmail_common.listening import listen_on, peer_address
from netmail_common.logging import get_logger
from netmail_common.networks import Address, Network
from netmail_common.shared_networks import is_within
from netmail_common.tls import ServerTls

from netmail_connmgr.adapters import metrics

__all__ = ["LOCAL", "ListenerSetup", "ProtocolFactory", "accept_streams"]

log = get_logger(__name__)

_BACKLOG = 1024
_ACCEPT_BATCH = 64
_HANDSHAKE_TIMEOUT = 10.0
_NO_DESCRIPTORS_PAUSE = 0.1
_LAST_WORDS = 1.0
"""Seconds in which peers may read what was written to them before the end."""
_SOCKET_MODE = 0o660

LOCAL = "local"
"""The peer behind a Unix socket."""

ProtocolFactory = Callable[[str, Callable[[], None]], asyncio.BaseProtocol]
"""Makes the protocol of a connection from its peer, for the log, and of what to call at its end."""


@dataclass(frozen=True, slots=True)
class ListenerSetup:
    """Where a front end listens, and to whom.

    Attributes:
        name: of the front end, for the metrics.
        listen: host:port, any number.
        path: of a Unix socket; whoever can open it may ask.
        allowed: networks that may connect by TCP; others are hung up on before a word.
        max_connections: in all; more are hung up on.
        tls: by TCP only.
        reuse_port: other processes listen on the same addresses.
    """

    name: str
    listen: Sequence[str]
    path: Path | None
    allowed: tuple[Network, ...]
    max_connections: int
    tls: ServerTls | None = None
    reuse_port: bool = False


@contextlib.asynccontextmanager
async def accept_streams(
    setup: ListenerSetup, factory: ProtocolFactory
) -> AsyncIterator[tuple[int, ...]]:
    """Accepts until the block ends, then closes what is open; gives the ports, one per address.

    Raises: OSError, when an address or the path cannot be had.
    """
    listener = _Listener(setup, factory)
    ours: os.stat_result | None = None
    try:
        for address in setup.listen:
            listener.add(
                await asyncio.to_thread(
                    listen_on, address, backlog=_BACKLOG, reuse_port=setup.reuse_port
                )
            )
        ports = listener.ports
        if setup.path is not None:
            listener.add(_bind_path(setup.path))
            ours = setup.path.stat()
        yield ports
    finally:
        await listener.close()
        if setup.path is not None and ours is not None:
            _remove_path(setup.path, ours)


class _Listener:
    def __init__(self, setup: ListenerSetup, factory: ProtocolFactory) -> None:
        self._setup = setup
        self._factory = factory
        self._sockets: list[socket.socket] = []
        self._transports: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._all_left = asyncio.Event()

    @property
    def ports(self) -> tuple[int, ...]:
        """Of the TCP sockets, in their order."""
        return tuple(one.getsockname()[1] for one in self._sockets if one.family != socket.AF_UNIX)

    def add(self, listening: socket.socket) -> None:
        """Accepts on one more socket."""
        self._sockets.append(listening)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def close(self) -> None:
        """Stops listening, ends handshakes and connections, also of peers that read nothing."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in tuple(self._transports):
            transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while self._transports:
                    self._all_left.clear()
                    await self._all_left.wait()
        for transport in tuple(self._transports):
            transport.abort()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: the backlog waits
                log.error("cannot accept", front_end=self._setup.name, error=error.strerror)  # noqa: TRY400
                self._pause(listening)
                return
            connection.setblocking(False)
            local = listening.family == socket.AF_UNIX
            self._admit(connection, None if local else peer_address(peer[0]))

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def resume() -> None:
            if listening.fileno() >= 0:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(_NO_DESCRIPTORS_PAUSE, resume)

    def _admit(self, connection: socket.socket, address: Address | None) -> None:
        if address is not None and not is_within(address, self._setup.allowed):
            refusal = "source not allowed"
        elif self._connections >= self._setup.max_connections:
            refusal = "too many connections"
        else:
            self._connections += 1
            self._start(self._connect(connection, address))
            return
        metrics.FRONT_END_REQUESTS.labels(self._setup.name, refusal).inc()
        connection.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket, address: Address | None) -> None:
        peer = LOCAL if address is None else str(address)
        place = _Place(self)
        security: dict[str, Any] = {}
        if self._setup.tls is not None and address is not None:
            security = {
                "ssl": self._setup.tls.context,
                "ssl_handshake_timeout": _HANDSHAKE_TIMEOUT,
            }
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._factory(peer, place.release), connection, **security
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            place.release()
            metrics.FRONT_END_REQUESTS.labels(self._setup.name, "no TLS").inc()
        except BaseException:
            place.release()
            raise
        else:
            place.keep(transport)

    def entered(self, transport: asyncio.WriteTransport) -> None:
        """A connection is open."""
        self._transports.add(transport)

    def left(self, transport: asyncio.WriteTransport | None) -> None:
        """A connection is over."""
        self._connections -= 1
        if transport is not None:
            self._transports.discard(transport)
            if not self._transports:
                self._all_left.set()


class _Place:
    """A connection among those that a listener counts."""

    def __init__(self, listener: _Listener) -> None:
        self._listener: _Listener | None = listener
        self._transport: asyncio.WriteTransport | None = None

    def keep(self, transport: asyncio.WriteTransport) -> None:
        """The connection is made; it may be over already."""
        if self._listener is not None:
            self._transport = transport
            self._listener.entered(transport)

    def release(self) -> None:
        """The connection is over; again changes nothing."""
        if self._listener is not None:
            self._listener.left(self._transport)
            self._listener = self._transport = None


def _bind_path(path: Path) -> socket.socket:
    """A Unix socket for its owner and group; one that a predecessor left is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        listening.setblocking(False)
        listening.bind(str(path))
        path.chmod(_SOCKET_MODE)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror}") from error
    return listening


def _remove_path(path: Path, ours: os.stat_result) -> None:
    """Unless it is a successor's by now."""
    with contextlib.suppress(OSError):
        if os.path.samestat(path.stat(), ours):
            path.unlink()
