"""Two agents' stores on one database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.schema import users
from netmail_nmap.adapters.sql import Store, Transaction

from tests.nmap.databases import database


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with database() as made:
        yield made


@dataclass(frozen=True)
class Pair:
    first: Store
    second: Store

    @property
    def both(self) -> tuple[Store, Store]:
        return self.first, self.second


@pytest.fixture
async def pair(place: Place) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(open_postgresql(place, readers=2, writers=3))
            for _ in range(2)
        ]
        yield Pair(first, second)


async def eventually(true: Callable[[], bool], seconds: float = 30) -> None:
    """Polls until it is true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def make_user(store: Store, name: str) -> int:
    def insert(transaction: Transaction) -> int:
        insert = sa.insert(users).values(context="c", name=name, name_key=name, created_at=0)
        return int(transaction.connection.scalar(insert.returning(users.c.id)) or 0)

    return await store.core.writer.run(insert)


@pytest.fixture
async def alice(pair: Pair) -> int:
    return await make_user(pair.first, "alice")


@pytest.fixture
async def bob(pair: Pair) -> int:
    return await make_user(pair.first, "bob")


async def rows_of(store: Store, table: str) -> int:
    return await store.core.readers.run(
        lambda snapshot: int(snapshot.driver.execute(f"SELECT count(*) FROM {table}")[0][0])
    )
