"""Agents and a real Connection Manager: guesses over several agents, rates, what is let pass."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import RateLimit, RatesConfig
from netmail_common.connmgr import Connected, LoginReplica, Lost, UserKey
from netmail_common.connmgr.gate import Admission, Door, Gate, RelayAnswer
from netmail_common.connmgr.guarded_directory import GuardedDirectory
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_common.sasl import (
    AuthenticatedUser,
    AuthFailed,
    IPAddress,
    ScramOutcome,
    ScramVerification,
)

from tests.connmgr.abuse.agents import Agent, Manager, managing, settings, visitor
from tests.connmgr.conftest import IdentityFor, login
from tests.support.waiting import until

ALICE = UserKey("alice", "users.demo")
BOB = UserKey("bob", "users.demo")
HOME, HOTEL = "192.0.2.1", "198.51.100.7"
WELCOME = Admission()


@pytest.fixture
async def manager(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> AsyncIterator[Manager]:
    rates = {"after_login": {"recipients": 10}, "after_auth": {"recipients": 20, "messages": 5}}
    async with managing(settings(certificates, tmp_path, rates=rates), identity_for) as running:
        yield running


async def fail(agent: Agent, address: str, user: UserKey | None, times: int) -> float:
    delay = 0.0
    for number in range(times):
        delay = await agent.gate.failed(visitor(address), user, f"name{number}")
    return delay


async def test_a_login_of_somebody_who_is_not_suspected_costs_no_call(manager: Manager) -> None:
    agent = await manager.agent()
    await fail(agent, HOTEL, BOB, 10)
    calls = agent.client.calls
    assert await agent.gate.connecting(visitor(HOME)) == WELCOME
    assert await agent.gate.may_try(visitor(HOME), "alice") == WELCOME
    assert await agent.gate.succeeded(visitor(HOME), ALICE) == WELCOME
    assert agent.client.calls == calls


async def test_guesses_through_one_agent_count_at_every_other(manager: Manager) -> None:
    one, other = await manager.agent(), await manager.agent(Role.SMTP)
    for number in range(20):
        await fail(one, f"203.0.113.{number}", ALICE, 1)

    async def denied() -> bool:
        return not (await other.gate.succeeded(visitor(HOTEL, Door.SUBMISSION), ALICE)).allowed

    await until(denied)
    admission = await other.gate.succeeded(visitor(HOTEL, Door.SUBMISSION), ALICE)
    assert (admission.rule, admission.delay) == ("guessing", 8.0)


async def test_the_agent_that_saw_the_guesses_asks_at_once(manager: Manager) -> None:
    agent = await manager.agent()
    await fail(agent, HOTEL, ALICE, 20)
    assert not (await agent.gate.may_try(visitor(HOTEL), "bob")).allowed
    assert not (await agent.gate.succeeded(visitor(HOTEL), ALICE)).allowed
    assert not (await agent.gate.connecting(visitor(HOTEL))).allowed


async def test_a_login_by_pop3_or_imap_keeps_its_address_open(manager: Manager) -> None:
    agent = await manager.agent()
    registered = await agent.client.register_one(login(address=ip_address(HOME).packed))
    assert registered.outcome == pb.REGISTER_OUTCOME_REGISTERED
    await fail(agent, HOTEL, ALICE, 20)

    async def known() -> bool:
        return (await agent.gate.succeeded(visitor(HOME), ALICE)).allowed

    await until(known)
    assert not (await agent.gate.succeeded(visitor(HOTEL), ALICE)).allowed


async def test_smtp_auth_keeps_its_address_open_and_is_reported_once(manager: Manager) -> None:
    agent = await manager.agent(Role.SMTP)
    for _ in range(5):
        await agent.gate.succeeded(visitor(HOME, Door.SUBMISSION), ALICE)
    await agent.gate.close()
    assert agent.client.calls == 1
    await fail(agent, HOTEL, ALICE, 20)

    async def known() -> bool:
        return (await agent.gate.succeeded(visitor(HOME, Door.SMTP), ALICE)).allowed

    await until(known)


async def test_a_success_that_nobody_heard_of_is_told_again(manager: Manager) -> None:
    agent = await manager.agent(Role.SMTP)
    agent.gate.take(Lost())
    await agent.gate.succeeded(visitor(HOME, Door.SMTP), ALICE)
    await agent.gate.close()
    assert agent.client.calls == 0
    agent.gate.take(Connected("x", 900.0))
    for _ in range(2):
        await agent.gate.succeeded(visitor(HOME, Door.SMTP), ALICE)
        await agent.gate.close()
    assert agent.client.calls == 1


async def test_what_is_known_outlives_the_connection_manager(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    installation = settings(certificates, tmp_path)
    for known_before in (False, True):
        async with managing(installation, identity_for) as manager:
            agent = await manager.agent(Role.SMTP)
            if not known_before:
                await agent.gate.succeeded(visitor(HOME, Door.SMTP), ALICE)
                await agent.gate.close()
                await asyncio.sleep(0)

                async def written() -> bool:
                    return any(path.stat().st_size for path in tmp_path.glob("*.known-addresses"))

                await until(written)
            else:
                await fail(agent, HOTEL, ALICE, 20)
                assert (await agent.gate.succeeded(visitor(HOME), ALICE)).allowed
                assert not (await agent.gate.succeeded(visitor("192.0.2.9"), ALICE)).allowed


async def test_an_administrator_lets_a_user_and_an_address_in_again(manager: Manager) -> None:
    agent = await manager.agent()
    await fail(agent, HOTEL, ALICE, 20)
    user = pb.UserKey(name="alice", context="users.demo")
    reply = await manager.admin.ForgetFailures(pb.ForgetFailuresRequest(user=user))
    assert reply.forgotten == 1
    assert (await agent.gate.succeeded(visitor(HOME), ALICE)).allowed
    address = ip_address(HOTEL).packed
    reply = await manager.admin.ForgetFailures(pb.ForgetFailuresRequest(client_address=address))
    assert reply.forgotten == 1
    assert (await agent.gate.succeeded(visitor(HOTEL), ALICE)).allowed


async def test_an_event_that_is_repeated_counts_once(manager: Manager) -> None:
    agent = await manager.agent()
    event = pb.Event(
        event_id="one",
        client_address=ip_address(HOTEL).packed,
        user=pb.UserKey(name="alice", context="users.demo"),
        login_failed=pb.LoginFailed(),
    )
    for _ in range(50):
        await agent.client.report_event(event)
    assert await fail(agent, HOTEL, ALICE, 1) == 0


async def test_without_a_connection_manager_everybody_is_let_in_at_once() -> None:
    gate = Gate(None, NetworkMap(AddressRules()), messaging_server="m", agent="a")
    assert await gate.failed(visitor(HOTEL), ALICE, "") == 0
    assert await gate.may_try(visitor(HOTEL), "alice") == WELCOME
    assert await gate.succeeded(visitor(HOTEL), ALICE) == WELCOME
    assert await gate.connecting(visitor(HOTEL)) == WELCOME


async def test_while_the_connection_manager_is_away_logins_go_on_and_rates_are_counted_here(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    rates = {"after_auth": {"recipients": 20}}
    async with managing(settings(certificates, tmp_path, rates=rates), identity_for) as manager:
        agent = await manager.agent()
        await fail(agent, HOTEL, ALICE, 20)
        await manager.stop()
        gate, who = agent.gate, visitor(HOTEL, Door.SUBMISSION)
        assert (await gate.succeeded(who, ALICE)).allowed
        assert (await send(gate, ALICE, 20)).accepted
        refused = await send(gate, ALICE, 1)
        assert (refused.accepted, refused.rate) == (False, "user")
        assert 3500 < refused.retry_after <= 3600


async def send(
    gate: Gate,
    user: UserKey | None,
    recipients: int,
    *,
    authenticated: bool = True,
    address: str = HOME,
    session: str = "s",
    messages: int = 0,
) -> RelayAnswer:
    return await gate.relay(
        visitor(address, Door.SUBMISSION),
        user,
        authenticated=authenticated,
        session_id=session,
        recipients=recipients,
        messages=messages,
    )


async def test_a_rate_is_one_over_all_agents_and_addresses(manager: Manager) -> None:
    one, other = await manager.agent(Role.SMTP), await manager.agent(Role.SMTP)
    assert (await send(one.gate, ALICE, 12, address=HOME, session="1")).accepted
    answer = await send(other.gate, ALICE, 9, address=HOTEL, session="2")
    assert (answer.accepted, answer.rate) == (False, "user")
    assert 3400 < answer.retry_after <= 3660
    # Nothing of what was refused is counted.
    assert (await send(other.gate, ALICE, 8, address=HOTEL, session="2")).accepted
    assert (await send(other.gate, BOB, 9, address="203.0.113.1", session="3")).accepted


async def test_an_infected_machine_behind_the_address_of_users_gets_no_further_by_many_names(
    manager: Manager,
) -> None:
    agent = await manager.agent(Role.SMTP)
    assert (await send(agent.gate, ALICE, 6, authenticated=False, session="1")).accepted
    answer = await send(agent.gate, BOB, 6, authenticated=False, session="2")
    assert (answer.accepted, answer.rate) == (False, "network")
    # Who authenticates from there is none the worse for it.
    assert (await send(agent.gate, ALICE, 20)).accepted


async def test_messages_have_a_rate_of_their_own(manager: Manager) -> None:
    agent = await manager.agent(Role.SMTP)
    for _ in range(5):
        assert (await send(agent.gate, ALICE, 1, messages=1)).accepted
    assert not (await send(agent.gate, ALICE, 1, messages=1)).accepted
    assert (await send(agent.gate, ALICE, 1)).accepted


async def test_behind_a_shared_network_there_is_no_rate_of_the_network(manager: Manager) -> None:
    agent = await manager.agent(Role.SMTP)
    for number in range(5):
        user = UserKey(f"user{number}", "users.demo")
        sent = await send(agent.gate, user, 15, address="127.0.0.1", session=str(number))
        assert sent.accepted


async def test_users_may_have_rates_of_their_own(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    rates = {
        "after_auth": {"recipients": 5},
        "overrides": [
            {"context": "users.demo", "user": "alice", "after_auth": {"recipients": 50}},
            {"context": "bulk", "after_auth": {"recipients": 0}},
        ],
    }
    async with managing(settings(certificates, tmp_path, rates=rates), identity_for) as manager:
        agent = await manager.agent(Role.SMTP)
        assert (await send(agent.gate, ALICE, 50)).accepted
        assert not (await send(agent.gate, ALICE, 1)).accepted
        calls = agent.client.calls
        assert (await send(agent.gate, UserKey("news", "bulk"), 100_000)).accepted
        assert agent.client.calls == calls
        # Theirs take nothing from their neighbours.
        assert (await send(agent.gate, BOB, 5, session="b")).accepted


@pytest.mark.parametrize("revokes", [True, False])
async def test_logins_of_the_network_may_end_when_its_rate_is_exceeded(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor, revokes: bool
) -> None:
    rates = RatesConfig(after_login=RateLimit(recipients=10), revoke_on_excess=revokes)
    installation = settings(certificates, tmp_path, rates=rates.model_dump())
    async with managing(installation, identity_for) as manager:
        agent, smtp = await manager.agent(), await manager.agent(Role.SMTP)
        for name in ("alice", "bob"):
            await agent.client.register_one(
                login(name=name, session=name, address=ip_address(HOME).packed)
            )
        await agent.client.register_one(login(address=ip_address(HOTEL).packed))
        answer = await send(smtp.gate, ALICE, 11, authenticated=False)
        assert not answer.accepted
        left = [one async for one in ListedLogins(manager)]
        assert len(left) == (1 if revokes else 3)


class ListedLogins:
    """Every live login, as an administrator sees them."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def __aiter__(self) -> AsyncIterator[pb.Login]:
        for one in (await self._manager.admin.ListLogins(pb.ListLoginsRequest())).logins:
            yield one


