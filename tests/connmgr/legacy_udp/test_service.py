"""UDP port 689 on real sockets: NetMail's agents register, ask, and are answered."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from random import Random

import pytest
import structlog
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    LoginProtocol,
    Reason,
    SenderQuestion,
    UserKey,
)
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Verdict
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import Enquiry
from netmail_connmgr.domain.store import LoginFilter
from netmail_connmgr.domain.table import TableLimits
from netmail_connmgr.protocol.legacy_udp.layout import Layout
from prometheus_client import REGISTRY

from tests.connmgr.legacy_udp.agents import agent
from tests.connmgr.legacy_udp.conftest import Serve, Served
from tests.connmgr.legacy_udp.vectors import vectors

CLIENT = "192.0.2.1"
STRANGER = "192.0.2.2"

every_layout = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name)


async def logins(served: Served) -> list[tuple[UserKey, str]]:
    """User and address of every live login."""
    page = await served.store.list_logins(LoginFilter(), 1000, "")
    return [(login.user, str(ip_address(login.client_address))) for login in page.logins]


def faults(fault: str) -> float:
    """How often there was one so far."""
    value = REGISTRY.get_sample_value("netmail_connmgr_udp_faults_total", {"fault": fault})
    return value or 0.0


@every_layout
async def test_an_agent_stores_and_another_finds_the_name(serve: Serve, layout: Layout) -> None:
    async with serve() as served, agent(served.port, layout) as pop, agent(served.port) as smtp:
        await pop.store(CLIENT, "alice")
        assert await pop.check(CLIENT) == (1, "")
        assert await pop.check(CLIENT, name=True) == (2, "alice")
        assert await smtp.check(CLIENT, name=True) == (2, "alice")
        assert await smtp.check(STRANGER) == (0, "")
        assert await smtp.check(STRANGER, name=True) == (0, "")
        assert await logins(served) == [(UserKey("alice", "users.demo"), CLIENT)]


@every_layout
async def test_a_store_without_a_name_is_found_without_one(serve: Serve, layout: Layout) -> None:
    async with serve() as served, agent(served.port, layout) as pop:
        await pop.store(CLIENT)
        assert await pop.check(CLIENT) == (1, "")
        assert await pop.check(CLIENT, name=True) == (1, "")
        assert await logins(served) == [(ANONYMOUS, CLIENT)]


@every_layout
async def test_an_authenticated_agent_registers_and_relays(serve: Serve, layout: Layout) -> None:
    async with serve() as served, agent(served.port, layout) as pop, agent(served.port) as smtp:
        denied = await smtp.relay(CLIENT)
        assert (denied.result, denied.text) == (1, "")
        assert (await pop.authenticated(CLIENT, "alice")).result == 0
        allowed = await smtp.relay(CLIENT)
        assert (allowed.result, allowed.text, allowed.comment) == (3, "alice", "")
        assert (await smtp.relay(STRANGER)).result == 1


async def test_both_protocols_see_one_table(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as old, agent(served.port) as new:
        await old.store(CLIENT, "alice")
        assert await old.check(CLIENT) == (1, "")
        assert (await new.relay(CLIENT)).text == "alice"
        await new.authenticated(STRANGER, "bob")
        assert await old.check(STRANGER, name=True) == (2, "bob")


async def test_the_password_of_one_agent_is_good_for_its_neighbours_on_the_host(
    serve: Serve,
) -> None:
    async with serve() as served, agent(served.port) as one, agent(served.port) as other:
        await one.relay(CLIENT)
        other.password = one.password
        assert (await other.ask_once(1, "RELAY", CLIENT)).result == 1
        other.password = b"0" * 32
        assert (await other.ask_once(1, "RELAY", CLIENT)).result == 4
        assert (await other.ask(2, "NOTHING", CLIENT)).result == 0


async def test_the_password_of_one_host_is_none_for_another(serve: Serve) -> None:
    async with (
        serve(allowed_sources=["127.0.0.0/8"]) as served,
        agent(served.port) as host,
        agent(served.port, host="127.0.0.2") as other,
    ):
        await host.relay(CLIENT)
        other.password = host.password
        assert (await other.ask_once(1, "RELAY", CLIENT)).result == 4
        assert (await other.relay(CLIENT)).result == 1
        assert other.password != host.password


async def test_the_newest_login_is_named_and_a_login_ends_with_its_time(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as host:
        await host.store(CLIENT, "alice")
        await host.check(CLIENT)
        served.clock.advance(600)
        await host.store(CLIENT, "bob")
        assert await host.check(CLIENT, name=True) == (2, "bob")
        await host.store(CLIENT)
        assert await host.check(CLIENT, name=True) == (2, "bob")
        await host.store(CLIENT, "alice")
        served.clock.advance(1)
        assert await host.check(CLIENT, name=True) == (2, "alice")
        served.clock.advance(900)
        assert await host.check(CLIENT) == (0, "")
        assert (await host.relay(CLIENT)).result == 1


async def test_every_login_renews(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as host:
        for _ in range(5):
            await host.authenticated(CLIENT, "alice")
            served.clock.advance(800)
        assert (await host.relay(CLIENT)).result == 3


async def test_a_login_without_a_name_lets_our_own_agents_relay_under_any_only(
    serve: Serve,
) -> None:
    async with serve() as served, agent(served.port) as host:
        await host.store(CLIENT)
        assert (await host.check(CLIENT))[0] == 1
        sender = CheckedSender("a@example.org", "a@example.org", "example.org", known=True)
        for binding, decision in (
            (Binding.STRICT, Decision.DENIED),
            (Binding.DOMAIN, Decision.DENIED),
            (Binding.ANY, Decision.ALLOWED),
        ):
            for senders in ((sender,), ()):
                question = SenderQuestion(senders, binding)
                (answer,) = await served.desk.enquire(
                    [Enquiry(bytes(map(int, CLIENT.split("."))), question, "test")]
                )
                assert answer.decision.decision is decision, (binding, senders)
                if decision is Decision.DENIED:
                    assert answer.decision.reason is Reason.NO_USER


@pytest.mark.parametrize("address", ["100.64.0.1", "169.254.0.1", "224.0.0.1", "0.0.0.1"])
async def test_networks_that_never_grant_are_answered_no(serve: Serve, address: str) -> None:
    async with serve() as served, agent(served.port) as host:
        assert (await host.authenticated(address, "alice")).result == 0
        await host.store(address, "alice")
        assert await host.check(address) == (0, "")
        assert (await host.relay(address)).result == 1


async def test_names_of_other_contexts_are_told_with_them(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as host:
        await host.authenticated(CLIENT, "alice@guests.demo")
        assert (await logins(served))[0][0] == UserKey("alice", "guests.demo")
        assert (await host.relay(CLIENT)).text == "alice.guests.demo"
        await host.authenticated(STRANGER, "bob@example.org")
        assert (await host.relay(STRANGER)).text == "bob@example.org"


async def test_bare_names_are_of_the_context_that_is_set(serve: Serve) -> None:
    async with serve(default_context="guests.demo") as served, agent(served.port) as host:
        await host.authenticated(CLIENT, "alice")
        assert await logins(served) == [(UserKey("alice", "guests.demo"), CLIENT)]
        assert (await host.relay(CLIENT)).text == "alice"
        page = await served.store.list_logins(LoginFilter(), 10, "")
        assert page.logins[0].messaging_server == "mail1"
        assert page.logins[0].profile.domains == frozenset({"example.org"})
        assert page.logins[0].protocol is LoginProtocol.LEGACY_UDP


async def test_a_name_too_long_with_its_context_is_left_out_and_not_cut(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as host:
        long = UserKey("x" * 250, "guests.demo")
        candidate = Candidate(long, bytes([192, 0, 2, 1]), LoginProtocol.IMAP, credential_epoch=1)
        await served.desk.register([candidate])
        answer = await host.relay(CLIENT)
        assert (answer.result, answer.text) == (3, "")


async def test_a_name_of_control_characters_is_refused_without_a_log_line(serve: Serve) -> None:
    with structlog.testing.capture_logs() as lines:
        async with serve() as served, agent(served.port) as host:
            before = faults("name")
            await host.store(CLIENT, "al\nice")
            assert (await host.authenticated(CLIENT, "al\x7fice")).result == 200
            assert await host.check(CLIENT) == (0, "")
            assert faults("name") == before + 2
    assert "login refused" not in [line["event"] for line in lines]


async def test_events_that_are_only_counted_register_and_revoke_nothing(serve: Serve) -> None:
    async with serve() as served, agent(served.port) as host:
        await host.authenticated(CLIENT, "alice")
        for event in ("DISCONNECTED", "delivered", "Received", "VIRUS FOUND", "OTHER"):
            assert (await host.ask(2, event, CLIENT)).result == 0
        assert (await host.ask(2, "AUTHENTICATED", STRANGER, b"\0")).result == 0
        assert len(await logins(served)) == 1
        assert (await host.ask(1, "EXPN", CLIENT)).result == 1
        assert (await host.ask(7, "RELAY", CLIENT)).result == 101


class Judge:
    """Rules about connections that say what they are told to."""

    def __init__(self, verdict: ConnectionVerdict) -> None:
        self.every_connection = True
        self.verdict = verdict
        self.asked: list[ConnectionQuestion] = []

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        self.asked.extend(questions)
        return [self.verdict] * len(questions)

    async def explain(self, question: ConnectionQuestion) -> tuple[ConnectionVerdict, list[str]]:
        await self.check([question])
        return self.verdict, []


@every_layout
@pytest.mark.parametrize(
    ("verdict", "result", "comment", "require_auth"),
    [
        (ConnectionVerdict(), 3, "", 0),
        (ConnectionVerdict(Verdict.DENY_TEMPORARY), 1, "Connection refused", 0),
        (ConnectionVerdict(Verdict.DENY_PERMANENT, "Listed by\r\n x"), 2, "Listed by x", 0),
        (ConnectionVerdict(comment="No name", require_auth=True), 3, "No name", 1),
        (
            ConnectionVerdict(require_auth=True),
            3,
            "Your address has no reverse name, please authenticate",
            1,
        ),
    ],
)
async def test_connections_are_judged_by_the_rules(
    serve: Serve,
    layout: Layout,
    verdict: ConnectionVerdict,
    result: int,
    comment: str,
    require_auth: int,
) -> None:
    judge = Judge(verdict)
    async with serve() as served, agent(served.port, layout) as smtp:
        served.desk.connections = judge
        answer = await smtp.connect(CLIENT)
    assert (answer.result, answer.comment) == (result, comment)
    assert int.from_bytes(answer.detail[:4], layout.order) == require_auth
    assert not any(answer.detail[4:])
    assert [question.client_address for question in judge.asked] == [bytes([192, 0, 2, 1])]


async def test_others_get_silence_whatever_they_send(serve: Serve) -> None:
    async with (
        serve() as served,
        agent(served.port, host="127.0.0.2") as stranger,
        agent(served.port) as host,
    ):
        before = faults("source not allowed")
        sent = [data for _, data in sorted(vectors().items(), key=str)]
        for data in sent:
            await stranger.send(data)
        assert await host.check("192.0.2.1") == (0, "")
        with pytest.raises(TimeoutError):
            await stranger.reply(0.1)
        assert faults("source not allowed") == before + len(sent)
        assert await logins(served) == []


@pytest.mark.parametrize("seed", range(5))
async def test_garbage_costs_a_count_and_at_most_one_line(serve: Serve, seed: int) -> None:
    random = Random(seed)
    sizes = [0, 1, 19, 20, 21, 39, 40, 276, 277, 296, 297, 343, 345, 369, 512, 1400, 9000]
    with structlog.testing.capture_logs() as lines:
        async with serve() as served, agent(served.port) as host:
            for _ in range(100):
                data = bytearray(random.randbytes(random.choice(sizes)))
                data[:8] = b"\xff" * min(8, len(data))  # no request has such a number
                assert len(data) not in {344, 368}
                await host.send(bytes(data))
            assert await host.check(CLIENT) == (0, "")
            assert await logins(served) == []
    assert len([line for line in lines if "UDP 689: datagrams refused" in line["event"]]) <= 1


async def test_without_a_credential_only_the_plain_protocol_is_answered(serve: Serve) -> None:
    async with serve(access_hash_file=None) as served, agent(served.port) as host:
        assert await host.gets_silence(host.request(1, "RELAY", CLIENT))
        assert await host.check(CLIENT) == (0, "")


async def test_the_plain_protocol_is_off_unless_it_is_asked_for(serve: Serve) -> None:
    async with serve(plain=False) as served, agent(served.port) as host:
        assert await host.gets_silence(host.plain(1, CLIENT))
        await host.store(CLIENT, "alice")
        assert (await host.relay(CLIENT)).result == 1


async def test_a_full_table_is_a_failure_of_the_database(serve: Serve) -> None:
    async with serve(TableLimits(max_logins=1)) as served, agent(served.port) as host:
        assert (await host.authenticated(CLIENT, "alice")).result == 0
        assert (await host.authenticated(STRANGER, "bob")).result == 102


async def test_a_registration_that_lay_in_a_stopped_process_is_as_old_as_that(
    serve: Serve,
) -> None:
    async with serve() as served, agent(served.port) as host:
        await host.authenticated(CLIENT, "alice")
        served.clock.stand_still(15)
        await served.desk.log_out(UserKey("alice", "users.demo"), bytes([192, 0, 2, 1]))
        served.clock.stand_still(15)
        assert (await host.authenticated(CLIENT, "alice")).result == 102
        assert (await host.relay(CLIENT)).result == 1


async def test_a_thousand_questions_at_once_are_all_answered(serve: Serve) -> None:
    async with serve() as served, agent(served.port, Layout.LP64_LITTLE) as host:
        await host.authenticated(CLIENT, "alice")
        question = host.request(1, "RELAY", CLIENT)
        for _ in range(10):
            for _ in range(100):
                await host.send(question)
            for _ in range(100):
                assert (await host.reply())[:1] == b"\3"


async def test_more_than_may_wait_waits_with_the_kernel(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_connmgr.adapters.legacy_udp_service._MAX_WAITING", 2)
    gate = asyncio.Event()

    class SlowJudge(Judge):
        async def check(
            self, questions: Sequence[ConnectionQuestion]
        ) -> Sequence[ConnectionVerdict]:
            await gate.wait()
            return await super().check(questions)

    judge = SlowJudge(ConnectionVerdict())
    async with serve() as served, agent(served.port) as host, agent(served.port) as other:
        await other.relay(CLIENT)
        host.password = other.password
        served.desk.connections = judge
        for _ in range(2):
            await host.send(host.request(1, "CONNECT", CLIENT))
        async with asyncio.timeout(20):
            while not await other.gets_silence(other.request(1, "RELAY", CLIENT)):
                pass
        gate.set()
        assert (await other.reply())[:1] == b"\1"
        for _ in range(2):
            assert (await host.reply())[:1] == b"\3"
