"""Opening and closing the store."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._core import Core, StoreIds
from netmail_nmap.adapters.sql._engine import database_path, exclusive, make_engine, prepare, reader
from netmail_nmap.adapters.sql._gauges import Gauges
from netmail_nmap.adapters.sql._locks import MailboxLocks
from netmail_nmap.adapters.sql._mail import SqlMailStore
from netmail_nmap.adapters.sql._queue import SqlQueueStore
from netmail_nmap.adapters.sql._readers import Readers
from netmail_nmap.adapters.sql._subscribers import Subscribers
from netmail_nmap.adapters.sql._sweeper import Sweeper
from netmail_nmap.adapters.sql._writer import Writer
from netmail_nmap.domain.ended_users import EndedUsers
from netmail_nmap.domain.outcomes import QueueSettings


@dataclass(frozen=True, slots=True)
class Store:
    """An open store; what else lives in the same database uses `core`."""

    core: Core
    mail: SqlMailStore
    queue: SqlQueueStore
    ended_users: EndedUsers
    """Hears of users whose sessions must end."""


@contextlib.asynccontextmanager
async def open_store(
    url: str,
    *,
    settings: QueueSettings | None = None,
    readers: int = 4,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Store]:
    """Opens the database, made or migrated first if need be; closes it when the block ends.

    What a crash left behind (uploads that nobody finished) is swept away in the background.

    Args:
        url: sqlite:///PATH.
        settings: of the queue.
        readers: connections that read beside the writer.
        clock: seconds since the epoch.

    Raises: StoreUnavailable when another process has it, or it cannot be opened or migrated;
        ValueError for another kind of URL.
    """
    path = database_path(url)
    subscribers = Subscribers()
    with exclusive(path), contextlib.ExitStack() as engines:
        engine = make_engine(path)
        engines.callback(engine.dispose)
        prepare(engine, path)
        with engine.connect() as connection:
            ids = StoreIds.load(connection.connection.driver_connection)
        async with contextlib.AsyncExitStack() as parts:
            pool = Readers([reader(engine) for _ in range(readers)])
            parts.push_async_callback(pool.close)
            writer = Writer(engine, subscribers.publish)
            parts.push_async_callback(writer.close)
            await writer.run(lambda transaction: _bodies.all_orphans_due(transaction.driver))
            core = Core(writer, pool, ids, clock)
            sweeper = Sweeper(core)
            await parts.enter_async_context(sweeper.running())
            await parts.enter_async_context(Gauges(core, lambda _: path.stat().st_size).running())
            queue = SqlQueueStore(core, settings or QueueSettings())
            subscribers.wake_queue = queue.wake
            mail = SqlMailStore(core, subscribers.mailboxes, MailboxLocks())
            yield Store(core, mail, queue, subscribers.ended_users)
