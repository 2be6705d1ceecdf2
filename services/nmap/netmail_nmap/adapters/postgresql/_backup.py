"""A copy of the database as an SQLite store, as of one moment, while agents use it."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from netmail_common.logging import get_logger

from netmail_nmap import migrations
from netmail_nmap.adapters import sql
from netmail_nmap.adapters.backup import CopyInfo, MakeCopy, Running, copied_into
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import ERRORS, Driver, make_engine
from netmail_nmap.adapters.schema import bodies, body_chunks, mailbox_locks, metadata
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


def copy_of_postgresql(place: Place, folder: Path, name: str) -> MakeCopy:
    """Of a store on PostgreSQL: what is committed when it begins.

    Args:
        place: of the database.
        folder: where the copy is written.
        name: of its file, while it is written.
    """
    target = folder / f"{name}.copy"

    def make(running: Callable[[Running], None]) -> tuple[int, CopyInfo]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            engine = make_engine(place.connect_patiently)
            with contextlib.closing(engine.connect()) as connection:
                driver = connection.connection.driver_connection
                if driver is None:
                    raise StoreUnavailable
                copying = _Copying(connection, driver, target)
                running(copying)
                driver.begin(writing=False)
                ((size,),) = driver.execute(_SIZE)
                return copied_into(target, lambda: int(size), copying.write)
        except NmapError:
            raise
        except ERRORS as error:
            _log.error("the store was not copied", error=type(error).__name__)
            raise StoreUnavailable from error

    return make


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
            self._copy_counters(copy)
            copy.execute("COMMIT")

    def _copy(self, table: sa.Table, copy: sqlite3.Connection) -> None:
        columns = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" * len(table.columns))
        insert = f"INSERT INTO {table.name} ({columns}) VALUES ({marks})"  # noqa: S608 - our own
        for rows in self._rows(table, columns):
            copy.executemany(insert, map(tuple, rows))

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
