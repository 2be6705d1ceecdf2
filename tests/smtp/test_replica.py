"""The worker's replica of the login table: known clients cost no call, nothing old is allowed."""

import asyncio
import contextlib

import pytest
from netmail_common.connmgr import UserKey
from prometheus_client import REGISTRY

from tests.smtp.conftest import Start
from tests.smtp.receiving import FROM_ALICE, Receiving
from tests.support.waiting import until

REMOTE = "friend@example.net"
HOME = "127.0.0.7"


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"netmail_{name}", labels) or 0.0


def decided(by: str) -> float:
    return sample("smtp_login_decisions_total", by=by)


async def replica_has(logins: int) -> None:
    await until(
        lambda: (
            sample("smtp_replica_logins") == logins and sample("smtp_replica_age_seconds") < 10.0
        )
    )


async def relay(server: Receiving, address: str = HOME) -> str:
    client = await server.connect(address=address)
    reply = await client.message(FROM_ALICE, "alice@example.org", REMOTE)
    await client.close()
    return reply[:9]


async def test_a_known_client_costs_no_call(start: Start) -> None:
    async with start() as server:
        await server.login("alice", HOME)
        await replica_has(1)
        asked, answered = decided("call"), decided("replica")
        assert (await relay(server)).startswith("250")
        assert decided("call") == asked
        assert decided("replica") == answered + 2  # at RCPT, and for the header
        assert b"user alice of users.demo, known by POP3 login" in server.last.data
        assert server.last.envelope.relayed_for == "alice@users.demo"


async def test_a_login_of_a_moment_ago_counts_before_the_replica_knows_it(start: Start) -> None:
    async with start() as server:
        await replica_has(0)
        asked = decided("call")
        await server.login("alice", HOME)
        assert (await relay(server)).startswith("250")
        assert decided("call") - asked <= 2


async def test_a_refusal_is_never_the_replicas(start: Start) -> None:
    async with start() as server:
        await server.login("alice", HOME)
        await replica_has(1)
        asked = decided("call")
        client = await server.connect(address=HOME)
        reply = await client.message(FROM_ALICE, "bob@example.org", REMOTE)
        assert reply.startswith("550 5.7.1")
        assert decided("call") == asked + 1


async def test_without_a_replica_every_decision_is_asked_for(start: Start) -> None:
    async with start(smtp={"replica_max_logins": 0}) as server:
        await server.login("alice", HOME)
        answered = decided("replica")
        assert (await relay(server)).startswith("250")
        assert decided("replica") == answered


async def test_while_the_connection_manager_is_away_the_replica_answers_for_max_staleness(
    start: Start,
) -> None:
    async with start(smtp={"max_staleness": 3, "connmgr_timeout": 0.2}) as server:
        await server.login("alice", HOME)
        await replica_has(1)
        await server.connmgr_server.stop(None)
        clock = asyncio.get_running_loop().time
        until = clock() + 3.0
        assert (await relay(server)).startswith("250")
        assert (await relay(server, "127.0.0.8")).startswith("451 4.4.3")
        while (began := clock()) < until + 0.5:
            reply = await relay(server)
            assert reply.startswith("451") or (reply.startswith("250") and began < until)
            await asyncio.sleep(0.02)
        assert (await relay(server)).startswith("451")


@pytest.mark.parametrize("replica_max_logins", [0, 1000])
async def test_after_a_revocation_nothing_is_relayed(start: Start, replica_max_logins: int) -> None:
    async with start(smtp={"replica_max_logins": replica_max_logins}) as server:
        await server.login("alice", HOME)
        if replica_max_logins:
            await replica_has(1)
        assert (await relay(server)).startswith("250")
        await server.revoke("alice")

        async def refused() -> bool:
            return (await relay(server)).startswith("550 5.7.1")

        await until(refused)
        assert await refused()


@pytest.mark.parametrize("after_login", ["any", "domain", "strict"])
async def test_what_was_allowed_at_rcpt_is_asked_again_at_the_end_of_the_data(
    start: Start, after_login: str
) -> None:
    async with start(server={"sender_binding": {"after_login": after_login}}) as server:
        await server.login("alice", HOME)
        await replica_has(1)
        client = await server.connect(address=HOME)
        await client.say_all("MAIL FROM:<alice@example.org>", f"RCPT TO:<{REMOTE}>", "DATA")
        assert await server.nmap_connmgr.revoke(user=UserKey("alice", "users.demo")) == 1
        await replica_has(0)
        assert (await client.say(FROM_ALICE.encode() + b".")).startswith("550 5.7.1")
        assert server.nmap.submitted == []


async def test_two_messaging_servers_with_different_connection_managers_share_no_logins(
    start: Start,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(start())
        second = await stack.enter_async_context(start())
        await first.login("alice", HOME)
        await until(lambda: _allowed(first))
        assert (await relay(second)).startswith("550 5.7.1")
        await second.login("alice", "127.0.0.8")
        await until(lambda: _allowed(second, "127.0.0.8"))
        assert (await relay(first, "127.0.0.8")).startswith("550 5.7.1")
        await second.revoke("alice")
        assert (await relay(first)).startswith("250")


async def _allowed(server: Receiving, address: str = HOME) -> bool:
    return (await relay(server, address)).startswith("250")
