"""SQLAlchemy Core statements, compiled once for the driver."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Driver = Any
"""sqlite3.Connection; typed loosely because its stubs do not know about bytes and ints in rows."""

_NAMED = sqlite.dialect(paramstyle="named")
_QMARK = sqlite.dialect(paramstyle="qmark")
_BLOCKS = (64, 16, 4, 1)
"""Rows of one INSERT: few different statements, so that each stays prepared."""


class Statement:
    """A statement with named parameters, run by the driver without SQLAlchemy's overhead."""

    __slots__ = ("sql",)

    def __init__(self, statement: sa.sql.ClauseElement) -> None:
        self.sql = _with_constants(statement.compile(dialect=_NAMED))

    def run(self, driver: Driver, **parameters: object) -> int:
        """Runs it; gives the number of rows that it changed."""
        cursor = driver.execute(self.sql, parameters)
        return int(cursor.rowcount)

    def run_many(self, driver: Driver, parameters: Iterable[dict[str, object]]) -> None:
        """Runs it for each set of parameters."""
        driver.executemany(self.sql, parameters)

    def all(self, driver: Driver, **parameters: object) -> list[Any]:
        """Gives all rows."""
        return driver.execute(self.sql, parameters).fetchall()  # type: ignore[no-any-return]

    def first(self, driver: Driver, **parameters: object) -> Any | None:
        """Gives the first row, None if there is none."""
        return driver.execute(self.sql, parameters).fetchone()

    def rows(self, driver: Driver, **parameters: object) -> Iterator[Any]:
        """Gives the rows one by one."""
        return driver.execute(self.sql, parameters)  # type: ignore[no-any-return]


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

    __slots__ = ("_sql", "_width")

    def __init__(
        self, table: sa.Table, *columns: str, prefix: str | None = None, suffix: str = ""
    ) -> None:
        insert = sa.insert(table)
        if prefix is not None:
            insert = insert.prefix_with(prefix)
        compiled = insert.values({name: sa.bindparam(name) for name in columns}).compile(
            dialect=_QMARK
        )
        if tuple(compiled.positiontup or ()) != columns:
            raise ValueError(f"columns of {table.name} must be named in the table's order")
        head, row = str(compiled).split(" VALUES ")
        self._width = len(columns)
        self._sql = {size: f"{head} VALUES {', '.join([row] * size)}{suffix}" for size in _BLOCKS}

    def run(self, driver: Driver, rows: Sequence[Sequence[object]]) -> None:
        """Inserts the rows, each with the columns in order."""
        start, left = 0, len(rows)
        for size in _BLOCKS:
            while left >= size:
                block = rows[start : start + size]
                driver.execute(self._sql[size], [value for row in block for value in row])
                start += size
                left -= size


def ids_of(name: str) -> sa.Select[Any]:
    """A subquery for IN: the numbers (or texts) of parameter NAME, made by `id_list`."""
    values = sa.func.json_each(sa.bindparam(name)).table_valued("value")
    return sa.select(values.c.value)


def id_list(ids: Iterable[int] | Iterable[str]) -> str:
    """The parameter for `ids_of`."""
    return json.dumps(list(ids))
