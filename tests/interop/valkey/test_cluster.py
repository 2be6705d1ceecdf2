"""The contract of the stores on a cluster of three primaries and three replicas; its faults."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator

import pytest
from netmail_common.config import ValkeyConfig
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import LoginFilter, Position, RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.contract import *  # noqa: F403 - the tests
from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    HOME,
    OpenStore,
    holds,
    live,
    prefixed,
    register,
    valkey_store,
)
from tests.support.valkey import Node, cluster, eventually, is_primary
from tests.support.waiting import until

MANY = [bytes((10, 3, number // 250, number % 250)) for number in range(400)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    with cluster(primaries=3, replicas=1) as nodes:
        yield nodes


@pytest.fixture
def config(nodes: list[Node]) -> ValkeyConfig:
    # Some nodes are enough to find the others.
    addresses = [nodes[0].address, nodes[-1].address]
    return prefixed(ValkeyConfig(mode="cluster", addresses=addresses, timeout=5.0))


@pytest.fixture
def open_store(config: ValkeyConfig) -> OpenStore:
    return functools.partial(valkey_store, config)


async def decides(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.sync()
        await store.find(MANY[:64])
        return True
    return False


async def revokes(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.revoke(RevokeOrder(ALICE, None, 3))
        return True
    return False


async def test_the_table_is_bounded(config: ValkeyConfig) -> None:  # type: ignore[no-redef]
    """Each part of it by its share."""
    async with valkey_store(config, max_logins=160, max_networks_per_user=1000) as store:
        answers = await asyncio.gather(*(register(store, ALICE, place) for place in MANY))
        kept = [answer for answer in answers if answer.outcome is Outcome.REGISTERED]
        assert len(kept) == 160
        await until(lambda: holds(store, 160))
        assert {one.outcome for one in answers} == {Outcome.REGISTERED, Outcome.TABLE_FULL}


async def test_the_table_is_spread_over_all_primaries(
    nodes: list[Node], config: ValkeyConfig
) -> None:
    async with valkey_store(config, max_networks_per_user=1000) as store:
        await asyncio.gather(*(register(store, ALICE, place) for place in MANY))
        await until(lambda: holds(store, len(MANY)))
        pattern = f"{config.prefix}:*:at:*"
        counts = [
            len((await asyncio.to_thread(node.cli, "KEYS", pattern)).splitlines())
            for node in nodes
            if is_primary(node)
        ]
    assert len(counts) == 3
    assert min(counts) > 60, counts


async def test_a_user_s_networks_are_counted_over_all_primaries(config: ValkeyConfig) -> None:
    async with valkey_store(config, max_networks_per_user=20) as store:
        for number, place in enumerate(MANY[:60]):
            await register(store, ALICE, place, age=300 - number, session=str(number))
        page = await store.list_logins(LoginFilter(user=ALICE), 1000, "")
        assert {login.place for login in page.logins} == set(MANY[40:60])


async def test_two_connection_managers_see_the_same(config: ValkeyConfig) -> None:
    wake = asyncio.Event()
    async with valkey_store(config) as store, valkey_store(config) as other:
        assert store.instance_id == other.instance_id != ""
        async with other.watch(Position(), revocations_only=False, wake=wake) as feed:
            await feed.snapshot(logins=True)
            for place in MANY[:30]:
                await register(store, ALICE, place)
            seen = set()
            while changes := await feed.take(7):
                seen |= {other.packer.unpack(change.record).place for change in changes}
            assert seen == set(MANY[:30])
            await store.revoke(RevokeOrder(ALICE, None, 0))
            gone = set()
            while changes := await feed.take(7):
                gone |= {key[2:6] for change in changes for key in change.removed}
            assert gone == set(MANY[:30])
        snapshot_of = other.watch(Position(), revocations_only=True, wake=wake)
        async with snapshot_of as feed:
            assert len((await feed.snapshot(logins=False)).revocations) == 1


async def test_slots_that_move_are_followed(nodes: list[Node], config: ValkeyConfig) -> None:
    async with valkey_store(config, max_networks_per_user=1000) as store:
        await asyncio.gather(*(register(store, ALICE, place) for place in MANY))
        primaries = [node for node in nodes if is_primary(node)]
        source, target = (node.cli("CLUSTER", "MYID") for node in primaries[:2])
        move = functools.partial(
            primaries[0].cli,
            *("--cluster", "reshard", primaries[0].address, "--cluster-from", source),
            *("--cluster-to", target, "--cluster-slots", 3000, "--cluster-yes"),
            timeout=90,
        )
        moving = asyncio.create_task(asyncio.to_thread(move))
        rounds = 0
        while not moving.done():
            rounds += 1
            with contextlib.suppress(StoreUnavailable):
                await register(store, BOB, MANY[rounds % 400], session=str(rounds))
        await moving
        await until(lambda: decides(store))
        found = await store.find(MANY)
        assert all(ALICE in {login.user for login in one.logins} for one in found)
        assert await store.size() >= len(MANY)


async def test_a_replica_takes_over_when_a_primary_is_killed(
    nodes: list[Node], config: ValkeyConfig
) -> None:
    quick = config.model_copy(update={"timeout": 1.0})
    async with valkey_store(quick, max_networks_per_user=1000) as store:
        await asyncio.gather(*(register(store, ALICE, place, epoch=2) for place in MANY))
        await store.revoke(RevokeOrder(BOB, None, 0))
        victim = next(node for node in nodes if is_primary(node))
        lost = time.monotonic()
        victim.kill()
        with pytest.raises(StoreUnavailable):
            await store.sync()
        with pytest.raises(StoreUnavailable):
            await store.find(MANY)
        await until(lambda: decides(store), 60)
        gap = time.monotonic() - lost
        print(f"decisions back after {gap:.1f} s")
        assert gap < 15
        found = await store.find(MANY)
        missing = [one for one in found if not one.logins]
        assert missing == []
        for place in MANY[:50]:
            assert (await register(store, BOB, place, age=60)).outcome is Outcome.REVOKED
        await asyncio.to_thread(victim.start)
        eventually(lambda: not is_primary(victim), "it came back as a replica")
        # It may take the replica for one that is up, and wait in vain; who revokes tries again.
        await until(lambda: revokes(store))
        assert await live(store, HOME) == set()
        await until(lambda: holds(store, 0))
