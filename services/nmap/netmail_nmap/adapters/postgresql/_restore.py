"""Makes a copy of a store, of either engine, the content of a database that no agent uses."""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import sqlalchemy as sa

from netmail_nmap import migrations
from netmail_nmap.adapters.objects import PART, BodyObjects
from netmail_nmap.adapters.postgresql._backup import copied_tables
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import ERRORS, Driver, make_engine
from netmail_nmap.adapters.postgresql._migrate import check, lock
from netmail_nmap.adapters.restore import Restored, RestoreRefused, prepared_copy
from netmail_nmap.adapters.schema import body_chunks, metadata
from netmail_nmap.adapters.sql import BulkInsert
from netmail_nmap.adapters.sql._bodies import chunk_id
from netmail_nmap.domain.errors import StoreUnavailable

_ROWS = 1000
_CHUNK_ROWS = 16
_AGENTS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'netmail-nmap' AND pid != pg_backend_pid()"
)
_TABLES = sa.text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
_USED = ("users", "messages", "queue_messages")


def restore_postgresql(
    place: Place,
    folder: Path,
    source: BinaryIO,
    *,
    sha256: str,
    replace: bool,
    hold_queue: bool,
    objects: BodyObjects | None = None,
) -> Restored:
    """Reads a copy, checks it, and puts it into the database, in one transaction.

    Args:
        place: of the database, which no agent has open.
        folder: has room for the copy.
        source: a copy as BackupService gives it.
        sha256: of the copy, in hexadecimal digits.
        replace: a store that is not empty may be put aside: its tables go into a schema of their
            own.
        hold_queue: what waits in the queue is not sent until an operator releases it.
        objects: where large bodies go.

    Raises: RestoreRefused, StoreUnavailable when an agent has the store or the database is away;
    nothing was changed. OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / "postgresql.restore"
    engine = make_engine(place.connect_patiently)
    try:
        with contextlib.closing(engine.connect()) as connection:
            driver = connection.connection.driver_connection
            if driver is None:
                raise StoreUnavailable
            driver.begin(writing=True)
            old = _refuse_or_lock(connection, str(place), replace=replace)
            with prepared_copy(staged, source, sha256=sha256, hold_queue=hold_queue) as counts:
                kept = _put_aside(connection, old)
                migrations.upgrade(connection)
                _fill(connection, driver, staged, objects)
                driver.commit()
    except ERRORS as error:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
            raise
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise StoreUnavailable(f"{place}: {reason}") from error
    return Restored(*counts, kept)


def _refuse_or_lock(connection: sa.Connection, name: str, *, replace: bool) -> list[str]:
    """Gives the tables that are there; until the commit no agent starts, since it would migrate.

    Raises: RestoreRefused, StoreUnavailable.
    """
    check(connection, name)
    _refuse_agents(connection, name)
    lock(connection)
    newer = migrations.newer_revision(connection)
    if newer is not None:
        raise RestoreRefused(f"{name} is of a newer NetMail (schema {newer})")
    there = set(connection.scalars(_TABLES))
    ours = sorted(there & {*metadata.tables, "alembic_version"})
    used = any(_first(connection, table) for table in _USED if table in there)
    if used and not replace:
        raise RestoreRefused(f"{name} is not empty")
    if ours:
        quoted = ", ".join(ours)
        connection.exec_driver_sql(f"LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE NOWAIT")
    return ours


def _refuse_agents(connection: sa.Connection, name: str) -> None:
    if connection.scalar(_AGENTS):
        raise StoreUnavailable(f"{name} is in use by NMAP agents")


def _first(connection: sa.Connection, table: str) -> bool:
    return connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first() is not None  # noqa: S608


def _put_aside(connection: sa.Connection, tables: Sequence[str]) -> str | None:
    """Gives the schema that has them now; an empty store is removed instead."""
    if not tables:
        return None
    schema = f"before_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}".lower()
    used = any(_first(connection, table) for table in _USED if table in tables)
    connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    for table in tables:
        connection.exec_driver_sql(f"ALTER TABLE {table} SET SCHEMA {schema}")
    if used:
        return f"schema {schema}"
    connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    return None


def _fill(
    connection: sa.Connection, driver: Driver, staged: Path, objects: BodyObjects | None
) -> None:
    """Raises: RestoreRefused when not all arrived; StoreUnavailable."""
    with contextlib.closing(sqlite3.connect(staged)) as copy:
        if objects is not None:
            _put_objects(copy, objects)
        for table in copied_tables():
            insert = BulkInsert(table, *(column.name for column in table.columns))
            rows = 0
            for batch in _batches(copy, table):
                insert.run(driver, batch)
                rows += len(batch)
            there = connection.exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar()  # noqa: S608
            if there != rows:
                raise RestoreRefused(f"{table.name}: {there} rows of {rows} arrived")
            connection.exec_driver_sql(f"ANALYZE {table.name}")
        for name, last in copy.execute("SELECT name, seq FROM sqlite_sequence"):
            if name in metadata.tables:
                driver.execute("SELECT setval($1::TEXT::REGCLASS, $2)", f"{name}_id_seq", last)


def _put_objects(copy: sqlite3.Connection, objects: BodyObjects) -> None:
    """Brings large bodies to the object store; they leave the copy. Raises: StoreUnavailable."""
    (store_id,) = copy.execute("SELECT value FROM store_meta WHERE key = 'store_id'").fetchone()
    objects.bind(store_id)
    found = copy.execute("SELECT id FROM bodies WHERE size > ?", (objects.min_size,)).fetchall()
    for (body_id,) in found:
        own = (chunk_id(body_id, 0), chunk_id(body_id + 1, 0) - 1)
        chunks = copy.execute(
            "SELECT data FROM body_chunks WHERE id BETWEEN ? AND ? ORDER BY id", own
        )
        data = b"".join(row[0] for row in chunks)
        for index, start in enumerate(range(0, len(data), PART)):
            objects.put_now(body_id, index, data[start : start + PART])
        copy.execute("DELETE FROM body_chunks WHERE id BETWEEN ? AND ?", own)
        copy.execute("UPDATE bodies SET elsewhere = 1 WHERE id = ?", (body_id,))
    copy.execute("INSERT OR REPLACE INTO store_meta VALUES ('objects', '1')")
    copy.commit()


def _batches(copy: sqlite3.Connection, table: sa.Table) -> Iterator[list[tuple[object, ...]]]:
    columns = ", ".join(column.name for column in table.columns)
    flags = [isinstance(column.type, sa.Boolean) for column in table.columns]
    rows = iter(copy.execute(f"SELECT {columns} FROM {table.name}"))  # noqa: S608 - our own
    many = _CHUNK_ROWS if table is body_chunks else _ROWS
    while batch := list(itertools.islice(rows, many)):
        yield [
            tuple(bool(value) if flag else value for value, flag in zip(row, flags, strict=True))
            for row in batch
        ]
