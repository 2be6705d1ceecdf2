"""The shared table under Sentinels: the primary is killed, stopped, cut off; another takes over."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import UserKey
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import LoginFilter, RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    HOME,
    OFFICE,
    live,
    prefixed,
    register,
    valkey_store,
)
from tests.support.valkey import Sentinels, eventually, sentinel_set
from tests.support.waiting import until

BACK_WITHIN = 5.0
"""Seconds from the loss to decisions; the Sentinels take a half to notice."""


@pytest.fixture
def redis() -> Iterator[Sentinels]:
    with sentinel_set(replicas=2, down_after=500) as found:
        yield found


@pytest.fixture
def config(redis: Sentinels) -> ValkeyConfig:
    addresses = [node.address for node in redis.sentinels]
    return prefixed(ValkeyConfig(mode="sentinel", addresses=addresses, timeout=1.0))


@pytest.fixture
async def store(config: ValkeyConfig) -> AsyncIterator[ValkeyStore]:
    async with valkey_store(config) as store:
        yield store


async def decides(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.sync()
        await store.find([HOME])
        return True
    return False


async def finds(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.find([HOME])
        return True
    return False


class Users:
    """Logs users in without a pause, and remembers who was told that he is."""

    def __init__(self, store: ValkeyStore) -> None:
        self.store = store
        self.acknowledged: dict[UserKey, bytes] = {}
        self.ended = False

    async def keep_coming(self, lane: int) -> None:
        number = 0
        while not self.ended:
            number += 1
            user = UserKey(f"user{lane}.{number}", "users.demo")
            place = bytes((10, lane, number // 250 % 250, number % 250))
            while not self.ended:
                with contextlib.suppress(StoreUnavailable):
                    answer = await register(self.store, user, place, session=str(user))
                    assert answer.outcome is Outcome.REGISTERED
                    self.acknowledged[user] = place
                    break
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["kill", "suspend"])
async def test_no_acknowledged_login_is_lost_when_the_primary_fails(
    redis: Sentinels, store: ValkeyStore, how: str
) -> None:
    users = Users(store)
    primary = await asyncio.to_thread(lambda: redis.primary)
    await store.revoke(RevokeOrder(BOB, None, 0))
    async with asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(users.keep_coming(lane))
        await asyncio.sleep(1)
        lost = time.monotonic()
        (primary.kill if how == "kill" else primary.suspend)()
        before = len(users.acknowledged)
        assert before > 100

        gaps = []
        for answers in (finds, decides):
            await until(lambda answers=answers: _gone(answers, store), 5)  # type: ignore[misc]
        for answers in (finds, decides):
            await until(lambda answers=answers: answers(store), 30)  # type: ignore[misc]
            gaps.append(time.monotonic() - lost)
        await until(lambda: _grown(users, before + 100), 30)
        users.ended = True
    await until(lambda: decides(store))
    found = {
        (login.user, login.place)
        for login in (await store.list_logins(LoginFilter(), 1_000_000, "")).logins
    }
    missing = [one for one in users.acknowledged.items() if one not in found]
    print(
        f"{how}: decisions back after {gaps[0]:.1f} s, watchers after {gaps[1]:.1f} s;"
        f" {len(found)} logins, {len(missing)} missing"
    )
    assert missing == []
    assert gaps[0] < BACK_WITHIN
    assert (await register(store, BOB, OFFICE, age=60)).outcome is Outcome.REVOKED
    if how == "suspend":
        primary.resume()
        eventually(lambda: "role:slave" in primary.cli("INFO", "replication"), "it is demoted")
        assert await register(store, ALICE, HOME)
        assert await live(store) == {ALICE}


async def _gone(answers: Callable[[ValkeyStore], Awaitable[bool]], store: ValkeyStore) -> bool:
    return not await answers(store)


async def _grown(users: Users, size: int) -> bool:
    return len(users.acknowledged) >= size


async def test_a_failover_that_was_ordered_is_followed(
    redis: Sentinels, config: ValkeyConfig, store: ValkeyStore
) -> None:
    """Both Connection Managers go over; the old primary is told to be a replica."""
    await register(store)
    async with valkey_store(config) as other:
        first = redis.primary
        redis.sentinels[0].cli("SENTINEL", "FAILOVER", "netmail")

        async def replaced() -> bool:
            return await asyncio.to_thread(lambda: redis.primary) is not first

        await until(replaced, 30)
        for one in (store, other):
            await until(lambda one=one: decides(one))  # type: ignore[misc]
        await register(store, BOB, OFFICE)
        assert await live(other, OFFICE) == {BOB}
        assert await live(other, HOME) == {ALICE}
        assert store.instance_id == other.instance_id


async def test_a_sentinel_that_stands_still_holds_up_nobody(
    redis: Sentinels, store: ValkeyStore
) -> None:
    await register(store)
    redis.sentinels[0].suspend()
    slowest = 0.0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        begun = time.monotonic()
        assert await live(store) == {ALICE}
        slowest = max(slowest, time.monotonic() - begun)
        await asyncio.sleep(0.01)
    redis.sentinels[0].resume()
    assert slowest < 0.45, "a look at the Sentinels takes no longer than the answers"


async def test_two_dead_sentinels_hurt_nobody_and_none_makes_nobody_allowed(
    redis: Sentinels, config: ValkeyConfig, store: ValkeyStore
) -> None:
    await register(store)
    for sentinel in redis.sentinels[:2]:
        sentinel.kill()
    await asyncio.sleep(1.5)
    await until(lambda: decides(store))
    assert await live(store) == {ALICE}
    redis.sentinels[2].kill()

    async def refuses() -> bool:
        try:
            await store.find([HOME])
        except StoreUnavailable:
            return True
        return False

    await until(refuses)
