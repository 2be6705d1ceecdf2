"""Connections to the database file: pragmas, the lock, the migration at the start."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from netmail_nmap import migrations
from netmail_nmap.adapters.schema import store_meta
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.domain.errors import StoreUnavailable

_CHECKPOINT_PAGES = 4_000
"""16 MiB of log, then its pages are copied into the database file."""
_LOG_LIMIT = 64 * 1024 * 1024
_CACHE_KIB = 16_384


def database_path(url: str) -> Path:
    """The file behind a sqlite:/// URL.

    Raises: ValueError for another engine or a database in memory.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ValueError(f"not the URL of an SQLite file: {parsed.render_as_string()}")
    if parsed.database == ":memory:":
        raise ValueError("a mail store in memory would lose what it has acknowledged")
    return Path(parsed.database)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock beside the database: one process owns it.

    Raises: StoreUnavailable when another process has it, or there is no place for it.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{lock} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreUnavailable(f"{path} is in use by another process") from error
        yield
    finally:
        os.close(descriptor)


def make_engine(path: Path) -> sa.Engine:
    """An engine whose connections leave transactions to us and may move between threads."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 512, "timeout": 30},
    )

    @sa.event.listens_for(engine, "connect")
    def _set_pragmas(driver: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        cursor = driver.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            f"journal_size_limit={_LOG_LIMIT}",
            f"cache_size=-{_CACHE_KIB}",
            "temp_store=MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def reader(engine: sa.Engine) -> Snapshot:
    """A connection that only reads."""
    connection = engine.connect()
    connection.exec_driver_sql("PRAGMA query_only=ON")
    return Snapshot(connection)


def prepare(engine: sa.Engine, path: Path) -> None:
    """Creates the file for its owner only, brings the schema up to date, gives the store its id.

    Raises: StoreUnavailable, and nothing was changed.
    """
    try:
        _create(path)
        with engine.connect() as connection:
            _migrate(connection)
    except (OSError, sa.exc.DBAPIError) as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error.strerror
        raise StoreUnavailable(f"{path} cannot be opened or migrated: {reason}") from error


def _create(path: Path) -> None:
    """The file and its name in the folder are on the disk before anything is stored in it."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _migrate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    migrations.upgrade(connection)
    if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    if connection.scalar(sa.select(sa.func.count()).select_from(store_meta)) == 0:
        connection.execute(
            sa.insert(store_meta),
            [
                {"key": "store_id", "value": secrets.token_hex(4)},
                {"key": "uid_validity", "value": str(int(time.time()))},
            ],
        )
    connection.exec_driver_sql("COMMIT")
