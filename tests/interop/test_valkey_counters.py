"""Counters and suspicions that Connection Managers share in a real Redis."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from netmail_common.config import ValkeyConfig
from netmail_common.connmgr import UserKey
from netmail_common.connmgr.gate import Door
from netmail_common.roles import Role
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.adapters.valkey.connection import Valkey, boot_time
from netmail_connmgr.adapters.valkey_counters import SharedSuspicions, ValkeyCounters
from netmail_connmgr.domain.counters import Count, CountersUnavailable
from netmail_connmgr.domain.suspicions import SuspicionBook

from tests.connmgr.abuse.agents import Agent, managing, settings, visitor
from tests.connmgr.conftest import IdentityFor
from tests.connmgr.store_contract.stores import prefixed
from tests.support.valkey import Node, cluster, one_redis
from tests.support.waiting import until

ALICE = UserKey("alice \u00e4", "users.demo")
DAY = 86_400.0


@pytest.fixture(scope="module")
def redis() -> Iterator[Node]:
    with one_redis() as node:
        yield node


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[list[Node]]:
    with cluster(primaries=3, replicas=0) as nodes:
        yield nodes


@pytest.fixture(params=["single", "cluster"])
def config(request: pytest.FixtureRequest) -> ValkeyConfig:
    if request.param == "single":
        node: Node = request.getfixturevalue("redis")
        return prefixed(ValkeyConfig(addresses=[node.address]))
    nodes: list[Node] = request.getfixturevalue("redis_cluster")
    return prefixed(ValkeyConfig(mode="cluster", addresses=[node.address for node in nodes]))


@contextlib.asynccontextmanager
async def connected(config: ValkeyConfig) -> AsyncIterator[Valkey]:
    valkey = Valkey(config)
    try:
        yield valkey
    finally:
        await valkey.close()


async def test_it_counts_as_memory_does(config: ValkeyConfig) -> None:
    chance = random.Random(7)
    async with connected(config) as valkey:
        theirs, ours = ValkeyCounters(valkey), MemoryCounters(boot_time)
        for _ in range(60):
            counts = [
                Count(
                    chance.choice("abcdef"),
                    chance.choice([-1, 0, 1, 1, 2, 5]),
                    DAY,
                    chance.choice([3.0, 10.0, float("inf")]),
                )
                for _ in range(chance.randrange(1, 8))
            ]
            expected = await ours.count(counts)
            found = await theirs.count(counts)
            assert [(one.total, one.admitted) for one in found] == [
                (one.total, one.admitted) for one in expected
            ]
            for one, other in zip(found, expected, strict=True):
                assert (one.wait > 0) == (other.wait > 0)
                assert one.wait == float("inf") or one.wait <= DAY * (1 + 1 / 60)
                assert (one.wait == float("inf")) == (other.wait == float("inf"))


async def test_what_is_out_of_the_window_counts_no_more_and_takes_no_room(redis: Node) -> None:
    config = prefixed(ValkeyConfig(addresses=[redis.address]))
    async with connected(config) as valkey:
        counters = ValkeyCounters(valkey)
        (full,) = await counters.count([Count("a", 3, 1.0, 3)])
        assert full.admitted
        (refused,) = await counters.count([Count("a", 1, 1.0, 3)])
        assert not refused.admitted
        assert 0 < refused.wait <= 1.02

        async def admitted() -> bool:
            return (await counters.count([Count("a", 3, 1.0, 3)]))[0].admitted

        await until(admitted)

        async def gone() -> bool:
            return redis.cli("KEYS", f"{config.prefix}*") == ""

        await until(gone)


async def test_notes_end_at_their_time_and_can_be_forgotten(config: ValkeyConfig) -> None:
    async with connected(config) as valkey:
        counters = ValkeyCounters(valkey)
        names = [f"key{number}" for number in range(20)]
        await counters.note(names, 60.0)
        await counters.note(["short"], 0.2)
        await counters.count([Count("counter", 1, 60.0)])
        assert await counters.noted([*names, "other"]) == [True] * 20 + [False]
        assert await counters.forget([*names[:5], "other", "counter"]) == 6
        assert await counters.noted(names[:6]) == [False] * 5 + [True]

        async def over() -> bool:
            return not (await counters.noted(["short"]))[0]

        await until(over)


async def test_a_suspicion_reaches_every_replica_and_those_that_start_later(
    config: ValkeyConfig,
) -> None:
    network = b"\xc0\x00\x02\x01"
    async with connected(config) as valkey, connected(config) as other_valkey:
        books = [SuspicionBook(boot_time) for _ in range(3)]
        one = SharedSuspicions(valkey, books[0], clock=boot_time)
        other = SharedSuspicions(other_valkey, books[1], clock=boot_time)
        late = SharedSuspicions(other_valkey, books[2], clock=boot_time)
        async with running(one, other):
            one.suspect(ALICE, 600.0)
            other.suspect(network, 600.0)
            await until_all(lambda: ALICE in books[1] and network in books[0])
            async with running(late):
                await until_all(lambda: ALICE in books[2] and network in books[2])
                late.acquit(ALICE)
                await until_all(lambda: all(ALICE not in book for book in books))
                assert all(network in book for book in books)


@contextlib.asynccontextmanager
async def running(*suspicions: SharedSuspicions) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in suspicions]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_all(true: Callable[[], bool]) -> None:
    async def found() -> bool:
        return true()

    await until(found)


async def fail(agent: Agent, first: int, times: int) -> None:
    for number in range(first, first + times):
        await agent.gate.failed(visitor(f"203.0.113.{number}"), ALICE, "")


async def send(agent: Agent, recipients: int) -> bool:
    answer = await agent.gate.relay(
        visitor("192.0.2.1", Door.SUBMISSION),
        ALICE,
        authenticated=True,
        session_id="s",
        recipients=recipients,
        messages=1,
    )
    return answer.accepted


async def test_guesses_and_mail_count_over_all_replicas_of_the_connection_manager(
    redis: Node, certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    config = prefixed(ValkeyConfig(addresses=[redis.address]))
    installation = settings(
        certificates,
        tmp_path,
        store="valkey",
        valkey=config.model_dump(),
        rates={"after_auth": {"recipients": 20}},
    )
    async with (
        managing(installation, identity_for) as one,
        managing(installation, identity_for) as other,
    ):
        here, there = await one.agent(Role.SMTP), await other.agent(Role.SMTP)
        assert await send(here, 12)
        assert not await send(there, 9)
        assert await send(there, 8)
        await here.gate.succeeded(visitor("192.0.2.1", Door.SMTP), ALICE)
        await here.gate.close()
        await fail(here, 0, 12)
        await fail(there, 12, 8)

        async def denied_everywhere() -> bool:
            answers = [
                await agent.gate.succeeded(visitor("198.51.100.7"), ALICE)
                for agent in (here, there)
            ]
            return not any(answer.allowed for answer in answers)

        await until(denied_everywhere)

        async def known() -> bool:
            return (await there.gate.succeeded(visitor("192.0.2.1"), ALICE)).allowed

        await until(known)


async def test_without_the_store_logins_go_on_and_agents_count_rates_for_themselves(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    with one_redis() as node:
        config = ValkeyConfig(addresses=[node.address], timeout=0.5)
        installation = settings(
            certificates,
            tmp_path,
            store="valkey",
            valkey=config.model_dump(),
            rates={"after_auth": {"recipients": 20}},
        )
        async with managing(installation, identity_for) as manager:
            agent = await manager.agent(Role.SMTP)
            await fail(agent, 0, 20)
            node.kill()
            async with connected(config) as valkey:
                with pytest.raises(CountersUnavailable):
                    await ValkeyCounters(valkey).noted(["a"])
            assert (await agent.gate.succeeded(visitor("198.51.100.7"), ALICE)).allowed
            assert await agent.gate.failed(visitor("198.51.100.7"), ALICE, "") == 0
            assert await send(agent, 20)
            assert not await send(agent, 1)