class SmallDirectory:
    """Knows alice, by two names."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        self.asked += 1
        known = username in {"alice", "alice@example.org"}
        if not known or password != "wonderland":
            raise AuthFailed(ALICE if known else None)
        return AuthenticatedUser(1, *ALICE, "mail1", (), (), 1)

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> ScramVerification:
        return SmallScram(self)


class SmallScram:
    server_first = b"first"

    def __init__(self, directory: SmallDirectory) -> None:
        self._directory = directory

    async def finish(self, client_final: bytes) -> ScramOutcome:
        user = await self._directory.authenticate_password(
            "alice", client_final.decode(), service="", client_address=ip_address(HOME)
        )
        return ScramOutcome(user, b"final")

    def cancel(self) -> None:
        pass


class Client:
    """Somebody who tries passwords at an agent, and writes down how long it took."""

    def __init__(self, agent: Agent, address: str) -> None:
        self.directory = SmallDirectory()
        self.waited: list[float] = []
        self._guard = GuardedDirectory(
            self.directory, agent.gate, visitor(address), sleep=self._sleep
        )
        self._address = ip_address(address)

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def password(self, name: str, password: str) -> bool:
        try:
            await self._guard.authenticate_password(
                name, password, service="imap", client_address=self._address
            )
        except AuthFailed:
            return False
        return True

    async def scram(self, password: str) -> bool:
        exchange = await self._guard.start_scram(
            b"n,,n=alice,r=abc", service="imap", client_address=self._address
        )
        try:
            await exchange.finish(password.encode())
        except AuthFailed:
            return False
        return True


async def test_after_20_guesses_the_right_password_is_answered_like_a_wrong_one(
    manager: Manager,
) -> None:
    agent = await manager.agent()
    for number in range(20):
        guesser = Client(agent, f"203.0.113.{number}")
        name = ("alice", "alice@example.org")[number % 2]
        assert not await (guesser.scram("x") if number % 3 else guesser.password(name, "x"))
    lucky = Client(agent, HOTEL)
    assert not await lucky.password("alice", "wonderland")
    assert not await lucky.password("alice", "x")
    assert not await lucky.scram("wonderland")
    assert not await lucky.scram("x")
    assert lucky.waited == [8.0] * 4


async def test_a_denied_address_costs_no_look_at_a_password(manager: Manager) -> None:
    agent = await manager.agent()
    client = Client(agent, HOTEL)
    for number in range(20):
        assert not await client.password(f"nobody{number}", "x")
    asked = client.directory.asked
    assert not await client.password("alice", "wonderland")
    assert client.directory.asked == asked
    assert client.waited[-1] == 8.0
    assert await Client(agent, HOME).password("alice", "wonderland")


async def test_who_is_known_there_logs_in_through_all_of_it(manager: Manager) -> None:
    agent = await manager.agent()
    await agent.client.register_one(login(address=ip_address(HOTEL).packed))
    client = Client(agent, HOTEL)
    for number in range(25):
        await client.password(f"nobody{number}", "x")
        await Client(agent, f"203.0.113.{number}").password("alice", "x")
    assert await client.password("alice", "wonderland")
    assert await client.scram("wonderland")


@pytest.mark.parametrize("max_logins", [1000, 1], ids=["the whole table", "held networks"])
async def test_the_stream_of_a_replica_tells_of_suspects_too(
    manager: Manager, max_logins: int
) -> None:
    agent, client = await manager.agent(), manager.client(Role.SMTP)
    for number in range(3):
        await agent.client.register_one(
            login(session=str(number), address=ip_address(f"192.0.2.{number}").packed)
        )
    rules = NetworkMap(AddressRules())
    gate = Gate(client, rules, messaging_server="mail1", agent="smtp")
    replica = LoginReplica(
        client, rules, max_staleness=10.0, max_logins=max_logins, on_event=gate.take
    )
    following = asyncio.create_task(replica.run())
    try:
        await fail(agent, HOTEL, BOB, 20)

        async def denied() -> bool:
            return not (await gate.succeeded(visitor("203.0.113.1"), BOB)).allowed

        await until(denied)
        assert replica.holds_all is (max_logins == 1000)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_of_many_guesses_at_once_no_more_than_20_count(manager: Manager) -> None:
    agent = await manager.agent()

    async def guess(number: int) -> bool:
        client = Client(agent, f"203.0.113.{number}")
        return await client.password("alice", "wonderland" if number >= 20 else "x")

    assert not any(await asyncio.gather(*(guess(number) for number in range(60))))


async def test_a_guess_counts_when_the_guesser_has_gone(manager: Manager) -> None:
    agent = await manager.agent()
    for number in range(20):
        client = Client(agent, f"203.0.113.{number}")
        attempt = asyncio.create_task(client.password("alice", "x"))
        while not client.directory.asked:  # noqa: ASYNC110 - it is a step away
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
    await agent.gate.close()
    assert not await Client(agent, HOTEL).password("alice", "wonderland")
