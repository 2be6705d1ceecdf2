"""What was found out before is found out anew when anything that it depends on has changed."""

from ipaddress import IPv4Network

import pytest
from netmail_common.connmgr.model import (
    Binding,
    Decision,
    LoginProtocol,
    Reason,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import Enquiry
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.store import RevokeOrder
from netmail_connmgr.domain.table import Outcome, TableLimits

from tests.connmgr.conftest import Clock

ANY = SenderQuestion(binding=Binding.ANY)
STRICT = SenderQuestion(binding=Binding.STRICT)
ALICE, BOB = UserKey("alice", "users.demo"), UserKey("bob", "users.demo")
HOME = bytes((192, 0, 2, 7))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(clock: Clock) -> LocalDesk:
    store = MemoryStore(TableLimits(login_lifetime=900.0), clock=clock)
    desk = LocalDesk(store, NetworkMap(AddressRules()), max_users_per_network=8)

    def runs(now: float) -> None:
        desk.guard = StallGuard(now)

    clock.beat = runs
    return desk


async def log_in(desk: LocalDesk, user: UserKey, session: str = "1") -> None:
    (answer,) = await desk.register([Candidate(user, HOME, LoginProtocol.POP3, session_id=session)])
    assert answer.outcome.keeps


async def decided(desk: LocalDesk, question: SenderQuestion = ANY) -> SenderDecision:
    """What is said twice; it must be the same, and the second time need not be found out."""
    first, again = [
        (await desk.enquire([Enquiry(HOME, question, "test")]))[0].decision for _ in range(2)
    ]
    assert first == again
    return first


async def test_who_logs_in_renews_and_logs_out(desk: LocalDesk, clock: Clock) -> None:
    assert (await decided(desk)).reason is Reason.NO_LOGIN
    await log_in(desk, ALICE)
    assert (await decided(desk)).users == (ALICE,)
    clock.advance(1.0)
    await log_in(desk, BOB)
    assert (await decided(desk)).users == (BOB, ALICE)
    clock.advance(1.0)
    await log_in(desk, ALICE, "2")
    assert (await decided(desk)).users == (ALICE, BOB)
    await desk.log_out(ALICE, HOME)
    assert (await decided(desk)).users == (BOB,)
    await desk.log_out(None, HOME)
    assert (await decided(desk)).decision is Decision.MUST_AUTHENTICATE


async def test_a_login_ends_by_itself(desk: LocalDesk, clock: Clock) -> None:
    await log_in(desk, ALICE)
    assert (await decided(desk)).decision is Decision.ALLOWED
    clock.advance(899.9)
    await log_in(desk, BOB)
    assert (await decided(desk)).users == (BOB, ALICE)
    clock.advance(0.2)
    assert (await decided(desk)).users == (BOB,)
    clock.advance(900.0)
    assert (await decided(desk)).reason is Reason.EXPIRED


async def test_a_user_is_revoked(desk: LocalDesk, clock: Clock) -> None:
    await log_in(desk, ALICE)
    assert (await decided(desk)).decision is Decision.ALLOWED
    clock.advance(1.0)
    assert await desk._store.revoke(RevokeOrder(ALICE, None, 0)) == 1
    assert (await decided(desk)).decision is Decision.MUST_AUTHENTICATE


async def test_other_questions_and_other_rules(desk: LocalDesk) -> None:
    await log_in(desk, ALICE)
    assert (await decided(desk)).decision is Decision.ALLOWED
    assert (await decided(desk, STRICT)).decision is Decision.ALLOWED
    desk.limit_users(0)
    assert (await decided(desk)).decision is Decision.ALLOWED
    desk.networks = NetworkMap(AddressRules(shared_networks=(IPv4Network("192.0.2.0/24"),)))
    assert (await decided(desk)).reason is Reason.SHARED_NETWORK


async def test_a_login_without_a_session_is_admitted_by_the_networks_of_today(
    desk: LocalDesk,
) -> None:
    login = Candidate(ALICE, HOME, LoginProtocol.LEGACY_UDP)
    shared = NetworkMap(AddressRules(shared_networks=(IPv4Network("192.0.2.0/24"),)))
    outcomes = []
    for networks in (desk.networks, shared, NetworkMap(AddressRules())):
        desk.networks = networks
        outcomes += [(await desk.register([login]))[0].outcome for _ in range(2)]
    granted, not_granted = Outcome.REGISTERED, Outcome.SHARED_NETWORK
    assert outcomes == [granted] * 2 + [not_granted] * 2 + [granted] * 2


async def test_a_login_without_a_session_that_is_not_admitted_is_refused_each_time(
    desk: LocalDesk,
) -> None:
    bad, good = (
        Candidate(user, HOME, LoginProtocol.LEGACY_UDP) for user in (UserKey("a\nb", ""), ALICE)
    )
    for _ in range(2):
        answers = await desk.register([bad, good, bad])
        assert [one.outcome for one in answers] == [
            Outcome.INVALID,
            Outcome.REGISTERED,
            Outcome.INVALID,
        ]
