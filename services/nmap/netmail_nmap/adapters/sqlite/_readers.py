"""Readers beside the writer: connections in threads, each call on one snapshot."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa
from netmail_common.logging import get_logger

from netmail_nmap.adapters.sqlite._statements import Driver
from netmail_nmap.domain.errors import StoreUnavailable

T = TypeVar("T")

_log = get_logger(__name__)


class Snapshot:
    """A consistent view of the database, for the thread that reads it only."""

    __slots__ = ("connection", "driver")

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.driver: Driver = connection.connection.driver_connection


class Readers:
    """A fixed number of reading connections; belongs to one event loop.

    No connection is held longer than one call, so that a client which takes its answer slowly
    keeps neither a reader nor the log from being reused.
    """

    def __init__(self, engine: sa.Engine, count: int) -> None:
        self._snapshots: asyncio.LifoQueue[Snapshot] = asyncio.LifoQueue()
        self._all = []
        for _ in range(count):
            connection = engine.connect()
            connection.exec_driver_sql("PRAGMA query_only=ON")
            self._all.append(connection)
            self._snapshots.put_nowait(Snapshot(connection))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="store-reader")
        # One reader is always left for those who read little.
        self._heavy = asyncio.Semaphore(max(1, count - 1))

    async def run(self, operation: Callable[[Snapshot], T]) -> T:
        """Runs OPERATION on a snapshot.

        Raises: what OPERATION raises; StoreUnavailable.
        """
        snapshot = await self._snapshots.get()
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, _on_snapshot, snapshot, operation
        )
        # Given back when the thread is done with it, not when the caller is cancelled.
        future.add_done_callback(lambda _: self._snapshots.put_nowait(snapshot))
        return await asyncio.shield(future)

    async def run_heavy(self, operation: Callable[[Snapshot], T]) -> T:
        """Like `run`, for what takes long (a search)."""
        async with self._heavy:
            return await self.run(operation)

    async def close(self) -> None:
        """Waits for the calls under way, then closes the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._all:
            connection.close()


def _on_snapshot(snapshot: Snapshot, operation: Callable[[Snapshot], T]) -> T:
    driver = snapshot.driver
    try:
        driver.execute("BEGIN")
        try:
            return operation(snapshot)
        finally:
            driver.execute("COMMIT")
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        _log.error("a read of the store failed", error=type(error).__name__)
        raise StoreUnavailable from error
