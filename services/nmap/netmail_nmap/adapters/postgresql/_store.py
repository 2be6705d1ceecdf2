"""Opening and closing the store on PostgreSQL."""

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql._bulletin import Bulletin
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import Connections, Driver, engine_of
from netmail_nmap.adapters.postgresql._locks import SharedLocks
from netmail_nmap.adapters.postgresql._migrate import prepare
from netmail_nmap.adapters.postgresql._readers import LastingSnapshot
from netmail_nmap.adapters.postgresql._writer import Writers
from netmail_nmap.adapters.sql import Event, Readers, Snapshot, Store
from netmail_nmap.adapters.sql._core import Core, NextId, StoreIds, read_store_id
from netmail_nmap.adapters.sql._gauges import Gauges
from netmail_nmap.adapters.sql._mail import SqlMailStore
from netmail_nmap.adapters.sql._queue import SqlQueueStore
from netmail_nmap.adapters.sql._subscribers import Subscribers
from netmail_nmap.adapters.sql._sweeper import Sweeper
from netmail_nmap.domain.outcomes import QueueSettings

_HAS_OBJECTS = "SELECT 1 FROM store_meta WHERE key = 'objects'"
_REMEMBER_OBJECTS = (
    "INSERT INTO store_meta (key, value) VALUES ('objects', '1') ON CONFLICT DO NOTHING"
)
_POLL = 1.0
"""Seconds between looks at the queue, in case a notice of another agent is lost."""


@contextlib.asynccontextmanager
async def open_postgresql(
    place: Place,
    *,
    settings: QueueSettings | None = None,
    readers: int = 4,
    writers: int = 4,
    listen: Place | None = None,
    objects: BodyObjects | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Store]:
    """Opens the database, migrated first if need be; closes it when the block ends.

    Other agents may have it open too.

    Args:
        place: of the database, which exists.
        settings: of the queue.
        readers: connections that read.
        writers: connections that write.
        listen: the database itself, when PLACE is pgbouncer.
        objects: where large bodies are.
        clock: seconds since the epoch.

    Raises: StoreUnavailable when it cannot be opened or migrated; ValueError when bodies are in an
        object store, and it is not said in which.
    """
    await asyncio.to_thread(prepare, place)
    connections = Connections(place.connect, objects)
    engine = engine_of(connections)
    own = secrets.token_hex(8)
    subscribers = Subscribers()
    bulletin = Bulletin(
        listen or place,
        own,
        subscribers.publish,
        subscribers.mailboxes.watched,
        connections.abandon,
        clock,
    )

    def publish_everywhere(events: Sequence[Event]) -> None:
        subscribers.publish(events)
        bulletin.tell(events)

    async with contextlib.AsyncExitStack() as parts:
        pool = Readers([LastingSnapshot(engine) for _ in range(readers)])
        parts.push_async_callback(pool.close)
        writer = Writers(engine, writers, bulletin.announce, publish_everywhere)
        parts.push_async_callback(writer.close)
        store_id = await pool.run(lambda snapshot: read_store_id(snapshot.driver))
        await _bind(objects, store_id, writer)
        core = Core(writer, pool, _ids(store_id), clock, bulletin, _POLL, objects)
        locks = SharedLocks(writer, own)
        for part in (
            locks.renewing(),
            bulletin.running(),
            Sweeper(core).running(),
            Gauges(core, _size).running(),
        ):
            await parts.enter_async_context(part)
        queue = SqlQueueStore(core, settings or QueueSettings())
        subscribers.wake_queue = queue.wake
        mail = SqlMailStore(core, subscribers.mailboxes, locks)
        yield Store(core, mail, queue, subscribers.ended_users)


async def _bind(objects: BodyObjects | None, store_id: str, writer: Writers) -> None:
    """Remembers that there are objects. Raises: StoreUnavailable; ValueError."""
    if objects is None:
        if await writer.run(lambda transaction: transaction.driver.execute(_HAS_OBJECTS)):
            raise ValueError("nmap.store.objects is missing: bodies are in an object store")
        return
    objects.bind(store_id)
    await asyncio.to_thread(objects.check)
    await writer.run(lambda transaction: transaction.driver.execute(_REMEMBER_OBJECTS))


def _ids(store_id: str) -> StoreIds:
    return StoreIds(
        store_id,
        _blocks("bodies_id_seq", 1024),
        _blocks("queue_messages_id_seq", 256),
        _blocks("queue_items_id_seq", 256),
    )


def _blocks(sequence: str, size: int) -> NextId:
    """Ids of a sequence that is increased by SIZE each time (migration 0003)."""
    ids = iter(range(0))
    lock = threading.Lock()

    def following(driver: Driver) -> int:
        nonlocal ids
        with lock:
            found = next(ids, None)
            if found is None:
                ((first,),) = driver.execute(f"SELECT nextval('{sequence}')")
                ids = iter(range(first, first + size))
                found = next(ids)
            return found

    return following


def _size(snapshot: Snapshot) -> int:
    ((size,),) = snapshot.driver.execute("SELECT pg_database_size(current_database())")
    return int(size)
