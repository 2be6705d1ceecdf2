"""The store behind the Connection Manager is killed or stands still: decisions fail closed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netmail_common.certificates import LocalAuthority

from tests.e2e.apart import MAX_STALENESS, SLOW, Apart, apart
from tests.support.valkey import Node, one_redis

BACK_WITHIN = 5.0
NOT_KNOWN = "550 5.7.1"


@pytest.fixture(scope="module")
def redis() -> Iterator[Node]:
    with one_redis() as node:
        yield node


@pytest.fixture(scope="module")
def world(
    redis: Node,
    tmp_path_factory: pytest.TempPathFactory,
    authority: LocalAuthority,
    certificates: Path,
) -> Iterator[Apart]:
    def on_redis(data: dict[str, Any]) -> None:
        data["connection_managers"][0].update(
            store="valkey", valkey={"addresses": [redis.address], "timeout": 1.0}
        )

    folder = tmp_path_factory.mktemp("store")
    with apart(folder, authority, certificates, change=on_redis, on_next_host=False) as running:
        yield running


@pytest.fixture
def alice(world: Apart) -> tuple[str, str]:
    return world.known_client()


def test_a_store_that_stands_still(world: Apart, redis: Node, alice: tuple[str, str]) -> None:
    redis.suspend()
    try:
        world.nobody_relays_too_long(alice, since=time.monotonic())
    finally:
        redis.resume()
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    world.until(*alice, "250", BACK_WITHIN)


def test_a_store_that_was_killed_and_comes_back_empty(
    world: Apart, redis: Node, alice: tuple[str, str]
) -> None:
    """Its logins are told again by the agents that saw them."""
    redis.kill()
    world.nobody_relays_too_long(alice, since=time.monotonic())
    redis.start()
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    world.until(*alice, "250", BACK_WITHIN + SLOW)


def test_a_revocation_that_the_store_has_outlives_the_connection_manager(
    world: Apart, alice: tuple[str, str]
) -> None:
    world.revoke(alice[1])
    world.until(*alice, NOT_KNOWN, MAX_STALENESS)
    world.manager.kill()
    world.manager.start()
    world.manager.wait_ready()
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    until = time.monotonic() + BACK_WITHIN
    while time.monotonic() < until:
        assert world.relay(*alice) == NOT_KNOWN
        time.sleep(0.2)
