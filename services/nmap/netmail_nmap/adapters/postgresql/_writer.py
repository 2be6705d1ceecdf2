"""Writers on several connections; what gathers meanwhile shares a transaction."""

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import asyncpg
import sqlalchemy as sa
from netmail_common.logging import get_logger
from netmail_common.metrics import timed

from netmail_nmap.adapters.postgresql._driver import ERRORS, Driver
from netmail_nmap.adapters.sql import Event, Transaction
from netmail_nmap.adapters.sql._writer import COMMITS, Handler, Job, answer, run_one
from netmail_nmap.domain.errors import InsufficientStorage, NmapError, StoreUnavailable

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_GATHERED = 32
"""Jobs of one transaction."""
_TRIES = 6
"""How often a transaction is tried that others got in the way of."""
_PATIENCE = 15.0
"""Seconds after which none is tried again: those who asked wait no longer than twice of it."""
_PAUSE = 0.02
"""Seconds between the tries, more each time."""
_IN_THE_WAY = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
)
"""Errors that a second try may not meet: others wrote at the same time."""

_READ_ONLY = asyncpg.ReadOnlySQLTransactionError

_log = get_logger(__name__)

Announce = Callable[[Driver, Sequence[Event]], None]


class Writers:
    """Implements `WriteQueue`: threads with a connection each.

    An operation that locks several users asks for them at once and in order, and operations that
    are not gathered have a transaction of their own; so they do not wait for each other in a
    circle. One thread at a time works for each gathering handler: what comes meanwhile goes
    together into the next transaction.

    Args:
        engine: gives the connections.
        count: of connections.
        announce: called in the transaction, before the commit, with its events.
        publish: called in the event loop after each commit with its events, before the answers.
    """

    def __init__(
        self,
        engine: sa.Engine,
        count: int,
        announce: Announce,
        publish: Callable[[Sequence[Event]], None],
    ) -> None:
        self._engine = engine
        self._announce = announce
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Job] = deque()
        self._gathering: set[Handler] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"store-writer-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Runs OPERATION in a transaction; gives its result after the durable commit.

        Raises: what OPERATION raises (then nothing was changed); StoreUnavailable.
        """
        return cast("T", await self._put(run_one, operation))

    async def run_gathered(
        self, handler: Callable[[Transaction, Sequence[I]], Sequence[R | NmapError]], item: I
    ) -> R:
        """Like `run`, but items that wait for the same handler are given to it together."""
        return cast("R", await self._put(handler, item))

    async def close(self) -> None:
        """Does what was asked for so far, then stops."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _put(self, handler: Callable[..., Sequence[Any]], item: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            self._waiting.append(Job(handler, item, future))
            self._changed.notify()
        return future

    # -- the threads ---------------------------------------------------------------------------

    def _work(self) -> None:
        session = _Session(self._engine)
        while jobs := self._take():
            try:
                events = self._do(session, jobs)
            finally:
                with self._changed:
                    self._gathering.discard(jobs[0].handler)
                    self._changed.notify()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._answer, jobs, events)
        session.close()

    def _take(self) -> list[Job]:
        """What to do next, together; nothing: stop."""
        with self._changed:
            while True:
                if any(job.future.done() for job in self._waiting):  # nobody waits any more
                    self._waiting = deque(job for job in self._waiting if not job.future.done())
                for job in self._waiting:
                    if job.handler not in self._gathering:
                        return self._gathered(job)
                if self._closed and not self._waiting:
                    self._changed.notify_all()
                    return []
                self._changed.wait()

    def _gathered(self, first: Job) -> list[Job]:
        if first.handler is run_one:
            self._waiting.remove(first)
            return [first]
        self._gathering.add(first.handler)
        jobs = [job for job in self._waiting if job.handler == first.handler][:_GATHERED]
        taken = set(map(id, jobs))
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return jobs

    def _do(self, session: "_Session", jobs: list[Job]) -> list[Event]:
        """Does the jobs in one transaction; one by one if that fails."""
        try:
            return self._commit(session, jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            if len(jobs) > 1 and not isinstance(error, _Unknown) and not session.lost:
                return [event for job in jobs for event in self._do(session, [job])]
            if not isinstance(error, NmapError):
                _log.error("a write of the store failed", error=_words(error))
            for job in jobs:
                job.result, job.error = None, _translated(error)
            return []

    def _commit(self, session: "_Session", jobs: list[Job]) -> list[Event]:
        end = time.monotonic() + _PATIENCE
        for number in range(1, _TRIES + 1):
            try:
                return self._try(session, jobs)
            except NmapError:
                raise
            except ERRORS as error:
                again = session.lost or isinstance(_cause(error), _IN_THE_WAY)
                last = number == _TRIES or time.monotonic() > end
                if last or not again or isinstance(error, _Unknown):
                    raise
                _log.debug("a write of the store is tried again", error=_words(error))
                time.sleep(random.uniform(0, _PAUSE * number))  # noqa: S311 - not a secret
        raise AssertionError("the last try ends the loop")

    def _try(self, session: "_Session", jobs: list[Job]) -> list[Event]:
        transaction = session.begin()
        try:
            results = jobs[0].handler(transaction, [job.item for job in jobs])
            for job, result in zip(jobs, results, strict=True):
                job.error = result if isinstance(result, NmapError) else None
                job.result = None if isinstance(result, NmapError) else result
            self._announce(transaction.driver, transaction.events)
        except BaseException as error:
            with contextlib.suppress(*ERRORS):
                transaction.driver.rollback()
            if isinstance(error, Exception) and isinstance(_cause(error), _READ_ONLY):
                session.close()  # it is a standby now: the primary is elsewhere
            raise
        try:
            with timed(COMMITS):
                transaction.driver.commit()
        except ERRORS as error:
            if isinstance(error, asyncpg.PostgresError) and not session.lost:
                raise  # the database says that it did not happen
            raise _Unknown from error
        return transaction.events

    # -- the event loop ------------------------------------------------------------------------

    def _answer(self, jobs: list[Job], events: Sequence[Event]) -> None:
        if events:
            self._publish(events)
        answer(jobs)


class _Unknown(OSError):
    """The connection was lost while the commit was under way: it may or may not have happened."""


class _Session:
    """A thread's connection, opened again when it was lost."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None
        self._driver: Driver | None = None

    @property
    def lost(self) -> bool:
        """There is no connection."""
        return self._driver is None or self._driver.lost

    def begin(self) -> Transaction:
        """Begins a transaction. Raises: ERRORS."""
        if self._connection is None or self.lost:
            self.close()
            self._connection = self._engine.connect()
            self._driver = self._connection.connection.driver_connection
        transaction = Transaction(self._connection)
        transaction.driver.begin(writing=True)
        return transaction

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with contextlib.suppress(*ERRORS):
                self._connection.close()
            self._connection = self._driver = None


def _cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, sa.exc.DBAPIError) else error


def _translated(error: Exception) -> NmapError:
    """The error for the callers: never the engine's words."""
    if isinstance(error, NmapError):
        return error
    if isinstance(_cause(error), asyncpg.DiskFullError):
        return InsufficientStorage()
    return StoreUnavailable()


def _words(error: Exception) -> str:
    """For the log: what failed, without the values of statements."""
    return type(_cause(error)).__name__
