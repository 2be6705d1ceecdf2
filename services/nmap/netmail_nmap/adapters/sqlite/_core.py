"""What the parts of the store share: writer, readers, clock, ids, who hears of changes."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from netmail_nmap.adapters.schema import bodies, queue_items, queue_messages, store_meta
from netmail_nmap.adapters.sqlite._readers import Readers
from netmail_nmap.adapters.sqlite._statements import Driver, Statement
from netmail_nmap.adapters.sqlite._writer import Writer

_LAST_ID = Statement(
    sa.select(sa.column("seq"))
    .select_from(sa.table("sqlite_sequence"))
    .where(sa.column("name") == sa.bindparam("table"))
)
_META = Statement(sa.select(store_meta.c.value).where(store_meta.c.key == sa.bindparam("key")))


@dataclass(frozen=True, slots=True)
class StoreIds:
    """Ids that are never given twice.

    The iterators are for the writer's thread. Ids are chosen before the insert, so that rows and
    what refers to them go in with one statement for each table; SQLite's AUTOINCREMENT remembers
    the highest one that was ever committed.
    """

    store_id: str
    """Random, of this store."""
    bodies: Iterator[int]
    queue_messages: Iterator[int]
    queue_items: Iterator[int]

    @classmethod
    def load(cls, driver: Driver) -> "StoreIds":
        """Reads where the last run ended."""

        def following(table: sa.Table) -> Iterator[int]:
            last = _LAST_ID.first(driver, table=table.name)
            return itertools.count(last[0] + 1 if last else 1)

        (store_id,) = _META.first(driver, key="store_id") or ("",)
        return cls(store_id, following(bodies), following(queue_messages), following(queue_items))

    def message_object_id(self, body_id: int) -> str:
        """EMAILID (RFC 8474 5.1): copies of a message share it."""
        return f"M{self.store_id}{body_id:x}"

    def mailbox_object_id(self, mailbox_id: int) -> str:
        """MAILBOXID (RFC 8474 4.1)."""
        return f"F{self.store_id}{mailbox_id:x}"


@dataclass(frozen=True, slots=True)
class Core:
    """The store's working parts."""

    writer: Writer
    readers: Readers
    ids: StoreIds
    clock: Callable[[], float]
    """Seconds since the epoch."""

    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self.clock())

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.clock() * 1000)
