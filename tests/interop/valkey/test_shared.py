"""Several Connection Managers on one Redis."""

import asyncio
import contextlib
import time

from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import Login
from netmail_connmgr.adapters.valkey.feed import ValkeyFeed
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.changes import MissedChanges
from netmail_connmgr.domain.store import LoginFilter, Position, RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    HOME,
    OFFICE,
    live,
    places,
    prefixed,
    register,
    valkey_store,
)
from tests.support.valkey import Node
from tests.support.waiting import until

TTL_OF_KEYS = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  found[#found + 1] = redis.call('PTTL', key)
end
return found
"""


async def test_what_one_registers_the_other_finds(store: ValkeyStore, other: ValkeyStore) -> None:
    assert store.instance_id == other.instance_id
    for number, place in enumerate(places(20)):
        await register((store, other)[number % 2], ALICE, place, session=str(number))
        assert await live((other, store)[number % 2], place) == {ALICE}


async def test_a_listing_goes_on_at_the_other(store: ValkeyStore, other: ValkeyStore) -> None:
    for place in places(9):
        await register(store, ALICE, place)
    seen, token = [], ""
    for number in range(9):
        page = await (store, other)[number % 2].list_logins(LoginFilter(), 1, token)
        seen += [login.place for login in page.logins]
        token = page.next_token
    assert sorted(seen) == sorted(places(9))
    assert not token


async def test_a_revocation_at_one_reaches_the_other_s_watchers_at_once(
    store: ValkeyStore, other: ValkeyStore
) -> None:
    wake = asyncio.Event()
    delays = []
    async with other.watch(Position(), revocations_only=True, wake=wake) as feed:
        await feed.snapshot(logins=False)
        for number in range(30):
            wake.clear()
            asked = time.monotonic()
            await store.revoke(RevokeOrder(ALICE, HOME, number + 1))
            async with asyncio.timeout(20):
                await wake.wait()
            delays.append(time.monotonic() - asked)
            (change,) = await feed.take(10)
            assert change.revocation is not None
            assert change.revocation.credential_epoch == number + 1
    delays.sort()
    assert delays[len(delays) // 2] < 0.05


async def test_a_mark_left_at_one_refuses_at_the_other(
    store: ValkeyStore, other: ValkeyStore
) -> None:
    await store.revoke(RevokeOrder(ALICE, None, 0))
    assert (await register(other, age=30)).outcome is Outcome.REVOKED


async def test_a_watcher_does_not_resume_at_the_other(
    store: ValkeyStore, other: ValkeyStore
) -> None:
    wake = asyncio.Event()
    async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
        await feed.snapshot(logins=True)
        position = Position(store.instance_id, feed.position)
    assert store.clock_id != other.clock_id
    async with other.watch(position, revocations_only=False, wake=wake) as feed:
        assert not feed.resumed


async def test_one_that_starts_later_reads_what_is_there(
    config: ValkeyConfig, store: ValkeyStore
) -> None:
    all_places = [bytes((10, 1, number // 250, number % 250)) for number in range(1200)]
    for place in all_places[:1200:60]:
        await register(store, BOB, place, session=place.hex())
    await asyncio.gather(*(register(store, ALICE, p, session=p.hex()) for p in all_places))
    await store.revoke(RevokeOrder(ALICE, HOME, 7, reason="here"))
    wake = asyncio.Event()
    async with valkey_store(config) as late:
        async with late.watch(Position(), revocations_only=False, wake=wake) as feed:
            snapshot = await feed.snapshot(logins=True)
        logins = [late.packer.unpack(record) for record in snapshot.records if record]
        expected = {(one.user, one.place) for one in await everything(store)}
        assert {(one.user, one.place) for one in logins} == expected
        assert [one.reason for one in snapshot.revocations] == ["here"]


async def everything(store: ValkeyStore) -> tuple[Login, ...]:
    return (await store.list_logins(LoginFilter(), 10_000, "")).logins


async def test_two_tables_with_different_prefixes_share_nothing(
    config: ValkeyConfig, store: ValkeyStore
) -> None:
    await register(store)
    async with valkey_store(prefixed(config)) as stranger:
        assert stranger.instance_id != store.instance_id
        assert await live(stranger) == set()


async def test_the_copy_for_watchers_forgets_what_is_over(store: ValkeyStore) -> None:
    await register(store, age=899)
    await register(store, BOB, OFFICE)

    async def shrunk() -> bool:
        return sum(map(len, store.mirror.parts)) == 1 and await store.size() == 1

    await until(shrunk)
    assert len(store.packer.origins) == 1


async def test_keys_of_logins_end_by_themselves(
    redis: Node, config: ValkeyConfig, store: ValkeyStore
) -> None:
    await register(store, age=300)
    for pattern in ("*:at:*", "*:of:*"):
        (left,) = redis.cli("EVAL", TTL_OF_KEYS, 0, pattern).splitlines()
        assert 590_000 < int(left) < 665_000


async def test_nothing_is_left_of_logins_that_are_over(
    redis: Node, config: ValkeyConfig, store: ValkeyStore
) -> None:
    for number in range(100):
        await register(store, ALICE, bytes((10, 2, 0, number)), age=898.5, session=str(number))

    async def gone() -> bool:
        keys = await asyncio.to_thread(redis.cli, "KEYS", "*")
        return not any(f":{name}" in keys for name in ("at:", "of:", "all", "ends"))

    await until(gone)


async def test_a_log_that_was_cut_is_noticed(
    redis: Node, config: ValkeyConfig, store: ValkeyStore
) -> None:
    wake = asyncio.Event()
    async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
        await feed.snapshot(logins=True)
        await register(store, ALICE, HOME)
        await asyncio.to_thread(redis.cli, "DEL", redis.cli("KEYS", "*:log"))
        await register(store, BOB, OFFICE)
        assert await raises_missed(feed)
    await store.ready()
    async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
        snapshot = await feed.snapshot(logins=True)
        logins = {store.packer.unpack(record).user for record in snapshot.records if record}
        assert logins == {ALICE, BOB}


async def raises_missed(feed: ValkeyFeed) -> bool:
    """Whether the feed ends, sooner or later."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreUnavailable):
                try:
                    await feed.take(10)
                except MissedChanges:
                    return True
            await asyncio.sleep(0.01)
