"""The storage engines that the contract is tried on."""

import asyncio
import contextlib
import functools
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql import open_postgresql
from netmail_nmap.adapters.schema import users
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.domain.outcomes import QueueSettings
from netmail_nmap.domain.retry import RetrySchedule
from netmail_nmap.domain.store import MailStore, QueueStore

from tests.nmap.databases import database, objects_config

SCHEDULE = RetrySchedule(
    first_retry=300, max_retry=3600, jitter=0, lifetime=432_000, delay_warning=14_400
)


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Opened:
    """An open store, and the one thing that the contract does not cover: making a user."""

    mail: MailStore
    queue: QueueStore
    make_user: Callable[[str, int], Awaitable[int]]


Engine = Callable[[Path, Clock], AbstractAsyncContextManager[Opened]]


@functools.cache
def _template() -> bytes:
    """An empty migrated database: made once, since the migration takes longer than most tests."""

    async def make(url: str) -> None:
        async with open_store(url):
            pass

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        thread = threading.Thread(target=asyncio.run, args=(make(f"sqlite:///{path}"),))
        thread.start()
        thread.join()
        return path.read_bytes()


def _opened(store: Store) -> Opened:
    async def make_user(name: str, quota: int) -> int:
        def insert(transaction: Transaction) -> int:
            insert = sa.insert(users).values(
                context="users.demo",
                name=name,
                name_key=name,
                quota_bytes=quota,
                created_at=0,
            )
            return int(transaction.connection.scalar(insert.returning(users.c.id)) or 0)

        return await store.core.writer.run(insert)

    return Opened(store.mail, store.queue, make_user)


@contextlib.asynccontextmanager
async def sqlite(folder: Path, clock: Clock) -> AsyncIterator[Opened]:
    path = folder / "store.db"
    if not path.exists():
        path.write_bytes(_template())
    settings = QueueSettings(SCHEDULE, "mail1.example.org", lambda: 0.5)
    async with open_store(f"sqlite:///{path}", settings=settings, readers=2, clock=clock) as store:
        yield _opened(store)


@contextlib.asynccontextmanager
async def on_postgresql(_: Path, clock: Clock) -> AsyncIterator[Opened]:
    settings = QueueSettings(SCHEDULE, "mail1.example.org", lambda: 0.5)
    async with (
        database() as place,
        open_postgresql(place, settings=settings, readers=2, writers=2, clock=clock) as store,
    ):
        yield _opened(store)


@contextlib.asynccontextmanager
async def with_objects(_: Path, clock: Clock) -> AsyncIterator[Opened]:
    """On PostgreSQL; nearly every body is in the object store."""
    settings = QueueSettings(SCHEDULE, "mail1.example.org", lambda: 0.5)
    objects = BodyObjects(await asyncio.to_thread(objects_config), min_size=48)
    async with (
        database() as place,
        open_postgresql(
            place, settings=settings, readers=2, writers=2, objects=objects, clock=clock
        ) as store,
    ):
        yield _opened(store)


ENGINES: dict[str, Engine] = {
    "sqlite": sqlite,
    "postgresql": on_postgresql,
    "postgresql and objects": with_objects,
}
