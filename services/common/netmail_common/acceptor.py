"""Accepts connections of a public listener: PROXY header, limits, implicit TLS."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from netmail_common.config._base import parse_host_port
from netmail_common.config.common import ListenerConfig
from netmail_common.logging import get_logger
from netmail_common.proxy_header import read_proxy_header
from netmail_common.proxy_protocol import ProxyHeader, ProxyProtocolError
from netmail_common.tls import ServerTls

__all__ = ["AcceptorHandle", "ClientInfo", "accept_connections"]

log = get_logger(__name__)

_BACKLOG = 4096
_ACCEPT_BATCH = 64
_HANDSHAKE_TIMEOUT = 30.0
_NO_DESCRIPTORS_PAUSE = 0.1

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

    def __init__(self) -> None:
        self.ports: tuple[int, ...] = ()
        self._sockets: list[socket.socket] = []
        self._open: Counter[IPv4Address | IPv6Address] = Counter()
        self._total = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._total

    def stop_accepting(self) -> None:
        """Closes the listening sockets; open connections go on. Again changes nothing."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()


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
        yield acceptor.handle
    finally:
        acceptor.handle.stop_accepting()
        await acceptor.cancel_pending()


class _Acceptor:
    def __init__(
        self,
        listener: ListenerConfig,
        protocol_factory: ProtocolFactory,
        tls: ServerTls | None,
        busy: Callable[[ClientInfo], bytes],
    ) -> None:
        self.handle = AcceptorHandle()
        self._listener = listener
        self._factory = protocol_factory
        self._tls = tls if listener.tls == "implicit" else None
        self._busy = busy
        self._trusted = [ip_network(text) for text in listener.proxy_trusted_networks]
        if listener.tls == "implicit" and tls is None:
            raise ValueError("implicit TLS needs a context")

    async def listen(self, *, reuse_port: bool) -> None:
        loop = asyncio.get_running_loop()
        ports = []
        try:
            for text in self._listener.listen:
                listening = await _bind(text, reuse_port=reuse_port)
                self.handle._sockets.append(listening)  # noqa: SLF001 - its only maker
                ports.append(listening.getsockname()[1])
        except OSError:
            self.handle.stop_accepting()
            raise
        self.handle.ports = tuple(ports)
        for listening in self.handle._sockets:  # noqa: SLF001
            loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: the backlog waits
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
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            connection.close()
            return
        direct = ClientInfo(
            address=_address(peer[0]),
            port=int(peer[1]),
            local_address=_address(local[0]),
            local_port=int(local[1]),
            via_proxy=False,
            may_grant=True,
        )
        if self._listener.proxy_protocol:
            if not self._trusts(direct.address):
                log.warning(
                    "connection from outside proxy_trusted_networks", address=str(direct.address)
                )
                connection.close()
                return
            self._spawn(self._serve_proxied(connection, direct))
        else:
            self._admit(connection, direct)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.handle._tasks.add(task)  # noqa: SLF001
        task.add_done_callback(self.handle._tasks.discard)  # noqa: SLF001

    async def cancel_pending(self) -> None:
        tasks = list(self.handle._tasks)  # noqa: SLF001
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)

    async def _serve_proxied(self, connection: socket.socket, direct: ClientInfo) -> None:
        try:
            header = await read_proxy_header(connection)
        except (ProxyProtocolError, OSError, TimeoutError) as error:
            log.warning("no PROXY header", proxy=str(direct.address), error=str(error) or "timeout")
            connection.close()
            return
        except asyncio.CancelledError:
            connection.close()
            raise
        self._admit(connection, _behind_proxy(direct, header))

    def _admit(self, connection: socket.socket, client: ClientInfo) -> None:
        slot = self._take_slot(client.address)
        if slot is None:
            self._refuse(connection, client)
            return
        self._spawn(self._connect(connection, client, slot))

    def _take_slot(self, address: IPv4Address | IPv6Address) -> "_Slot | None":
        handle = self.handle
        if (
            handle._total >= self._listener.max_connections  # noqa: SLF001
            or handle._open[address] >= self._listener.max_connections_per_address  # noqa: SLF001
        ):
            if not handle._open[address]:  # noqa: SLF001
                del handle._open[address]  # noqa: SLF001
            return None
        return _Slot(handle, address)

    def _refuse(self, connection: socket.socket, client: ClientInfo) -> None:
        log.warning("too many connections", address=str(client.address), port=client.local_port)
        if self._tls is None:  # nobody could read it before a handshake
            with contextlib.suppress(OSError):
                connection.send(self._busy(client))
                connection.shutdown(socket.SHUT_WR)
        connection.close()

    async def _connect(self, connection: socket.socket, client: ClientInfo, slot: "_Slot") -> None:
        loop = asyncio.get_running_loop()

        def make() -> asyncio.Protocol:
            protocol = self._factory(client)
            slot.follow(protocol)
            return protocol

        try:
            if self._tls is None:
                await loop.connect_accepted_socket(make, connection)
            else:
                await loop.connect_accepted_socket(
                    make,
                    connection,
                    ssl=self._tls.context,
                    ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            slot.release()
            log.info("connection failed", address=str(client.address), error=str(error))
            connection.close()
        except asyncio.CancelledError:
            slot.release()
            raise


class _Slot:
    """One connection's place among the allowed ones."""

    __slots__ = ("_address", "_handle", "_held")

    def __init__(self, handle: AcceptorHandle, address: IPv4Address | IPv6Address) -> None:
        self._handle = handle
        self._address = address
        self._held = True
        handle._total += 1  # noqa: SLF001
        handle._open[address] += 1  # noqa: SLF001

    def release(self) -> None:
        """Gives the place back; again changes nothing."""
        if not self._held:
            return
        self._held = False
        self._handle._total -= 1  # noqa: SLF001
        self._handle._open[self._address] -= 1  # noqa: SLF001
        if not self._handle._open[self._address]:  # noqa: SLF001
            del self._handle._open[self._address]  # noqa: SLF001

    def follow(self, protocol: asyncio.Protocol) -> None:
        """Releases the place when PROTOCOL's connection is lost, whatever carries it by then."""
        lost = protocol.connection_lost

        def connection_lost(error: Exception | None) -> None:
            del protocol.connection_lost  # breaks the reference cycle
            self.release()
            lost(error)

        protocol.connection_lost = connection_lost  # type: ignore[assignment,method-assign]


def _address(text: str | int) -> IPv4Address | IPv6Address:
    address = ip_address(str(text))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


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
        _address(str(header.source.address)),
        header.source.port,
        _address(str(header.destination.address)),
        header.destination.port,
        via_proxy=True,
        may_grant=True,
    )


async def _bind(text: str, *, reuse_port: bool) -> socket.socket:
    host, port = parse_host_port(text)
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {text}: {error.strerror}") from error
    return listening
