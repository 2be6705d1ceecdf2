"""Accepts connections of a public listener: PROXY header, limits, implicit TLS."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from netmail_common.config.common import ListenerConfig
from netmail_common.connection_limits import ConnectionLimits, Place
from netmail_common.listening import listen_on, peer_address
from netmail_common.logging import get_logger
from netmail_common.lost_peer import ask_when_silent
from netmail_common.metrics import counter
from netmail_common.proxy_header import read_proxy_header
from netmail_common.proxy_protocol import ProxyHeader, ProxyProtocolError
from netmail_common.tls import ServerTls

__all__ = ["AcceptorHandle", "ClientInfo", "accept_connections"]

log = get_logger(__name__)

_BACKLOG = 4096
_ACCEPT_BATCH = 64
_HANDSHAKE_TIMEOUT = 30.0
_NO_DESCRIPTORS_PAUSE = 0.1
_LOG_INTERVAL = 1.0

_CONNECTIONS = counter("connections", "Connections of public listeners", ["outcome"])
_ACCEPTED = _CONNECTIONS.labels("accepted")

ProtocolFactory = Callable[["ClientInfo"], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who is at the other end."""

    address: IPv4Address | IPv6Address
    """The client's; IPv4-mapped addresses are IPv4."""
    port: int
    local_address: IPv4Address | IPv6Address
    local_port: int
    via_proxy: bool
    """Whether a PROXY header named the client."""
    may_grant: bool
    """False when the proxy did not say who the client is: it can vouch for nobody."""


class AcceptorHandle:
    """A running acceptor."""

    def __init__(self, acceptor: "_Acceptor") -> None:
        self._acceptor = acceptor

    @property
    def ports(self) -> tuple[int, ...]:
        """One for each address that it listens on, in their order."""
        return self._acceptor.ports

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._acceptor.limits.connections

    def stop_accepting(self) -> None:
        """Closes the listening sockets; open connections go on. Again changes nothing.

        Who has connected already is accepted first, and not reset.
        """
        self._acceptor.stop_accepting()


@contextlib.asynccontextmanager
async def accept_connections(
    listener: ListenerConfig,
    *,
    protocol_factory: ProtocolFactory,
    tls: ServerTls | None,
    busy: Callable[[ClientInfo], bytes],
    reuse_port: bool = False,
) -> AsyncIterator[AcceptorHandle]:
    """Accepts until the block ends; open connections are their protocols' own to close.

    Args:
        listener: addresses, limits, PROXY protocol, implicit TLS.
        protocol_factory: makes the protocol of one connection.
        tls: context for implicit TLS; the acceptor does nothing about STARTTLS.
        busy: the reply to a connection beyond a limit; then it is closed.
        reuse_port: several worker processes listen on the same port.

    Raises: OSError when an address is taken.
    """
    acceptor = _Acceptor(listener, protocol_factory, tls, busy)
    await acceptor.listen(reuse_port=reuse_port)
    try:
        yield AcceptorHandle(acceptor)
    finally:
        acceptor.stop_accepting()
        await acceptor.cancel_pending()


