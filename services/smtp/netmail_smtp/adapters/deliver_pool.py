"""Keeps connections for the next message; bounds how many there are to one host."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from netmail_smtp.adapters.deliver_connection import SmtpConnection
from netmail_smtp.domain.deliver_health import HostHealth
from netmail_smtp.domain.deliver_outcome import HostFailed
from netmail_smtp.domain.deliver_route import Target


@dataclass(slots=True)
class _Idle:
    connection: SmtpConnection
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class _Place:
    """What there is for one target."""

    slots: asyncio.Semaphore
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)
    idle: list[_Idle] = field(default_factory=list)
    users: int = 0


@dataclass(frozen=True, slots=True)
class Loan:
    """A connection for one use."""

    connection: SmtpConnection
    reused: bool


class ConnectionPool:
    """Connections by target. Belongs to one event loop."""

    def __init__(
        self,
        open_session: Callable[[Target], Awaitable[SmtpConnection]],
        health: HostHealth,
        *,
        per_target: int,
        idle_time: float,
        messages_per_connection: int,
    ) -> None:
        """Makes an empty pool.

        Args:
            open_session: makes a connection ready for a transaction; raises HostFailed.
            health: told what became of each.
            per_target: connections at once to one target.
            idle_time: seconds that an unused connection is kept.
            messages_per_connection: then it is closed.
        """
        self._open_session = open_session
        self._health = health
        self._per_target = per_target
        self._idle_time = idle_time
        self._messages = messages_per_connection
        self._places: dict[Target, _Place] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def connection(self, target: Target, *, fresh: bool = False) -> AsyncIterator[Loan]:
        """Lends a connection; whether it is kept after that shows in its state.

        Args:
            target: where to.
            fresh: not one that was used before.

        Raises: HostFailed, at once while the host is left alone after a failure.
        """
        place = self._places.get(target)
        if place is None:
            place = self._places[target] = _Place(asyncio.Semaphore(self._per_target))
        place.users += 1
        try:
            async with place.slots:
                loan = await self._borrow(target, place, fresh=fresh)
                try:
                    yield loan
                finally:
                    self._give_back(target, place, loan.connection)
        finally:
            place.users -= 1
            self._forget(target, place)

    async def _borrow(self, target: Target, place: _Place, *, fresh: bool) -> Loan:
        while place.idle and not fresh:
            idle = place.idle.pop()
            idle.timer.cancel()
            if idle.connection.alive:
                return Loan(idle.connection, reused=True)
            idle.connection.abort()
        if self._health.proven((target.address, target.port)):
            return Loan(await self._open(target), reused=False)
        # One at a time until a session came about: a dead host costs one time-out.
        async with place.probe:
            return Loan(await self._open(target), reused=False)

    async def _open(self, target: Target) -> SmtpConnection:
        host = (target.address, target.port)
        failure = self._health.suspended(host)
        if failure is not None:
            raise HostFailed(failure)
        try:
            connection = await self._open_session(target)
        except HostFailed as error:
            if error.unreachable:
                self._health.failed(host, error.failure)
            raise
        self._health.succeeded(host)
        return connection

    def _give_back(self, target: Target, place: _Place, connection: SmtpConnection) -> None:
        limit = connection.session.extensions.max_messages or self._messages
        keep = connection.alive and connection.messages < min(limit, self._messages)
        if not keep or self._closed or not self._idle_time:
            self._close_later(connection)
            return
        timer = asyncio.get_running_loop().call_later(
            self._idle_time, self._expire, target, connection
        )
        place.idle.append(_Idle(connection, timer))

    def _expire(self, target: Target, connection: SmtpConnection) -> None:
        place = self._places.get(target)
        if place is not None:
            place.idle = [idle for idle in place.idle if idle.connection is not connection]
            self._forget(target, place)
        self._close_later(connection)

    def _forget(self, target: Target, place: _Place) -> None:
        if not place.users and not place.idle and self._places.get(target) is place:
            del self._places[target]

    def _close_later(self, connection: SmtpConnection) -> None:
        """QUIT takes a round trip that nobody waits for."""
        if not connection.alive:
            connection.abort()
            return
        task = asyncio.get_running_loop().create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes what is unused; what is in use is closed when it comes back."""
        self._closed = True
        for place in self._places.values():
            for idle in place.idle:
                idle.timer.cancel()
                self._close_later(idle.connection)
            place.idle.clear()
        if self._closing:
            await asyncio.wait(self._closing)
