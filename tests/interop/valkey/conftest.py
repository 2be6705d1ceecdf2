"""A Redis of each test's own, and stores on it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from netmail_common.config import ValkeyConfig
from netmail_connmgr.adapters.valkey.store import ValkeyStore

from tests.connmgr.store_contract.stores import prefixed, valkey_store
from tests.support.valkey import Node, one_redis

TIMEOUT = 1.0


@pytest.fixture
def redis() -> Iterator[Node]:
    """A server that the test may kill."""
    with one_redis() as node:
        yield node


@pytest.fixture
def config(redis: Node) -> ValkeyConfig:
    return prefixed(ValkeyConfig(addresses=[redis.address], timeout=TIMEOUT))


@pytest.fixture
async def store(config: ValkeyConfig) -> AsyncIterator[ValkeyStore]:
    async with valkey_store(config) as store:
        yield store


@pytest.fixture
async def other(config: ValkeyConfig, store: ValkeyStore) -> AsyncIterator[ValkeyStore]:
    """Another Connection Manager's store on the same table."""
    async with valkey_store(config) as other:
        yield other
