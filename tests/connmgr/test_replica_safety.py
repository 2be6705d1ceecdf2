"""The replica allows nothing that the table would not have allowed within max_staleness.

Whatever happens, and in whatever order: logins, renewals, repetitions, expiry, revocations, stopped
processes, torn and stalled streams, a server that is killed, a store that fails. The real replica,
stream and table run against a model. The mutants prove that the test notices what it is about.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from netmail_common.connmgr.held import HeldPlaces
from netmail_common.connmgr.replica import LoginReplica
from netmail_common.connmgr.replica_table import ReplicaTable
from netmail_common.connmgr.watcher import Watcher
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.marks import RevocationMarks
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.table import LoginTable

from tests.connmgr.replica_world import (
    ADDRESSES,
    LIFETIME,
    MAX_STALENESS,
    USERS,
    Login,
    World,
    granting,
)

users = st.sampled_from(USERS)
addresses = st.sampled_from(ADDRESSES)
ages = st.sampled_from([0.0, 0.0, 0.0, 1.0, LIFETIME - 1, LIFETIME])
seconds = st.sampled_from([0.001, 0.4, 2.0, 4.0, MAX_STALENESS - 1, MAX_STALENESS + 1, LIFETIME])


def wrongly_allows(world: World) -> bool:
    """Whether the replica would allow now what the table did not within max_staleness."""
    first = world.now - MAX_STALENESS - 0.000_001
    return any(
        world.replica_allows(user, address) and not world.was_allowed(user, address, first)
        for user in USERS
        for address in ADDRESSES
    )


class ReplicaMachine(RuleBasedStateMachine):
    """Everything that can happen, in any order."""

    @initialize(max_logins=st.sampled_from([1_000_000, 1, 2]))
    def begin(self, max_logins: int) -> None:
        self.world = World(max_logins, self.nothing_is_allowed_that_may_not_be)
        self.world.settle()
        self.fits = max_logins > 1
        """Whether the replica has room for a network with both users."""
        self.epochs = dict.fromkeys(USERS, 1)
        self.logins: list[Login] = []

    @rule(user=users, address=addresses, age=ages, old_password=st.booleans())
    def log_in(self, user: str, address: bytes, age: float, old_password: bool) -> None:
        world, epoch = self.world, self.epochs[user]
        one = Login(
            user,
            address,
            f"session {len(self.logins)}",
            world.now - age,
            max(1, epoch - old_password),
        )
        self.logins.append(one)
        world.register(one, renewal=False)
        world.settle()

    @rule(which=st.integers(0, 10), renewal=st.booleans())
    def tell_again(self, which: int, renewal: bool) -> None:
        """A renewal, a retry, or what an agent says after the server has come back."""
        if self.logins:
            self.world.register(self.logins[-1 - which % len(self.logins)], renewal=renewal)
            self.world.settle()

    @rule(user=users, address=st.one_of(st.just(b""), addresses))
    def revoke_user(self, user: str, address: bytes) -> None:
        self.world.revoke(user, address, 0)
        self.world.settle()

    @rule(address=addresses)
    def revoke_address(self, address: bytes) -> None:
        self.world.revoke("", address, 0)
        self.world.settle()

    @rule(user=users)
    def change_password(self, user: str) -> None:
        self.epochs[user] += 1
        self.world.revoke(user, b"", self.epochs[user])
        self.world.settle()

    @rule(user=users, address=addresses)
    def ask(self, user: str, address: bytes) -> None:
        if self.world.ask(user, address):
            self.must_hold(self.world.table_allows(user, address))

    @rule(some=seconds)
    def time_passes(self, some: float) -> None:
        self.world.pass_time(some)

    @rule(some=st.sampled_from([2.0, MAX_STALENESS + 1]), meanwhile=users)
    def the_server_is_stopped(self, some: float, meanwhile: str) -> None:
        """What comes meanwhile lies in its sockets."""
        world = self.world
        world.server.running = False
        world.register(Login(meanwhile, ADDRESSES[0], "stopped", world.now, 1), renewal=False)
        world.pass_time(some / 2)
        world.revoke(meanwhile, b"", 0)
        world.pass_time(some / 2)
        self.nothing_is_allowed_that_may_not_be()
        world.calls.reverse()  # another connection's may be read first
        world.server.running = True
        world.settle()

    @rule(some=st.sampled_from([2.0, MAX_STALENESS + 1]), user=users)
    def the_agent_is_stopped(self, some: float, user: str) -> None:
        """A client that came meanwhile may be answered before anything else is read."""
        world = self.world
        world.agent.running = False
        world.pass_time(some / 2)
        world.revoke(user, b"", 0)
        world.pass_time(some / 2)
        world.agent.running = True
        self.nothing_is_allowed_that_may_not_be()
        world.settle()

    @rule()
    def the_stream_is_torn(self) -> None:
        self.world.tear()

    @rule(up=st.booleans())
    def the_network(self, up: bool) -> None:
        """What is sent meanwhile waits for it."""
        self.world.network_up = up
        self.world.settle()

    @rule(user=users, address=addresses, told_at_once=st.booleans())
    def the_server_is_killed(self, user: str, address: bytes, told_at_once: bool) -> None:
        """Some agents tell it of their logins before others have found it again."""
        self.world.crash_server()
        if told_at_once:
            self.log_in(user, address, 0.0, old_password=False)
        self.world.settle()

    @rule(down=st.booleans())
    def the_store(self, down: bool) -> None:
        self.world.store.down = down

    @invariant()
    def nothing_is_allowed_that_may_not_be(self) -> None:
        self.must_hold(not wrongly_allows(self.world))

    def must_hold(self, safe: bool) -> None:
        assert safe

    def teardown(self) -> None:
        """When all is well again the replica knows what the table does."""
        world = self.world
        try:
            world.network_up, world.store.down = True, False
            world.pass_time(2 * MAX_STALENESS)
            self.nothing_is_allowed_that_may_not_be()
            assert world.replica.fresh
            for user in USERS:
                for address in granting(ADDRESSES):
                    if world.ask(user, address):
                        world.pass_time(1.0)
                        still = world.ask(user, address)
                        has_it = world.replica_allows(user, address)
                        assert has_it or not still or not self.fits
        finally:
            world.end()


_MANY: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
TestReplica = ReplicaMachine.TestCase
TestReplica.settings = settings(max_examples=60, stateful_step_count=40, **_MANY)


# Each takes away one thing that the promise rests on.


def _without_staleness(patch: pytest.MonkeyPatch) -> None:
    begin = LoginReplica.__init__

    def patient(self: LoginReplica, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        self._max_staleness = float("inf")

    patch.setattr(LoginReplica, "__init__", patient)


def _age_counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    beaten = Watcher._beaten

    def late(self: Watcher, heartbeat: Any) -> None:
        beaten(self, heartbeat)
        if self.fresh_at:
            self.fresh_at = self._clock()

    patch.setattr(Watcher, "_beaten", late)


def _without_marks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RevocationMarks, "refuse", lambda *_: None)


def _without_the_stalls_of_the_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StallGuard, "lost", lambda *_: 0.0)


def _revocations_end_no_login(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LoginTable, "_candidates", lambda *_: [])


def _the_replica_removes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplicaTable, "remove", lambda *_: None)


def _logins_do_not_expire_in_the_replica(patch: pytest.MonkeyPatch) -> None:
    at = ReplicaTable.at
    patch.setattr(ReplicaTable, "at", lambda self, place, _now, limit: at(self, place, 0.0, limit))
    patch.setattr(ReplicaTable, "drop_expired", lambda *_: None)


def _a_new_table_counts_as_the_old(patch: pytest.MonkeyPatch) -> None:
    """Whatever the watcher names, the server takes for its own."""
    begin = MemoryStore.__init__

    def same(self: MemoryStore, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        self.instance_id = self.clock_id = "always the same"

    patch.setattr(MemoryStore, "__init__", same)


def _the_replica_keeps_what_it_had(patch: pytest.MonkeyPatch) -> None:
    clear = ReplicaTable.clear
    patch.setattr(
        ReplicaTable, "clear", lambda self, *_: None if hasattr(self, "_records") else clear(self)
    )


def _networks_let_go_stay_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HeldPlaces, "__contains__", lambda *_: True)
    patch.setattr(ReplicaTable, "remove_place", lambda *_: None)


# What brings each to light, in as few steps as there are.

HOME, ELSEWHERE = ADDRESSES[0], ADDRESSES[2]
LONG = MAX_STALENESS + 1


def _alice(world: World) -> Login:
    one = Login("alice", HOME, "alice's", world.now, 1)
    world.register(one, renewal=False)
    world.pass_time(3.0)
    return one


def _revoke_alice(world: World) -> None:
    world.revoke("alice", b"", 0)
    world.settle()


def _cut_off(world: World) -> None:
    _alice(world)
    world.network_up = False
    _revoke_alice(world)
    world.pass_time(LONG)


def _stopped_with_an_answer_in_its_socket(world: World) -> None:
    _alice(world)
    world.network_up = False
    world.pass_time(3.0)  # a nonce is under way
    world.agent.running, world.network_up = False, True
    world.pass_time(1.0)  # the server answers it
    _revoke_alice(world)
    world.pass_time(LONG)
    world.agent.running = True
    world.settle()


def _told_again(world: World) -> None:
    one = _alice(world)
    _revoke_alice(world)
    world.register(one, renewal=True)
    world.pass_time(LONG)


def _server_stopped(world: World) -> None:
    world.pass_time(3.0)
    world.server.running = False
    world.register(Login("alice", HOME, "alice's", world.now, 1), renewal=False)
    world.pass_time(1.0)
    world.revoke("alice", b"", 0)
    world.pass_time(1.0)
    world.calls.reverse()
    world.server.running = True
    world.pass_time(LONG)


def _revoked(world: World) -> None:
    _alice(world)
    _revoke_alice(world)
    world.pass_time(LONG)


def _expired(world: World) -> None:
    _alice(world)
    world.pass_time(LIFETIME + LONG)


def _killed(world: World) -> None:
    _alice(world)
    world.crash_server()
    world.register(Login("bob", ELSEWHERE, "bob's", world.now, 1), renewal=False)
    world.settle()
    world.pass_time(LONG)


def _let_go(world: World) -> None:
    _alice(world)
    world.register(Login("bob", ELSEWHERE, "bob's", world.now, 1), renewal=False)
    world.pass_time(3.0)
    for user, address in (("alice", HOME), ("bob", ELSEWHERE)):
        assert world.ask(user, address)
        world.pass_time(3.0)
    assert world.replica_allows("bob", ELSEWHERE)
    _revoke_alice(world)
    world.pass_time(LONG)


Mutant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: list[tuple[Mutant, Callable[[World], None]]] = [
    (_without_staleness, _cut_off),
    (_age_counts_from_the_answer, _stopped_with_an_answer_in_its_socket),
    (_without_marks, _told_again),
    (_without_the_stalls_of_the_server, _server_stopped),
    (_revocations_end_no_login, _revoked),
    (_the_replica_removes_nothing, _revoked),
    (_logins_do_not_expire_in_the_replica, _expired),
    (_a_new_table_counts_as_the_old, _killed),
    (_the_replica_keeps_what_it_had, _killed),
    (_networks_let_go_stay_held, _let_go),
]
FOUND_BY_CHANCE: list[Mutant] = [
    _without_staleness,
    _without_marks,
    _revocations_end_no_login,
    _the_replica_removes_nothing,
]
"""What any order of events brings to light soon; the others need theirs."""


def _wrongly_allowed(scenario: Callable[[World], None], max_logins: int) -> bool:
    """Whether anything was allowed at any time of the scenario that may not be."""
    wrong: list[bool] = []
    world = World(max_logins, lambda: wrong.append(wrongly_allows(world)))
    try:
        scenario(world)
        return wrongly_allows(world) or any(wrong)
    finally:
        world.end()


def _name(value: object) -> str:
    return getattr(value, "__name__", "").strip("_")


@pytest.mark.parametrize(("mutant", "scenario"), MUTANTS, ids=_name)
def test_each_safeguard_is_needed(
    mutant: Mutant, scenario: Callable[[World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    max_logins = 1 if scenario is _let_go else 1_000_000
    assert not _wrongly_allowed(scenario, max_logins)
    mutant(monkeypatch)
    assert _wrongly_allowed(scenario, max_logins)


class Watched(ReplicaMachine):
    """Only writes down that something was allowed: a mutant must allow too much, not too little."""

    found: ClassVar[bool] = False

    def must_hold(self, safe: bool) -> None:
        Watched.found = Watched.found or not safe

    def teardown(self) -> None:
        self.world.end()


@pytest.mark.parametrize("mutant", FOUND_BY_CHANCE, ids=_name)
def test_any_order_of_events_notices_what_is_taken_away(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    monkeypatch.setattr(Watched, "found", False)
    for seed in range(20):
        if not Watched.found:
            run_state_machine_as_test(
                hypothesis_seed(seed)(Watched),
                settings=settings(
                    max_examples=10,
                    stateful_step_count=40,
                    database=None,
                    phases=[Phase.generate],
                    **_MANY,
                ),
            )
    assert Watched.found
