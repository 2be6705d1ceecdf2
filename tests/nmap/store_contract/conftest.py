"""A store of each engine, and short words for what tests do with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nmap.store_contract.engines import ENGINES, Clock, Opened
from tests.nmap.store_contract.words import Words


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.server),
        pytest.param("postgresql and objects", marks=pytest.mark.server),
    ]
)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Opened]:
    async with ENGINES[request.param](tmp_path, clock) as opened:
        yield opened


@pytest.fixture
async def alice(store: Opened) -> int:
    return await store.make_user("alice", 0)


@pytest.fixture
async def bob(store: Opened) -> int:
    return await store.make_user("bob", 0)


@pytest.fixture
def do(store: Opened) -> Words:
    return Words(store.mail, store.queue)
