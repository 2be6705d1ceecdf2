"""A copy of the database as an SQLite store, as of one moment, while agents use it."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from netmail_common.logging import get_logger

from netmail_nmap import migrations
from netmail_nmap.adapters import sql
from netmail_nmap.adapters.backup import CopyInfo, MakeCopy, Running, copied_into
from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import ERRORS, Connections, Driver, engine_of
from netmail_nmap.adapters.schema import bodies, body_chunks, mailbox_locks, metadata
from netmail_nmap.adapters.sql._bodies import CHUNK, chunk_id
from netmail_nmap.adapters.sql._core import read_store_id
from netmail_nmap.domain.errors import NmapError, StoreUnavailable

_ROWS = 2000
"""That are in memory at once."""
_LARGE_ROWS = 32
_LARGE = (bodies, body_chunks)
_SIZE = "SELECT pg_database_size(current_database())"
_NUMBERED = sa.text(
    "SELECT sequencename, last_value + increment_by FROM pg_sequences"
    " WHERE schemaname = current_schema() AND last_value IS NOT NULL"
)

_log = get_logger(__name__)


def copied_tables() -> list[sa.Table]:
    """The tables of a copy, in an order in which they can be filled."""
    return [table for table in metadata.sorted_tables if table is not mailbox_locks]


def copy_of_postgresql(
    place: Place, folder: Path, name: str, *, objects: BodyObjects | None = None
) -> MakeCopy:
    """Of a store on PostgreSQL: what is committed when it begins.

    Args:
        place: of the database.
        folder: where the copy is written.
        name: of its file, while it is written.
        objects: where large bodies are; the copy has them too.
    """
    target = folder / f"{name}.copy"

    def make(running: Callable[[Running], None]) -> tuple[int, CopyInfo]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            engine = engine_of(Connections(place.connect_patiently, objects))
            with contextlib.ExitStack() as connections:
                # Its lock is there before the copy's view of the database is, and until the copy
                # has a lock of its own: nothing that is seen is removed.
                first = connections.enter_context(_transaction(engine))
                first[1].keep_objects()
                connection, driver = connections.enter_context(_transaction(engine))
                driver.keep_objects()
                first[1].rollback()
                if objects is not None:
                    objects.bind(read_store_id(driver))
                copying = _Copying(connection, driver, target)
                running(copying)
                ((size,),) = driver.execute(_SIZE)
                room = int(size) + _size_elsewhere(driver)
                return copied_into(target, lambda: room, copying.write)
        except NmapError:
            raise
        except ERRORS as error:
            _log.error("the store was not copied", error=type(error).__name__)
            raise StoreUnavailable from error

    return make


@contextlib.contextmanager
def _transaction(engine: sa.Engine) -> Iterator[tuple[sa.Connection, Driver]]:
    """A transaction of its own connection that sees the database at one moment."""
    with contextlib.closing(engine.connect()) as connection:
        driver = connection.connection.driver_connection
        if not isinstance(driver, Driver):
            raise StoreUnavailable
        driver.begin(writing=False)
        yield connection, driver


def _size_elsewhere(driver: Driver) -> int:
    """Octets of the bodies that are in the object store; the database's size has the others."""
    if driver.objects is None:
        return 0
    ((size,),) = driver.execute("SELECT coalesce(sum(size), 0) FROM bodies WHERE elsewhere")
    return int(size)


class _Copying:
    """One copy, written by a thread."""

    def __init__(self, connection: sa.Connection, driver: Driver, target: Path) -> None:
        self._connection = connection
        self._driver = driver
        self._target = target
        self._interrupted = False

    def interrupt(self) -> None:
        """The copy is to fail soon."""
        self._interrupted = True

    def write(self) -> None:
        """Fills the file. Raises: StoreUnavailable, sqlite3.Error, those of ERRORS."""
        if migrations.newer_revision(self._connection) is not None:
            raise StoreUnavailable("the database is newer than this agent: ask a newer one")
        engine = sql.make_engine(self._target)
        sql.prepare(engine, self._target)
        engine.dispose()
        with contextlib.closing(sqlite3.connect(self._target, isolation_level=None)) as copy:
            # It is read again before anybody relies on it.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            copy.execute("BEGIN")
            copy.execute("DELETE FROM store_meta")
            for table in copied_tables():
                self._copy(table, copy)
            copy.execute("DELETE FROM store_meta WHERE key = 'objects'")
            self._copy_counters(copy)
            copy.execute("COMMIT")

    def _copy(self, table: sa.Table, copy: sqlite3.Connection) -> None:
        columns = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" * len(table.columns))
        insert = f"INSERT INTO {table.name} ({columns}) VALUES ({marks})"  # noqa: S608 - our own
        for rows in self._rows(table, columns):
            if table is bodies:
                self._fetch_objects(rows, copy)
                copy.executemany(insert, ((*row[:-1], False) for row in rows))
            else:
                copy.executemany(insert, map(tuple, rows))

    def _fetch_objects(self, rows: Sequence[Any], copy: sqlite3.Connection) -> None:
        """The copy has every octet. Raises: StoreUnavailable."""
        for body_id, size, _, header, elsewhere in rows:
            wanted = size - len(header)
            if not elsewhere or wanted <= 0:  # an upload that is not finished: nobody misses it
                continue
            if self._driver.objects is None:
                raise StoreUnavailable
            data = b"".join(self._driver.objects.read(body_id, 0, wanted))
            if len(data) != wanted:
                _log.error("a body is missing in the object store", body=body_id)
                raise StoreUnavailable("a body is missing in the object store")
            copy.executemany(
                "INSERT INTO body_chunks (id, data) VALUES (?, ?)",
                (
                    (chunk_id(body_id, index), data[start : start + CHUNK])
                    for index, start in enumerate(range(0, wanted, CHUNK))
                ),
            )

    def _rows(self, table: sa.Table, columns: str) -> Iterator[list[sqlite3.Row]]:
        """By a cursor of the database: neither it nor we hold more than a few."""
        cursor = f"copy_{table.name}"
        order = ""
        if table not in _LARGE:
            order = " ORDER BY " + ", ".join(column.name for column in table.primary_key)
        self._driver.execute(
            f"DECLARE {cursor} NO SCROLL CURSOR FOR SELECT {columns} FROM {table.name}{order}"  # noqa: S608
        )
        many = _LARGE_ROWS if table in _LARGE else _ROWS
        while rows := self._driver.execute(f"FETCH {many} FROM {cursor}"):
            if self._interrupted:
                raise StoreUnavailable
            yield rows
        self._driver.execute(f"CLOSE {cursor}")

    def _copy_counters(self, copy: sqlite3.Connection) -> None:
        """No id that an agent may have taken meanwhile is ever given by the copy."""
        last = {str(name): int(value) for name, value in self._connection.execute(_NUMBERED)}
        for table in copied_tables():
            number = last.get(f"{table.name}_id_seq")
            if number is not None:
                copy.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
                copy.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table.name, number))
