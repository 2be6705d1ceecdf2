"""The one writer: what several callers ask for at the same time shares one durable commit."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import sqlalchemy as sa
from netmail_common.logging import get_logger
from netmail_common.metrics import counter, duration, timed

from netmail_nmap.adapters.sql._events import Event
from netmail_nmap.adapters.sql._statements import Driver
from netmail_nmap.domain.errors import InsufficientStorage, NmapError, StoreUnavailable

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_MAX_JOBS = 1_024
"""Of one commit."""

_log = get_logger(__name__)
COMMITS = duration("nmap_store_commit", "Durable commits of the store")
_jobs = counter("nmap_store_writes", "Write requests that the store took", ("outcome",))
_DONE, _FAILED = _jobs.labels("done"), _jobs.labels("failed")


class Transaction:
    """The open write transaction, for the writer's thread only.

    Attributes:
        connection: for Core statements.
        driver: for compiled ones (`Statement`, `BulkInsert`).
        events: what is told when it is committed.
    """

    __slots__ = ("connection", "driver", "events")

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.driver: Driver = connection.connection.driver_connection
        self.events: list[Event] = []


Handler = Callable[[Transaction, Sequence[Any]], Sequence[Any]]


@dataclass(slots=True)
class Job:
    """What a caller waits for."""

    handler: Handler
    item: Any
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Group:
    handler: Handler
    jobs: list[Job] = field(default_factory=list)


def run_one(transaction: Transaction, operations: Sequence[Any]) -> Sequence[Any]:
    """The handler of operations that are not gathered."""
    (operation,) = operations
    return [operation(transaction)]


def answer(jobs: Sequence[Job]) -> None:
    """Tells the callers what became of their jobs; for the event loop."""
    for job in jobs:
        if job.future.done():  # the caller was cancelled
            continue
        if job.error is None:
            _DONE.inc()
            job.future.set_result(job.result)
        else:
            _FAILED.inc()
            job.future.set_exception(job.error)


class WriteQueue(Protocol):
    """Takes write operations; each engine has its own."""

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Runs OPERATION in a transaction; gives its result after the durable commit.

        Raises: what OPERATION raises (then nothing was changed); StoreUnavailable.
        """

    async def run_gathered(
        self, handler: Callable[[Transaction, Sequence[I]], Sequence[R | NmapError]], item: I
    ) -> R:
        """Like `run`, but all items that wait for the same handler are given to it together.

        HANDLER gives a result or an error for each item. When it raises, the items are tried one
        by one.
        """

    async def close(self) -> None:
        """Does what was asked for so far, then stops."""


class Writer:
    """Runs write operations in one thread, all that wait in one transaction.

    Each runs under a savepoint of its own, so that one that fails changes nothing and spoils
    nothing. Nobody is answered before the commit. Belongs to the event loop that made it.

    Args:
        engine: gives the connection.
        publish: called in the event loop after each commit with its events, before the answers.
    """

    def __init__(self, engine: sa.Engine, publish: Callable[[Sequence[Event]], None]) -> None:
        self._connection = engine.connect()
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Runs OPERATION in a transaction; gives its result after the durable commit.

        Raises: what OPERATION raises (then nothing was changed); StoreUnavailable.
        """
        return cast("T", await self._put(run_one, operation))

    async def run_gathered(
        self, handler: Callable[[Transaction, Sequence[I]], Sequence[R | NmapError]], item: I
    ) -> R:
        """Like `run`, but all items that wait for the same handler are given to it together.

        HANDLER gives a result or an error for each item. When it raises, the items are tried one
        by one.
        """
        return cast("R", await self._put(handler, item))

    async def close(self) -> None:
        """Does what was asked for so far, then stops."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, handler: Callable[..., Sequence[Any]], item: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put(Job(handler, item, future))
        return future

    # -- the writer's thread -------------------------------------------------------------------

    def _work(self) -> None:
        transaction = Transaction(self._connection)
        while (job := self._waiting.get()) is not None:
            jobs = [job]
            last = False
            while len(jobs) < _MAX_JOBS:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                jobs.append(following)
            self._commit(transaction, jobs)
            if last:
                break
        self._connection.close()

    def _commit(self, transaction: Transaction, jobs: list[Job]) -> None:
        driver = transaction.driver
        transaction.events = []
        try:
            driver.execute("BEGIN IMMEDIATE")
            for group in _grouped(jobs):
                self._run_group(transaction, group.handler, group.jobs)
            with timed(COMMITS):
                driver.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            if driver.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    driver.execute("ROLLBACK")
            _log.error("a commit of the store failed", error=_words(error))
            for job in jobs:
                job.result, job.error = None, _translated(error)
            transaction.events = []
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, jobs, transaction.events)

    def _run_group(self, transaction: Transaction, handler: Handler, jobs: list[Job]) -> None:
        driver = transaction.driver
        events = len(transaction.events)
        driver.execute("SAVEPOINT job")
        try:
            for job, result in zip(
                jobs, handler(transaction, [job.item for job in jobs]), strict=True
            ):
                if isinstance(result, NmapError):
                    job.error = result
                else:
                    job.result = result
        except Exception as error:
            if not driver.in_transaction:
                raise  # the engine gave up the whole transaction (disk full): nothing is kept
            driver.execute("ROLLBACK TO job")
            del transaction.events[events:]
            if len(jobs) > 1:
                for job in jobs:
                    self._run_group(transaction, handler, [job])
            else:
                if not isinstance(error, NmapError):
                    _log.error("a write of the store failed", error=_words(error))
                jobs[0].error = _translated(error)
        driver.execute("RELEASE job")

    # -- the event loop ------------------------------------------------------------------------

    def _answer(self, jobs: list[Job], events: Sequence[Event]) -> None:
        if events:
            self._publish(events)
        answer(jobs)


def _grouped(jobs: Sequence[Job]) -> list[_Group]:
    """Jobs with the same handler together: nobody waits for another, any order will do."""
    groups: list[_Group] = []
    gathered: dict[Handler, _Group] = {}
    for job in jobs:
        if job.handler is run_one:
            groups.append(_Group(job.handler, [job]))
            continue
        group = gathered.get(job.handler)
        if group is None:
            group = gathered[job.handler] = _Group(job.handler)
            groups.append(group)
        group.jobs.append(job)
    return groups


def _translated(error: Exception) -> NmapError:
    """The error for the callers: each gets its own instance's words, never the engine's."""
    if isinstance(error, NmapError):
        return error
    if isinstance(error, sa.exc.DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return InsufficientStorage()
    return StoreUnavailable()


def _words(error: Exception) -> str:
    """For the log: what failed, without the values of statements."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{type(error).__name__} {name}".strip()
