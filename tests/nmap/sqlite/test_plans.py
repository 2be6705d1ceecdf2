"""No statement of the store reads a whole table."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from netmail_nmap import migrations
from netmail_nmap.adapters import sql
from netmail_nmap.adapters.sql import Statement

SMALL = {"sqlite_sequence", "orphans", "store_meta"}
"""Tables that a statement may walk through: at a start, or because they have a few rows."""
COUNTING = {"_gauges._COUNT"}
"""Statements that have to see all rows, and run now and then."""


def statements() -> Iterator[tuple[str, Statement]]:
    for found in pkgutil.iter_modules(sql.__path__):
        module = importlib.import_module(f"{sql.__name__}.{found.name}")
        for name, value in vars(module).items():
            values = value.values() if isinstance(value, dict) else value
            for each in values if isinstance(value, dict | tuple) else [value]:
                if isinstance(each, Statement):
                    yield f"{found.name}.{name}", each


@pytest.fixture(scope="module")
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as opened:
        migrations.upgrade(opened)
        yield opened
    engine.dispose()


def plan(connection: sa.Connection, statement: Statement) -> list[str]:
    # The value does not matter to the plan, but json_each wants JSON.
    parameters = dict.fromkeys(re.findall(r":(\w+)", statement.sql), "[]")
    driver = connection.connection.driver_connection
    assert driver is not None
    return [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement.sql}", parameters)]


def test_every_table_is_read_through_an_index(connection: sa.Connection) -> None:
    slow = []
    count = 0
    for name, statement in statements():
        count += 1
        for step in plan(connection, statement):
            scanned = re.match(r"SCAN (\w+)(?! VIRTUAL)", step)
            whole_table = (
                scanned
                and not scanned[1].startswith("anon_")
                and scanned[1] not in SMALL
                and "VIRTUAL" not in step
            )
            if name in COUNTING:
                continue
            if whole_table or "AUTOMATIC" in step:
                slow.append((name, step))
    assert count > 60
    assert slow == []


def test_what_changed_is_found_by_modseq(connection: sa.Connection) -> None:
    listings = importlib.import_module(f"{sql.__name__}._messages")._LISTINGS
    for (_, _, changed), statement in listings.items():
        by_modseq = any("modseq>?" in step for step in plan(connection, statement))
        assert by_modseq == changed
