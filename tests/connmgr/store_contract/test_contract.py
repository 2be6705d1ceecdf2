"""The contract of the stores: in memory, and in a real Redis."""

import functools
from collections.abc import Iterator

import pytest
from netmail_common.config import ValkeyConfig

from tests.connmgr.store_contract.contract import *  # noqa: F403 - the tests
from tests.connmgr.store_contract.stores import OpenStore, memory_store, prefixed, valkey_store
from tests.support.valkey import one_redis


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    with one_redis() as node:
        yield node.address


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.server)])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    if request.param == "memory":
        return memory_store
    address = request.getfixturevalue("redis_address")
    return functools.partial(valkey_store, prefixed(ValkeyConfig(addresses=[address])))
