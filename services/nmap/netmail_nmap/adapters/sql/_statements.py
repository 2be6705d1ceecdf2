"""SQLAlchemy Core statements, compiled once for the driver of each engine."""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg as postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

Driver = Any
"""sqlite3.Connection, or `netmail_nmap.adapters.postgresql`'s Driver; typed loosely because the
stubs of sqlite3 do not know about bytes and ints in rows."""

_NAMED = sqlite.dialect(paramstyle="named")
_QMARK = sqlite.dialect(paramstyle="qmark")
_POSTGRESQL: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_BLOCKS = (64, 16, 4, 1)
"""Rows of one INSERT: few different statements, so that each stays prepared."""


class PostgresqlText(NamedTuple):
    """A statement for asyncpg."""

    sql: str
    names: tuple[str, ...]
    """Of the parameters $1, $2..."""
    constants: dict[str, object]
    """Parameters that the statement itself has (LIMIT 1)."""

    @classmethod
    def of(cls, statement: sa.sql.ClauseElement) -> "PostgresqlText":
        """Compiles it."""
        compiled = statement.compile(
            dialect=_POSTGRESQL, compile_kwargs={"render_postcompile": True}
        )
        constants = {k: v for k, v in (compiled.params or {}).items() if v is not None}
        return cls(str(compiled), tuple(getattr(compiled, "positiontup", None) or ()), constants)

    def values(self, parameters: dict[str, object]) -> list[object]:
        """The parameters in their order."""
        constants = self.constants
        return [parameters[n] if n in parameters else constants.get(n) for n in self.names]


class Statement:
    """A statement with named parameters, run by the driver without SQLAlchemy's overhead.

    Args:
        statement: for every engine, where `on_postgresql` does not differ.
        on_postgresql: another form of it.
        locks: what PostgreSQL locks in a write transaction (`with_for_update`); with SQLite the
            writer is alone.
    """

    def __init__(
        self,
        statement: sa.sql.ClauseElement,
        *,
        on_postgresql: sa.sql.ClauseElement | None = None,
        locks: dict[str, Any] | None = None,
    ) -> None:
        self.sql = _with_constants(statement.compile(dialect=_NAMED))
        self._on_postgresql = statement if on_postgresql is None else on_postgresql
        self._locks = locks

    @cached_property
    def postgresql(self) -> PostgresqlText:
        """For PostgreSQL."""
        return PostgresqlText.of(self._on_postgresql)

    @cached_property
    def postgresql_locking(self) -> PostgresqlText:
        """For PostgreSQL in a write transaction."""
        if self._locks is None or not isinstance(self._on_postgresql, sa.Select):
            return self.postgresql
        return PostgresqlText.of(self._on_postgresql.with_for_update(**self._locks))

    def run(self, driver: Driver, **parameters: object) -> int:
        """Runs it; gives the number of rows that it changed."""
        if driver.__class__ is not sqlite3.Connection:
            return int(driver.run(self, parameters))
        cursor = driver.execute(self.sql, parameters)
        return int(cursor.rowcount)

    def run_each(self, driver: Driver, parameters: Iterable[dict[str, object]]) -> None:
        """Runs it for each set of parameters; on PostgreSQL in one go."""
        if driver.__class__ is not sqlite3.Connection:
            driver.run_each(self, parameters)
            return
        for each in parameters:
            driver.execute(self.sql, each)

    def all(self, driver: Driver, **parameters: object) -> list[Any]:
        """Gives all rows."""
        if driver.__class__ is not sqlite3.Connection:
            return driver.fetch(self, parameters)  # type: ignore[no-any-return]
        return driver.execute(self.sql, parameters).fetchall()

    def first(self, driver: Driver, **parameters: object) -> Any | None:
        """Gives the first row, None if there is none."""
        if driver.__class__ is not sqlite3.Connection:
            return next(iter(driver.fetch(self, parameters)), None)
        return driver.execute(self.sql, parameters).fetchone()

    def rows(self, driver: Driver, **parameters: object) -> Iterator[Any]:
        """Gives the rows one by one."""
        if driver.__class__ is not sqlite3.Connection:
            return iter(driver.fetch(self, parameters))
        return driver.execute(self.sql, parameters)


