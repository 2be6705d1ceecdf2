"""asyncpg for code in threads: each connection has an event loop of its own.

The same connection is a DBAPI connection for SQLAlchemy, as much of one as Core statements and
Alembic's migrations need.
"""

import asyncio
import contextlib
import hashlib
import re
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.base import PGExecutionContext

from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.sql import BulkInsert, Statement

T = TypeVar("T")

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
"""Opens a connection in the running event loop."""

ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # no server is a primary, with target_session_attrs
    OSError,
    TimeoutError,
    sa.exc.DBAPIError,
)
"""What a database that is away, or refuses something, makes of a statement."""

_LOCK_USERS = "SELECT id FROM users WHERE id = ANY($1::BIGINT[]) ORDER BY id FOR NO KEY UPDATE"
_LOCK_NAMES = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::BIGINT[]) AS key"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_COUNTED = re.compile(r"(?:SELECT|UPDATE|DELETE|INSERT \d+) (\d+)")
_OBJECTS = 0x6E65746D61696C + 1
"""An advisory lock: shared by those who copy bodies, for removing them."""
_CLOSING = 5.0
"""Seconds."""
_GIVING_UP = 2.0
"""Seconds for telling a database that says nothing that nobody waits any more."""


class Driver:
    """A connection for one thread at a time.

    Raises (all methods): those of ERRORS.
    """

    def __init__(self, connect: Connect) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self.connection = self._loop.run_until_complete(_opened(connect))
        except BaseException:
            self._loop.close()
            raise
        self.objects: BodyObjects | None = None
        """Where large bodies are."""
        self._writing = False
        self._locked: set[int] = set()

    @property
    def lost(self) -> bool:
        """The connection has ended."""
        return bool(self.connection.is_closed())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs WORK in the connection's event loop.

        A connection on which something was not answered in time is of no use any more.
        """
        try:
            return self._loop.run_until_complete(work)
        except TimeoutError:
            self._end(_GIVING_UP)
            raise

    def abandon(self) -> None:
        """Ends the connection, whatever is under way; from any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self.connection.terminate)

    def _end(self, patience: float) -> None:
        try:
            self._loop.run_until_complete(self.connection.close(timeout=patience))
        except ERRORS:
            self.connection.terminate()

    # -- transactions --------------------------------------------------------------------------

    def begin(self, *, writing: bool) -> None:
        """Begins a transaction: one that writes, or one that sees the database at one moment."""
        if self.connection.is_in_transaction():  # its end failed: nothing may be added to it
            self.connection.terminate()
            raise ConnectionResetError
        self._writing = writing
        self._locked.clear()
        self.wait(self.connection.execute(_BEGIN if writing else _BEGIN_READING))

    def commit(self) -> None:
        """Commits if there is a transaction."""
        if self.connection.is_in_transaction():
            self.wait(self.connection.execute("COMMIT"))

    def rollback(self) -> None:
        """Undoes it if there is a transaction."""
        if not self.lost and self.connection.is_in_transaction():
            self.wait(self.connection.execute("ROLLBACK"))

    def close(self) -> None:
        """Ends the connection."""
        if not self._loop.is_closed():
            self._end(_CLOSING)
            self._loop.close()

    # -- statements ----------------------------------------------------------------------------

    def fetch(self, statement: Statement, parameters: dict[str, object]) -> list[Any]:
        """All rows."""
        text = statement.postgresql_locking if self._writing else statement.postgresql
        return self.wait(self.connection.fetch(text.sql, *text.values(parameters)))

    def run(self, statement: Statement, parameters: dict[str, object]) -> int:
        """The number of rows that it changed."""
        text = statement.postgresql
        status = self.wait(self.connection.execute(text.sql, *text.values(parameters)))
        return _rows_of(status)

    def run_each(self, statement: Statement, parameters: Iterable[dict[str, object]]) -> None:
        """For each set of parameters; one round trip."""
        text = statement.postgresql
        rows = [text.values(each) for each in parameters]
        if rows:
            self.wait(self.connection.executemany(text.sql, rows))

    def insert(self, statement: BulkInsert, rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows, as columns."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        self.wait(self.connection.execute(statement.postgresql, *columns))

    def execute(self, sql: str, *values: object) -> list[Any]:
        """A statement in PostgreSQL's words; gives its rows."""
        return self.wait(self.connection.fetch(sql, *values))

    def lock_users(self, user_ids: Iterable[int]) -> None:
        """See `netmail_nmap.adapters.sql.lock_users`."""
        if self._writing:
            wanted = sorted(set(user_ids) - self._locked)
            if wanted:
                self.execute(_LOCK_USERS, wanted)
                self._locked.update(wanted)

    def lock_names(self, names: Iterable[str]) -> None:
        """See `netmail_nmap.adapters.sql.lock_names`."""
        keys = sorted({_key(name) for name in names})
        if keys:
            self.execute(_LOCK_NAMES, keys)

    def may_remove_objects(self) -> bool:
        """Until the transaction ends nobody copies them; False: somebody does."""
        ((granted,),) = self.execute("SELECT pg_try_advisory_xact_lock($1)", _OBJECTS)
        return bool(granted)

    def keep_objects(self) -> None:
        """Until the transaction ends no object is removed that it sees a row of."""
        self.execute("SELECT pg_advisory_xact_lock_shared($1)", _OBJECTS)

    # -- DBAPI ---------------------------------------------------------------------------------

    def cursor(self) -> "_Cursor":
        """For SQLAlchemy."""
        return _Cursor(self)


async def _opened(connect: Connect) -> "asyncpg.Connection[asyncpg.Record]":
    return await connect()


def _key(name: str) -> int:
    """A number for an advisory lock."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _rows_of(status: str) -> int:
    match = _COUNTED.fullmatch(status)
    return int(match[1]) if match else -1


class _Cursor:
    """A DBAPI cursor."""

    arraysize = 1

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._rows: list[Any] = []
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Runs a statement; the rows wait to be fetched."""
        self._rows = self._driver.wait(self._run(sql, parameters))

    async def _run(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        connection = self._driver.connection
        if connection.is_in_transaction():
            return await self._run_within(sql, parameters)
        async with connection.transaction():  # behind pgbouncer it has to stay on one server
            return await self._run_within(sql, parameters)

    async def _run_within(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        # Without a name: another process may use the same one, on the same server connection.
        prepared = await self._driver.connection.prepare(sql, name="")
        columns = prepared.get_attributes()
        self.description = [
            (column.name, column.type.oid, None, None, None, None, None) for column in columns
        ] or None
        rows = await prepared.fetch(*parameters)
        self.rowcount = _rows_of(prepared.get_statusmsg())
        return [tuple(row) for row in rows]

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs a statement for each row of parameters."""
        self._driver.wait(self._driver.connection.executemany(sql, rows))

    def fetchone(self) -> Any | None:
        """The next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        size = size or self.arraysize
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    def setinputsizes(self, *_sizes: object) -> None:
        """Asked for by the DBAPI; types are in the statements."""

    def close(self) -> None:
        """Nothing is kept."""
        self._rows = []


class _Dbapi:
    """What SQLAlchemy wants of a DBAPI module."""

    paramstyle: ClassVar[str] = "numeric_dollar"
    Binary = bytes
    Error: ClassVar[type[Exception]] = asyncpg.PostgresError
    DatabaseError: ClassVar[type[Exception]] = asyncpg.PostgresError
    IntegrityError: ClassVar[type[Exception]] = asyncpg.IntegrityConstraintViolationError


class Dialect(PGDialect_asyncpg):
    """SQLAlchemy's dialect for asyncpg, without its greenlets."""

    driver = "netmail"
    is_async = False
    supports_statement_cache = True
    has_terminate = False
    execution_ctx_cls = PGExecutionContext  # type: ignore[assignment]

    @classmethod
    def import_dbapi(cls) -> Any:
        """The module."""
        return _Dbapi

    def on_connect(self) -> None:
        """Values come as asyncpg gives them."""
        return

    def get_driver_connection(self, connection: Any) -> Any:
        """For compiled statements."""
        return connection

    def is_disconnect(self, _error: object, _connection: object, _cursor: object) -> bool:
        """Who has the connection asks `Driver.lost`, and opens another.

        SQLAlchemy would not give it up: its connection waits for the end of a transaction that it
        believes to have begun, and refuses everything until then.
        """
        return False

    def retrieve_dbapi_version(self, _dbapi: object) -> Any:
        """Of no interest."""
        return ()


registry.register("postgresql.netmail", __name__, "Dialect")


class Connections:
    """Opens connections, and knows those that are open.

    Args:
        connect: opens one.
        objects: where large bodies are.
    """

    def __init__(self, connect: Connect, objects: BodyObjects | None = None) -> None:
        self._connect = connect
        self._objects = objects
        self._open: weakref.WeakSet[Driver] = weakref.WeakSet()
        self._lock = threading.Lock()

    def open(self) -> Driver:
        """A new one. Raises: ERRORS."""
        driver = Driver(self._connect)
        driver.objects = self._objects
        with self._lock:
            self._open.add(driver)
        return driver

    def abandon(self) -> None:
        """Ends all: they lead to a server that is not the database any more."""
        with self._lock:
            drivers = list(self._open)
        for driver in drivers:
            driver.abandon()


def make_engine(connect: Connect) -> sa.Engine:
    """An engine whose connections leave transactions to us."""
    return engine_of(Connections(connect))


def engine_of(connections: Connections) -> sa.Engine:
    """The same with connections that somebody else knows too."""
    return sa.create_engine(
        "postgresql+netmail://", creator=connections.open, poolclass=sa.NullPool
    )
