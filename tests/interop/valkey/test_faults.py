"""Redis goes away, comes back, forgets, stands still, or is not allowed."""

import asyncio
import contextlib
import time

import pytest
from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import UserKey
from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.changes import MissedChanges
from netmail_connmgr.domain.store import Position, RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    HOME,
    OFFICE,
    live,
    places,
    register,
    valkey_store,
)
from tests.interop.valkey.conftest import TIMEOUT
from tests.support.valkey import Node, one_redis
from tests.support.waiting import until


async def answers(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.sync()
        await store.find([HOME])
        return True
    return False


async def knows(store: ValkeyStore, user: object, place: bytes) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return user in await live(store, place)
    return False


async def test_without_it_nothing_is_decided_and_streams_say_so(
    redis: Node, store: ValkeyStore
) -> None:
    await register(store)
    wake = asyncio.Event()
    async with store.watch(Position(), revocations_only=True, wake=wake) as feed:
        await feed.snapshot(logins=False)
        wake.clear()
        redis.kill()
        async with asyncio.timeout(20):
            await wake.wait()
        with pytest.raises(StoreUnavailable):
            await feed.take(10)
        with pytest.raises(StoreUnavailable):
            await store.find([HOME])
        with pytest.raises(StoreUnavailable):
            await store.revoke(RevokeOrder(ALICE, None, 0))
        with pytest.raises(StoreUnavailable):
            await register(store, session="t")


async def test_metrics_say_whether_it_is_there_and_what_waits(
    redis: Node, store: ValkeyStore
) -> None:
    async def shows(up: int, waiting: int) -> bool:
        return (metrics.STORE_UP._value.get(), metrics.WAITING._value.get()) == (up, waiting)

    await until(lambda: shows(1, 0))
    redis.kill()
    for place in (HOME, OFFICE):
        with pytest.raises(StoreUnavailable):
            await register(store, ALICE, place)
    await until(lambda: shows(0, 2))
    await asyncio.to_thread(redis.start)
    await until(lambda: shows(1, 0))


async def test_an_answer_is_not_waited_for_longer_than_configured(
    redis: Node, store: ValkeyStore
) -> None:
    await register(store)
    redis.suspend()
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.find([HOME])
    assert TIMEOUT * 0.9 < time.monotonic() - begun < TIMEOUT * 3
    redis.resume()
    await until(lambda: answers(store))
    assert await live(store) == {ALICE}


async def test_what_comes_while_it_is_away_is_registered_when_it_is_back(
    redis: Node, store: ValkeyStore
) -> None:
    redis.kill()
    for number, place in enumerate(places(30)):
        with pytest.raises(StoreUnavailable):
            await register(store, ALICE, place, age=100, session=str(number))
    since = time.monotonic()
    await asyncio.to_thread(redis.start)
    for place in places(30):
        await until(lambda place=place: knows(store, ALICE, place))  # type: ignore[misc]
    (found,) = await store.find([places(30)[0]])
    age = found.now - found.logins[0].verified
    # The time that it waited for counts.
    assert 100 + time.monotonic() - since - 1 < age < 130


async def test_what_came_before_a_revocation_stays_out_though_it_waited(
    config: ValkeyConfig, redis: Node, store: ValkeyStore
) -> None:
    redis.suspend()
    with pytest.raises(StoreUnavailable):
        await register(store, ALICE, HOME, epoch=None)
    async with valkey_store(config, wait=False) as other:
        redis.resume()
        await other.ready()
        await other.revoke(RevokeOrder(ALICE, None, 0))

        async def nothing_waits() -> bool:
            return await answers(store) and not any(
                len(follower.waiting) for follower in store._followers
            )

        await until(nothing_waits)
        assert await live(other) == set()


async def test_a_command_that_lay_in_the_socket_is_as_old_as_it_is(
    redis: Node, store: ValkeyStore
) -> None:
    """Redis stands still with a registration before it; time went on meanwhile."""
    await register(store, BOB, OFFICE)
    redis.suspend()
    with pytest.raises(StoreUnavailable):
        await register(store, ALICE, HOME)
    await asyncio.sleep(2)
    redis.resume()
    await until(lambda: knows(store, ALICE, HOME))
    (found,) = await store.find([HOME])
    assert found.now - found.logins[0].verified > TIMEOUT + 1.9


async def test_a_table_that_was_lost_is_another_one_but_revocations_bind_in_it(
    redis: Node, store: ValkeyStore, other: ValkeyStore
) -> None:
    await register(store)
    await store.revoke(RevokeOrder(BOB, None, 0, reason="left"))
    await store.sync()
    await other.sync()
    earlier = store.instance_id
    wake = asyncio.Event()
    async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
        await feed.snapshot(logins=True)
        await asyncio.to_thread(redis.cli, "FLUSHALL")

        async def another() -> bool:
            with contextlib.suppress(StoreUnavailable):
                await store.sync()
                await other.sync()
                return store.instance_id not in ("", earlier)
            return False

        await until(another)
        assert store.instance_id == other.instance_id
        with pytest.raises(MissedChanges):
            await feed.take(10)
    assert await live(store) == set()
    for one in (store, other):
        assert (await register(one, BOB, OFFICE, age=60)).outcome is Outcome.REVOKED
    assert (await register(other, age=60)).outcome is Outcome.REGISTERED
    async with other.watch(Position(), revocations_only=True, wake=wake) as feed:
        snapshot = await feed.snapshot(logins=False)
        assert [(one.user, one.reason) for one in snapshot.revocations] == [(BOB, "left")]


async def test_another_history_is_noticed(redis: Node, store: ValkeyStore) -> None:
    """Two primaries went on from the same point: the revisions agree, the changes do not."""
    await register(store)
    await store.sync()
    meta = redis.cli("KEYS", "*:meta")
    clock = store.clock_id
    await asyncio.to_thread(redis.cli, "HSET", meta, "tag", "of another primary:1")

    async def read_anew() -> bool:
        return await answers(store) and store.clock_id != clock

    await until(read_anew)
    assert sum(map(len, store.mirror.parts)) == 1


async def test_it_starts_before_its_server_does(redis: Node, config: ValkeyConfig) -> None:
    redis.stop()
    async with valkey_store(config, wait=False) as store:
        assert store.instance_id == ""
        with pytest.raises(StoreUnavailable):
            await store.find([HOME])
        with pytest.raises(StoreUnavailable):
            await register(store)
        await asyncio.to_thread(redis.start)
        await until(lambda: knows(store, ALICE, HOME))


async def test_what_nobody_of_us_wrote_vouches_for_nobody(redis: Node, store: ValkeyStore) -> None:
    await register(store)
    plant = "redis.call('HSET', redis.call('KEYS', '*:at:*')[1], ARGV[1], ARGV[2])"
    for field, value in (("mallory", "x" * 40), ("eve", "y" * 80)):
        await asyncio.to_thread(redis.cli, "EVAL", plant, 0, field, value)
    assert await live(store) == {ALICE}


async def test_a_primary_that_may_not_write_answers_no_questions(
    redis: Node, store: ValkeyStore
) -> None:
    """Cut off from its replicas it may have been replaced: what it knows may be over."""
    await register(store)
    await asyncio.to_thread(redis.cli, "CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
        await store.find([HOME])
    with pytest.raises(StoreUnavailable):
        await store.sync()
    await asyncio.to_thread(redis.cli, "CONFIG", "SET", "min-replicas-to-write", "0")
    await until(lambda: answers(store))


async def test_one_that_became_a_replica_answers_no_questions(
    redis: Node, store: ValkeyStore
) -> None:
    await register(store)
    await asyncio.to_thread(redis.cli, "REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        await store.find([HOME])
    await asyncio.to_thread(redis.cli, "REPLICAOF", "NO", "ONE")
    await until(lambda: answers(store))


async def test_a_full_server_refuses_registrations_and_still_decides(
    redis: Node, store: ValkeyStore
) -> None:
    await register(store)
    await asyncio.to_thread(redis.cli, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="OOM"):
        await register(store, BOB, OFFICE)
    assert await live(store) == {ALICE}
    await asyncio.to_thread(redis.cli, "CONFIG", "SET", "maxmemory", "0")
    await until(lambda: knows(store, BOB, OFFICE))


async def test_replicas_that_are_wanted_and_are_not_there_are_missed(
    redis: Node, config: ValkeyConfig
) -> None:
    wanting = config.model_copy(update={"wait_replicas": 1})
    async with valkey_store(wanting) as store:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await register(store)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await store.revoke(RevokeOrder(ALICE, None, 0))


async def test_a_revocation_waits_for_a_replica_where_there_is_one(
    redis: Node, config: ValkeyConfig, store: ValkeyStore
) -> None:
    """And where there is none it is done."""
    assert await store.revoke(RevokeOrder(ALICE, None, 0)) == 0
    options = ("--replicaof", "127.0.0.1", str(redis.port))
    with one_redis(*options) as replica:
        await asyncio.to_thread(_online, redis)
        await register(store, epoch=None)
        wanting = config.model_copy(update={"wait_replicas": 1})
        async with valkey_store(wanting) as other:
            await until(lambda: _registers(other))
        await until(lambda: _revokes(store, ALICE))
        assert await live(store) == set()
        assert "alice" in replica.cli("HKEYS", replica.cli("KEYS", "*:marks"))
        replica.suspend()
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await store.revoke(RevokeOrder(BOB, None, 0))
        replica.resume()
        await until(lambda: _revokes(store, BOB))


async def _registers(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return (await register(store, BOB, OFFICE)).outcome is Outcome.REGISTERED
    return False


async def _revokes(store: ValkeyStore, user: UserKey) -> bool:
    """As the NMAP agent does: again and again, until it is acknowledged."""
    with contextlib.suppress(StoreUnavailable):
        await store.revoke(RevokeOrder(user, None, 0))
        return True
    return False


def _online(redis: Node) -> None:
    while "state=online" not in redis.cli("INFO", "replication"):
        time.sleep(0.05)