def _with_constants(compiled: sa.engine.Compiled) -> str:
    """The SQL with the values that the statement itself has (LIMIT 1) written into it."""
    sql = str(compiled)
    for name, value in (compiled.params or {}).items():
        if value is None:
            continue  # the caller's parameter
        if not isinstance(value, int | str):
            raise TypeError(f"a constant of type {type(value).__name__}")
        literal = int(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        sql = re.sub(rf":{re.escape(name)}\b", lambda _, text=str(literal): text, sql)  # type: ignore[misc]
    return sql


class BulkInsert:
    """INSERT of many rows with as few statements as possible: each step gives up the GIL."""

    __slots__ = ("_sql", "_width", "postgresql")

    def __init__(self, table: sa.Table, *columns: str, suffix: str = "") -> None:
        compiled = (
            sa.insert(table)
            .values({name: sa.bindparam(name) for name in columns})
            .compile(dialect=_QMARK)
        )
        if tuple(compiled.positiontup or ()) != columns:
            raise ValueError(f"columns of {table.name} must be named in the table's order")
        head, row = str(compiled).split(" VALUES ")
        self._width = len(columns)
        self._sql = {size: f"{head} VALUES {', '.join([row] * size)}{suffix}" for size in _BLOCKS}
        arrays = ", ".join(
            f"${number}::{table.c[name].type.compile(_POSTGRESQL)}[]"
            for number, name in enumerate(columns, 1)
        )
        self.postgresql = f"{head} SELECT * FROM unnest({arrays}){suffix}"  # noqa: S608 - our own
        """Takes an array for each column."""

    def run(self, driver: Driver, rows: Sequence[Sequence[object]]) -> None:
        """Inserts the rows, each with the columns in order."""
        if driver.__class__ is not sqlite3.Connection:
            if rows:
                driver.insert(self, rows)
            return
        start, left = 0, len(rows)
        for size in _BLOCKS:
            while left >= size:
                block = rows[start : start + size]
                driver.execute(self._sql[size], [value for row in block for value in row])
                start += size
                left -= size


# -- locks, where the writer is not alone ------------------------------------------------------


def lock_users(driver: Driver, user_ids: Iterable[int]) -> None:
    """Keeps other writers from these users' mailboxes until the transaction ends.

    On PostgreSQL, in a write transaction. Each operation asks first, and once for all users, so
    that no two wait for each other.
    """
    if driver.__class__ is not sqlite3.Connection:
        driver.lock_users(user_ids)


def lock_names(driver: Driver, names: Iterable[str]) -> None:
    """Likewise for message ids that are being taken."""
    if driver.__class__ is not sqlite3.Connection:
        driver.lock_names(names)


# -- what each engine says in its own way ------------------------------------------------------


def ids_of(name: str) -> sa.Select[Any]:
    """A subquery for IN: the numbers of parameter NAME, made by `id_list`."""
    return sa.select(id_table(name).c.value)


def id_table(name: str) -> sa.TableValuedAlias:
    """The same as a table of one column, `value`."""
    return _json_numbers(sa.bindparam(name, type_=sa.Text)).table_valued("value")


def names_of(name: str) -> sa.Select[Any]:
    """Likewise for texts."""
    values = _json_texts(sa.bindparam(name, type_=sa.JSON)).table_valued("value")
    return sa.select(values.c.value)


def id_list(ids: Iterable[int] | Iterable[str]) -> str:
    """The parameter for `ids_of` and `names_of`."""
    return json.dumps(list(ids))


class _json_numbers(GenericFunction[Any]):  # noqa: N801 - written as SQL functions are
    inherit_cache = True


class _json_texts(GenericFunction[Any]):  # noqa: N801
    inherit_cache = True


class column_array(GenericFunction[Any]):  # noqa: N801
    """All values of a column in one JSON text."""

    inherit_cache = True


class joined_octets(GenericFunction[Any]):  # noqa: N801
    """All values of a column of octets, one behind the other."""

    inherit_cache = True


class empty_octets(GenericFunction[Any]):  # noqa: N801
    """No octets."""

    type = sa.LargeBinary()
    inherit_cache = True


class greater_of(GenericFunction[Any]):  # noqa: N801
    """The greater one of two numbers."""

    inherit_cache = True


def _of_engine(function: type[GenericFunction[Any]], sqlite: str, postgresql: str) -> None:
    for name, text in (("sqlite", sqlite), ("postgresql", postgresql)):

        def render(element: Any, compiler: Any, text: str = text, **options: Any) -> str:
            return text.format(compiler.process(element.clauses, **options))

        compiles(function, name)(render)


_of_engine(
    _json_numbers,
    "json_each({})",
    "(SELECT unnest(translate({}, '[]', '{{}}')::BIGINT[]) AS value)",
)
_of_engine(_json_texts, "json_each({})", "json_array_elements_text({})")
_of_engine(column_array, "json_group_array({})", "coalesce(json_agg({})::TEXT, '[]')")
_of_engine(joined_octets, "CAST(group_concat({}, '') AS BLOB)", "string_agg({}, ''::BYTEA)")
_of_engine(empty_octets, "x''", "''::BYTEA")
_of_engine(greater_of, "max({})", "greatest({})")
