"""Readers beside the writer: connections in threads, each call on one snapshot."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from netmail_common.logging import get_logger

from netmail_nmap.adapters.sql._statements import Driver
from netmail_nmap.domain.errors import StoreUnavailable

T = TypeVar("T")

_log = get_logger(__name__)

_TOGETHER = 8
"""Calls that one thread does in a row, on one snapshot."""
_GATHER = 0.001
"""Seconds that a call waits for others while one reader is busy; then another reader begins."""


class Snapshot:
    """A connection and a consistent view of the database, for the thread that reads it only."""

    __slots__ = ("connection", "driver")

    errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, sa.exc.DBAPIError)
    """Of the engine."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.driver: Driver = connection.connection.driver_connection

    def begin(self) -> None:
        """What is read from now on is of one moment."""
        self.driver.execute("BEGIN")

    def end(self) -> None:
        """Until here."""
        self.driver.execute("COMMIT")

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()


_Call = tuple[Callable[[Snapshot], Any], "asyncio.Future[Any]"]


class Readers:
    """A fixed number of reading connections; belongs to one event loop.

    A lone call goes to a thread at once. Calls that come while a reader is busy go together, since
    waking a thread and being woken by it costs more than most reads do.
    No connection is held longer than that, so that a client which takes its answer slowly keeps
    neither a reader nor the log from being reused.
    """

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        count = len(snapshots)
        self._all = list(snapshots)
        self._idle = list(snapshots)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Call] = deque()
        self._start: asyncio.Handle | None = None
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="store-reader")
        # One reader is always left for those who read little.
        self._heavy = asyncio.Semaphore(max(1, count - 1))

    async def run(self, operation: Callable[[Snapshot], T]) -> T:
        """Runs OPERATION on a snapshot that is taken after this call.

        Raises: what OPERATION raises; StoreUnavailable.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((operation, future))
        if self._start is None and self._idle:
            if len(self._idle) == len(self._all):
                self._start = self._loop.call_soon(self._begin)
            else:
                self._start = self._loop.call_later(_GATHER, self._begin)
        return await future

    async def run_heavy(self, operation: Callable[[Snapshot], T]) -> T:
        """Like `run`, for what takes long (a search): alone, and not with every reader."""
        async with self._heavy:
            while not self._idle:
                await self.run(lambda _: None)
            future: asyncio.Future[T] = self._loop.create_future()
            self._submit([(operation, future)])
            return await future

    async def close(self) -> None:
        """Waits for the calls under way, then closes the connections; what waits is cancelled."""
        if self._start is not None:
            self._start.cancel()
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        await asyncio.to_thread(self._threads.shutdown)
        for snapshot in self._all:
            await asyncio.to_thread(snapshot.close)

    def _begin(self) -> None:
        """Gives what waits to idle readers."""
        if self._start is not None:
            self._start.cancel()
            self._start = None
        while self._waiting and self._idle:
            calls: list[_Call] = []
            while self._waiting and len(calls) < _TOGETHER:
                call = self._waiting.popleft()
                if not call[1].done():  # its caller was cancelled
                    calls.append(call)
            if calls:
                self._submit(calls)

    def _submit(self, calls: Sequence[_Call]) -> None:
        snapshot = self._idle.pop()
        self._threads.submit(self._work, snapshot, calls)

    def _work(self, snapshot: Snapshot, calls: Sequence[_Call]) -> None:
        """In a thread of the pool."""
        outcomes = _on_snapshot(snapshot, [operation for operation, _ in calls])
        self._loop.call_soon_threadsafe(self._done, snapshot, calls, outcomes)

    def _done(
        self, snapshot: Snapshot, calls: Sequence[_Call], outcomes: Sequence[tuple[Any, Any]]
    ) -> None:
        self._idle.append(snapshot)
        for (_, future), (result, error) in zip(calls, outcomes, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if self._waiting:
            self._begin()


def _on_snapshot(
    snapshot: Snapshot, operations: Sequence[Callable[[Snapshot], Any]]
) -> list[tuple[Any, BaseException | None]]:
    """Result and error of each operation."""
    try:
        snapshot.begin()
        try:
            return [_outcome(snapshot, operation) for operation in operations]
        finally:
            snapshot.end()
    except Exception as error:  # noqa: BLE001 - the reader must come back, whatever it is
        _log.error("a read of the store failed", error=type(error).__name__)
        return [(None, StoreUnavailable())] * len(operations)


def _outcome(
    snapshot: Snapshot, operation: Callable[[Snapshot], Any]
) -> tuple[Any, BaseException | None]:
    try:
        return operation(snapshot), None
    except snapshot.errors as error:
        _log.error("a read of the store failed", error=type(error).__name__)
        failure = StoreUnavailable()
        failure.__cause__ = error
        return None, failure
    except BaseException as error:  # noqa: BLE001 - it belongs to the caller
        return None, error
