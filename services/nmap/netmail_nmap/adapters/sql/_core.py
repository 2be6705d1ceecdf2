"""What the parts of the store share: writer, readers, clock, ids, who hears of changes."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.schema import bodies, queue_items, queue_messages, store_meta
from netmail_nmap.adapters.sql._bodies import CHUNK
from netmail_nmap.adapters.sql._readers import Readers
from netmail_nmap.adapters.sql._statements import Driver, Statement
from netmail_nmap.adapters.sql._writer import WriteQueue
from netmail_nmap.domain.delivery import MAX_INLINE_BODY

_LAST_ID = Statement(
    sa.select(sa.column("seq"))
    .select_from(sa.table("sqlite_sequence"))
    .where(sa.column("name") == sa.bindparam("table"))
)
_META = Statement(sa.select(store_meta.c.value).where(store_meta.c.key == sa.bindparam("key")))

NextId = Callable[[Driver], int]
"""Gives the next id, within a write transaction."""


@dataclass(frozen=True, slots=True)
class StoreIds:
    """Ids that are never given twice.

    Ids are chosen before the insert, so that rows and what refers to them go in with one statement
    for each table. SQLite's AUTOINCREMENT remembers the highest one that was ever committed;
    PostgreSQL's sequences give blocks of them to each process.
    """

    store_id: str
    """Random, of this store."""
    next_body: NextId
    next_queue_message: NextId
    next_queue_item: NextId

    @classmethod
    def load(cls, driver: Driver) -> "StoreIds":
        """Reads where the last run ended, of a database that no other process has."""

        def following(table: sa.Table) -> NextId:
            last = _LAST_ID.first(driver, table=table.name)
            ids = itertools.count(last[0] + 1 if last else 1)
            return lambda _: next(ids)

        return cls(
            read_store_id(driver),
            following(bodies),
            following(queue_messages),
            following(queue_items),
        )

    def message_object_id(self, body_id: int) -> str:
        """EMAILID (RFC 8474 5.1): copies of a message share it."""
        return f"M{self.store_id}{body_id:x}"

    def mailbox_object_id(self, mailbox_id: int) -> str:
        """MAILBOXID (RFC 8474 4.1)."""
        return f"F{self.store_id}{mailbox_id:x}"


def read_store_id(driver: Driver) -> str:
    """Random, of the database."""
    (store_id,) = _META.first(driver, key="store_id") or ("",)
    return str(store_id)


class DirectoryVersion:
    """Tells whether users may have changed since something was read of them.

    This one is for a database that no other process has.
    """

    def __init__(self) -> None:
        self._changes = 0

    @property
    def value(self) -> int | None:
        """Grows with each change; None: somebody may have changed them unseen."""
        return self._changes

    def changed(self) -> None:
        """Users were, or may have been, changed by this process."""
        self._changes += 1


@dataclass(frozen=True, slots=True)
class Core:
    """The store's working parts."""

    writer: WriteQueue
    readers: Readers
    ids: StoreIds
    clock: Callable[[], float]
    """Seconds since the epoch."""
    directory_version: DirectoryVersion = field(default_factory=DirectoryVersion)
    poll: float | None = None
    """Seconds between looks at what other processes may have put into the queue; None: nobody."""
    objects: BodyObjects | None = None
    """Where large bodies are; None: in the database."""

    @property
    def inline(self) -> int:
        """A body of at most so many octets waits in memory for its message."""
        return MAX_INLINE_BODY if self.objects is None else self.objects.min_size

    @property
    def whole(self) -> int:
        """A message of at most so many octets is whole in its header and first chunk."""
        return CHUNK if self.objects is None else min(CHUNK, self.objects.min_size)

    @property
    def alone(self) -> bool:
        """No other process has the database."""
        return self.poll is None

    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self.clock())

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.clock() * 1000)
