"""The front desk from another process: the same answers, and none that nobody gave."""

import asyncio
from typing import Any

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.config import RateLimit, RatesConfig
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    LoginProtocol,
    SenderQuestion,
    UserKey,
)
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.roles import Role
from netmail_connmgr.adapters.event_desk import EventDesk
from netmail_connmgr.adapters.grpc_service import SERVICE_NAME
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.adapters.remote_desk import RemoteDesk
from netmail_connmgr.app.workers import owner_target
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Service
from netmail_connmgr.domain.counters import CountersUnavailable
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import Enquiry, FrontDeskUnavailable, RelayedMail
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.store import LoginFilter
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.conftest import Clock, IdentityFor, Server
from tests.connmgr.one_manager import channel_to
from tests.support.installation import free_port

CLIENT = bytes([192, 0, 2, 1])
STRANGER = bytes([192, 0, 2, 2])
ALICE = UserKey("alice", "users.demo")
ANY = SenderQuestion(binding=Binding.ANY)


def login(user: UserKey = ALICE, address: bytes = CLIENT, **more: Any) -> Candidate:
    return Candidate(
        user=user,
        client_address=address,
        protocol=LoginProtocol.LEGACY_UDP,
        domains=("example.org",),
        messaging_server="mail1",
        agent="127.0.0.1",
        **more,
    )


@pytest.fixture
def desk(server: Server) -> RemoteDesk:
    return RemoteDesk(server.channel(Role.CONNMGR), timeout=60.0, clock=server.clock)


async def test_it_registers_and_decides_as_the_owner_does(server: Server, desk: RemoteDesk) -> None:
    bad = login(UserKey("al\nice", "users.demo"))
    loopback = login(address=b"\x7f\0\0\1")
    results = await desk.register([login(), bad, loopback, login(ANONYMOUS, STRANGER)])
    assert [one.outcome for one in results] == [
        Outcome.REGISTERED,
        Outcome.INVALID,
        Outcome.SHARED_NETWORK,
        Outcome.REGISTERED,
    ]
    assert results[0].remaining == 900
    questions = [Enquiry(address, ANY, "test") for address in (CLIENT, STRANGER, bytes(16))]
    remote, local = await desk.enquire(questions), await server.service.desk.enquire(questions)
    for one, other in zip(remote, local, strict=True):
        assert one.decision.decision is other.decision.decision
        assert one.decision.reason is other.decision.reason
        assert one.decision.users == other.decision.users
        assert one.decision.user_count == other.decision.user_count
        assert one.remaining == other.remaining
        assert (one.decision.login is None) is (other.decision.login is None)
        if one.decision.login is not None and other.decision.login is not None:
            assert one.decision.login.user == other.decision.login.user
            assert one.decision.login.protocol is other.decision.login.protocol
            assert one.decision.login.session_id == other.decision.login.session_id
    assert [one.decision.decision for one in remote] == [
        Decision.ALLOWED,
        Decision.ALLOWED,
        Decision.MUST_AUTHENTICATE,
    ]


async def test_mail_is_counted_by_the_owner(server: Server, desk: RemoteDesk) -> None:
    local = server.service.desk
    mail = RelayedMail(CLIENT, ALICE, False, 1, 1, "a session", "test")
    assert await desk.count_mail([mail]) == [True]  # nobody counts
    server.service.events = local.events = EventDesk(
        MemoryCounters(server.clock),
        None,
        RatesConfig(after_login=RateLimit(recipients=3)),
        server.store,
        lambda: local.networks,
        server.clock,
    )
    assert await desk.count_mail([mail, mail._replace(recipients=3)]) == [True, False]
    assert await local.count_mail([mail]) == [True]
    assert await desk.count_mail([mail, mail, mail._replace(authenticated=True)]) == [
        True,
        False,
        True,
    ]


async def test_counters_that_are_away_are_said_to_be(server: Server, desk: RemoteDesk) -> None:
    class Away:
        async def report(self, _events: object) -> Any:
            raise CountersUnavailable

        count_mail = report

    local = server.service.desk
    local.events = server.service.events = Away()  # type: ignore[assignment]
    mail = RelayedMail(CLIENT, ALICE, False, 1, 1, "", "test")
    for one in (desk, local):
        with pytest.raises(FrontDeskUnavailable):
            await one.count_mail([mail])


@pytest.mark.parametrize("binding", list(Binding))
async def test_senders_and_what_is_known_of_them_arrive(
    server: Server, desk: RemoteDesk, binding: Binding
) -> None:
    await desk.register([login()])
    bob = UserKey("bob", "users.demo")
    senders = [
        CheckedSender("a@example.org", "a@example.org", "example.org", known=True, owner=ALICE),
        CheckedSender("b@example.org", "b@example.org", "example.org", known=True, owner=bob),
        CheckedSender("c@example.org", "c@example.org", "example.org", known=True),
        CheckedSender("d@example.org", "d@example.org", "example.org"),
        CheckedSender("not an address"),
    ]
    questions = [Enquiry(CLIENT, SenderQuestion((one,), binding), "test") for one in senders]
    remote = await desk.enquire(questions)
    local = await server.service.desk.enquire(questions)
    assert [(one.decision.decision, one.decision.reason) for one in remote] == [
        (one.decision.decision, one.decision.reason) for one in local
    ]
    assert [one.decision.refused_sender for one in remote] == [
        one.decision.refused_sender for one in local
    ]