class _Acceptor:
    def __init__(
        self,
        listener: ListenerConfig,
        protocol_factory: ProtocolFactory,
        tls: ServerTls | None,
        busy: Callable[[ClientInfo], bytes],
    ) -> None:
        if listener.tls == "implicit" and tls is None:
            raise ValueError("implicit TLS needs a context")
        self.ports: tuple[int, ...] = ()
        self.limits = ConnectionLimits(
            listener.max_connections, listener.max_connections_per_address
        )
        self._listener = listener
        self._factory = protocol_factory
        self._tls = tls if listener.tls == "implicit" else None
        self._busy = busy
        self._trusted = [ip_network(text) for text in listener.proxy_trusted_networks]
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0

    async def listen(self, *, reuse_port: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            for text in self._listener.listen:
                self._sockets.append(
                    await asyncio.to_thread(
                        listen_on, text, backlog=_BACKLOG, reuse_port=reuse_port
                    )
                )
        except OSError:
            self.stop_accepting()
            raise
        self.ports = tuple(one.getsockname()[1] for one in self._sockets)
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    def stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            self._accept(listening, _BACKLOG)
            listening.close()
        self._sockets.clear()

    async def cancel_pending(self) -> None:
        """Ends handshakes that are under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket, most: int = _ACCEPT_BATCH) -> None:
        for _ in range(most):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: the backlog waits
                _CONNECTIONS.labels("not accepted").inc()
                log.error("cannot accept", error=str(error))  # noqa: TRY400 - no traceback
                self._pause(listening)
                return
            connection.setblocking(False)
            self._start(connection, peer)

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def resume() -> None:
            if listening.fileno() >= 0:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(_NO_DESCRIPTORS_PAUSE, resume)

    def _start(self, connection: socket.socket, peer: Sequence[str | int]) -> None:
        try:
            local = connection.getsockname()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_when_silent(connection)
        except OSError:  # gone already
            connection.close()
            return
        direct = ClientInfo(
            address=peer_address(str(peer[0])),
            port=int(peer[1]),
            local_address=peer_address(str(local[0])),
            local_port=int(local[1]),
            via_proxy=False,
            may_grant=True,
        )
        if not self._listener.proxy_protocol:
            self._admit(connection, direct)
        elif any(direct.address in network for network in self._trusted):
            self._spawn(self._serve_proxied(connection, direct))
        else:
            self._turn_away("not a trusted proxy", direct)
            connection.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_proxied(self, connection: socket.socket, direct: ClientInfo) -> None:
        try:
            header = await read_proxy_header(connection)
        except (ProxyProtocolError, OSError, TimeoutError) as error:
            self._turn_away("no PROXY header", direct, error=str(error) or "timeout")
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
        else:
            self._admit(connection, _behind_proxy(direct, header))

    def _admit(self, connection: socket.socket, client: ClientInfo) -> None:
        place = self.limits.take(client.address)
        if place is not None:
            self._spawn(self._connect(connection, client, place))
            return
        self._turn_away("too many connections", client)
        if self._tls is None:  # nobody could read it before a handshake
            with contextlib.suppress(OSError):
                connection.send(self._busy(client))
                connection.shutdown(socket.SHUT_WR)
        connection.close()

    async def _connect(self, connection: socket.socket, client: ClientInfo, place: Place) -> None:
        try:
            protocol = self._factory(client)
        except BaseException:
            place.release()
            connection.close()
            raise
        place.follow(protocol)
        security: dict[str, Any] = {}
        if self._tls is not None:
            security = {"ssl": self._tls.context, "ssl_handshake_timeout": _HANDSHAKE_TIMEOUT}
        try:
            # From here on the socket is the loop's to close; a second close could hit another one.
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, connection, **security
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            place.release()
            self._turn_away("no TLS", client, error=str(error))
            return
        except BaseException:
            place.release()
            raise
        _ACCEPTED.inc()

    def _turn_away(self, reason: str, client: ClientInfo, **details: str) -> None:
        """Counts each one; says so once a second at most: they may be many."""
        _CONNECTIONS.labels(reason).inc()
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL
            address = str(client.address)
            log.warning(
                "connection turned away",
                reason=reason,
                address=address,
                port=client.local_port,
                **details,
            )


def _behind_proxy(direct: ClientInfo, header: ProxyHeader) -> ClientInfo:
    if header.source is None or header.destination is None:
        return ClientInfo(
            direct.address,
            direct.port,
            direct.local_address,
            direct.local_port,
            via_proxy=False,
            may_grant=False,
        )
    return ClientInfo(
        peer_address(str(header.source.address)),
        header.source.port,
        peer_address(str(header.destination.address)),
        header.destination.port,
        via_proxy=True,
        may_grant=True,
    )
