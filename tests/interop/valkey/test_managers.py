"""Two whole Connection Managers on one Redis, with agents at each, over gRPC."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import ConnectionManagerClient, ConnectionManagerUnavailable, UserKey
from netmail_common.connmgr.events import Connected, Lost, WatchEvent, WatchMode
from netmail_common.connmgr.model import (
    Binding,
    CheckedSender,
    Decision,
    SenderDecision,
    SenderQuestion,
)
from netmail_common.connmgr.replica import LoginReplica
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.abuse.agents import settings
from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.one_manager import channel_to
from tests.support.valkey import Node
from tests.support.waiting import until

ADDRESS, OTHER = b"\xc6\x33\x64\x01", b"\xc6\x33\x64\x02"
MINE = SenderQuestion(
    (CheckedSender("alice@example.org", "alice@example.org", "example.org"),), Binding.DOMAIN
)


@dataclass
class Manager:
    port: int
    identity_for: IdentityFor
    stack: contextlib.AsyncExitStack

    def client(self, role: Role) -> ConnectionManagerClient:
        channel = channel_to(self.port, self.identity_for(role))
        self.stack.push_async_callback(channel.close)
        return ConnectionManagerClient(channel, timeout=3.0)

    async def replica(self) -> LoginReplica:
        """An SMTP agent's copy of the table, when it is fresh."""
        replica = LoginReplica(
            self.client(Role.SMTP),
            NetworkMap(AddressRules()),
            max_staleness=10.0,
            max_logins=10_000,
        )
        task = asyncio.create_task(replica.run())
        self.stack.callback(task.cancel)
        await until(lambda: _fresh(replica))
        return replica


async def _fresh(replica: LoginReplica) -> bool:
    return replica.fresh


Managers = Sequence[Manager]


@pytest.fixture
async def managers(
    redis: Node, certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> AsyncIterator[Managers]:
    section = {"addresses": [redis.address], "timeout": 1.0}
    installation = settings(certificates, tmp_path, store="valkey", valkey=section)
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            serving = await stack.enter_async_context(connection_manager(installation, "cm1"))
            found.append(Manager(serving.ports[0], identity_for, stack))
        async with contextlib.AsyncExitStack() as agents:
            for one in found:
                one.stack = agents
            yield found


def allowed(decision: SenderDecision | None) -> bool:
    return decision is not None and decision.decision is Decision.ALLOWED


async def becomes(true: Callable[[], bool]) -> None:
    async def look() -> bool:
        return true()

    await until(look)


async def test_a_login_at_one_is_known_at_the_other(managers: Managers) -> None:
    here, there = managers
    replicas = [await one.replica() for one in managers]
    result = await here.client(Role.POP_IMAP).register_one(login("alice", ADDRESS))
    assert result.outcome == pb.REGISTER_OUTCOME_REGISTERED
    decision = await there.client(Role.SMTP).check_sender(
        check("alice@example.org", address=ADDRESS)
    )
    assert decision.decision == pb.DECISION_ALLOWED
    assert (decision.user.name, decision.remaining_seconds) == ("alice", 899)
    for replica in replicas:
        await becomes(lambda replica=replica: allowed(replica.allows(ADDRESS, MINE)))  # type: ignore[misc]
    revoked = await there.client(Role.NMAP).revoke(user=UserKey("alice", "users.demo"))
    assert revoked == 1
    decision = await here.client(Role.SMTP).check_sender(
        check("alice@example.org", address=ADDRESS)
    )
    assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
    for replica in replicas:
        await becomes(lambda replica=replica: not allowed(replica.allows(ADDRESS, MINE)))  # type: ignore[misc]
    late = await here.client(Role.POP_IMAP).register_one(login("alice", ADDRESS, age_ms=60_000))
    assert late.outcome == pb.REGISTER_OUTCOME_REVOKED


async def test_a_revocation_reaches_the_other_s_replicas_in_moments(managers: Managers) -> None:
    here, there = managers
    replica = await there.replica()
    register, revoke = here.client(Role.POP_IMAP), here.client(Role.NMAP)
    delays = []
    for number in range(40):
        await register.register_one(login("alice", ADDRESS, session=f"s{number}", epoch=number + 1))
        await becomes(lambda: allowed(replica.allows(ADDRESS, MINE)))
        begun = time.monotonic()
        await revoke.revoke(user=UserKey("alice", "users.demo"), credential_epoch=number + 2)
        while allowed(replica.allows(ADDRESS, MINE)):  # noqa: ASYNC110 - a poll, no event
            await asyncio.sleep(0.001)
        delays.append((time.monotonic() - begun) * 1000)
    delays.sort()
    print(
        f"revocation to a replica, call included: p50 {delays[20]:.1f}, worst {delays[-1]:.1f} ms"
    )
    assert delays[20] < 100


async def test_while_the_store_is_away_nobody_is_allowed_and_streams_say_so(
    redis: Node, managers: Managers
) -> None:
    here, there = managers
    replica = await there.replica()
    register, ask = here.client(Role.POP_IMAP), there.client(Role.SMTP)
    await register.register_one(login("alice", ADDRESS))
    await becomes(lambda: allowed(replica.allows(ADDRESS, MINE)))
    events: list[WatchEvent] = []

    async def follow() -> None:
        async for event in here.client(Role.POP_IMAP).watch(WatchMode.REVOCATIONS):
            events.append(event)  # noqa: PERF401 - it is looked at meanwhile

    following = asyncio.create_task(follow())
    here.stack.callback(following.cancel)
    await becomes(lambda: any(isinstance(event, Connected) for event in events))
    redis.kill()
    for call in (
        register.register_one(login("bob", OTHER)),
        ask.check_sender(check("alice@example.org", address=ADDRESS)),
        here.client(Role.NMAP).revoke(user=UserKey("alice", "users.demo")),
    ):
        with pytest.raises(ConnectionManagerUnavailable):
            await call
    await becomes(lambda: any(isinstance(event, Lost) for event in events))
    await becomes(lambda: not replica.fresh)
    assert replica.allows(ADDRESS, MINE) is None
    # It comes back empty: another table, where agents register anew; what waited is there.
    first = next(event for event in events if isinstance(event, Connected)).instance_id
    await asyncio.to_thread(redis.start)
    await becomes(
        lambda: any(isinstance(one, Connected) and one.instance_id != first for one in events)
    )

    async def decides() -> bool:
        with contextlib.suppress(ConnectionManagerUnavailable):
            question = check("bob@example.org", address=OTHER)
            decision = await ask.check_sender(question)
            return decision.decision == pb.DECISION_ALLOWED
        return False

    await until(decides)


async def test_an_idle_store_that_stands_still_makes_replicas_stale(
    redis: Node, managers: Managers
) -> None:
    here, there = managers
    replica = await there.replica()
    await here.client(Role.POP_IMAP).register_one(login("alice", ADDRESS))
    await becomes(lambda: allowed(replica.allows(ADDRESS, MINE)))
    redis.suspend()
    begun = time.monotonic()
    await becomes(lambda: replica.allows(ADDRESS, MINE) is None)
    assert time.monotonic() - begun < 12, "max_staleness and a heartbeat"
    redis.resume()
    await becomes(lambda: allowed(replica.allows(ADDRESS, MINE)))