async def test_many_callers_share_calls_and_each_has_its_own_answers(desk: RemoteDesk) -> None:
    users = [UserKey(f"user{n}", "users.demo") for n in range(1200)]
    addresses = [bytes([10, 1, n // 256, n % 256]) for n in range(1200)]
    logins = [login(user, address) for user, address in zip(users, addresses, strict=True)]
    assert {one.outcome for one in await desk.register(logins)} == {Outcome.REGISTERED}
    batches = [addresses[start : start + 7] for start in range(0, 1200, 7)]
    answers = await asyncio.gather(
        *(desk.enquire([Enquiry(one, ANY, "test") for one in batch]) for batch in batches)
    )
    named = [one.decision.login and one.decision.login.user for some in answers for one in some]
    assert named == users
    assert await desk.register([]) == []
    assert await desk.enquire([]) == []


async def test_a_login_is_as_old_as_it_waited(server: Server, desk: RemoteDesk) -> None:
    await desk.register([login(age=60.5)])
    (answer,) = await desk.enquire([Enquiry(CLIENT, ANY, "test")])
    assert answer.remaining in {839, 840}


async def test_a_login_that_a_stopped_worker_hears_of_is_older_than_a_revocation_meanwhile(
    server: Server,
) -> None:
    """The owner ran on: only the worker knows that it stood still."""
    worker_clock = Clock()
    desk = RemoteDesk(server.channel(Role.CONNMGR), clock=worker_clock)
    worker_clock.stand_still(15)
    server.clock.advance(15)
    await server.service.desk.log_out(ALICE, CLIENT)
    worker_clock.stand_still(15)
    server.clock.advance(15)
    (result,) = await desk.register([login()])
    assert result.outcome is Outcome.REVOKED
    desk.guard = StallGuard(worker_clock())
    (result,) = await desk.register([login()])
    assert result.outcome is Outcome.REGISTERED


async def test_connections_are_judged_and_failures_reported(
    server: Server, desk: RemoteDesk
) -> None:
    question = ConnectionQuestion(CLIENT, Service.SMTP, "mail1", "smtp", "a", ALICE, "")
    assert await desk.check_connections([question, question]) == [ConnectionVerdict()] * 2
    await desk.login_failed(question)


async def test_logging_out_ends_a_login(server: Server, desk: RemoteDesk) -> None:
    await desk.register([login(), login(UserKey("bob", "users.demo"))])
    await desk.log_out(ALICE, CLIENT)
    page = await server.store.list_logins(LoginFilter(), 10, "")
    assert [one.user.name for one in page.logins] == ["bob"]
    await desk.log_out(None, CLIENT)
    assert await server.store.size() == 0


async def test_an_address_that_is_none_is_the_caller_s_mistake(desk: RemoteDesk) -> None:
    with pytest.raises(ValueError, match="octets"):
        await desk.enquire([Enquiry(b"\1", ANY, "test")])


async def test_without_an_owner_there_is_no_answer(identity_for: IdentityFor) -> None:
    channel = channel_to(free_port(), identity_for(Role.CONNMGR))
    desk = RemoteDesk(channel, timeout=1.0)
    question = ConnectionQuestion(CLIENT)
    for call in (
        desk.register([login()]),
        desk.enquire([Enquiry(CLIENT, ANY, "test")]),
        desk.check_connections([question]),
        desk.login_failed(question),
        desk.log_out(ALICE, CLIENT),
    ):
        with pytest.raises(FrontDeskUnavailable):
            await call
    await channel.close()


async def test_a_role_that_may_not_ask_gets_no_answer(server: Server) -> None:
    desk = RemoteDesk(server.channel(Role.DELIVER))
    with pytest.raises(FrontDeskUnavailable):
        await desk.enquire([Enquiry(CLIENT, ANY, "test")])


class Liar(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    """Answers what no Connection Manager would, or a later one."""

    def __init__(self, decision: pb.SenderDecision, times: int) -> None:
        self._results = [decision] * times

    async def CheckSender(  # noqa: N802 - the API's name
        self, request: object, context: object
    ) -> pb.CheckSenderResponse:
        return pb.CheckSenderResponse(results=self._results)


ALLOWED = pb.SenderDecision(decision=pb.DECISION_ALLOWED, reason=pb.REASON_LOGIN)


@pytest.mark.parametrize(
    ("decision", "times"),
    [
        (ALLOWED, 0),
        (ALLOWED, 2),
        (pb.SenderDecision(), 1),
        (pb.SenderDecision(decision=pb.DECISION_ALLOWED), 1),
        (pb.SenderDecision(decision=pb.DECISION_ALLOWED, reason=99), 1),  # type: ignore[arg-type] # of a later version
        (
            pb.SenderDecision(
                decision=pb.DECISION_ALLOWED, reason=pb.REASON_LOGIN, user=pb.UserKey(name="x")
            ),
            1,
        ),
    ],
)
async def test_an_answer_that_cannot_be_understood_allows_nothing(
    identity_for: IdentityFor, decision: pb.SenderDecision, times: int
) -> None:
    def register(server: grpc.aio.Server) -> None:
        liar = Liar(decision, times)  # type: ignore[abstract] # one method is enough
        connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(liar, server)

    async with grpc_server(
        listen=["127.0.0.1:0"],
        identity=identity_for(Role.CONNMGR),
        role=Role.CONNMGR,
        installation="netmail",
        register=register,
        health=Health(),
        service_names=[SERVICE_NAME],
        drain_timeout=0.1,
    ) as bound:
        channel = channel_to(bound.ports[0], identity_for(Role.CONNMGR))
        with pytest.raises(FrontDeskUnavailable):
            await RemoteDesk(channel).enquire([Enquiry(CLIENT, ANY, "test")])
        await channel.close()


def test_the_owner_is_reached_on_its_own_machine() -> None:
    assert owner_target("0.0.0.0:50051", 7) == "127.0.0.1:7"
    assert owner_target("[::]:0", 7) == "[::1]:7"
    assert owner_target("192.0.2.1:0", 7) == "192.0.2.1:7"
