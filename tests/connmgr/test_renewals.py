"""Knowing which logins were renewed lately changes what a renewal costs, and nothing else."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import (
    ANONYMOUS,
    LoginProtocol,
    Profile,
    Registration,
    Revocation,
    UserKey,
)
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.renewals import KnownLogin, Renewals
from netmail_connmgr.domain.table import LoginTable, TableLimits

PLACES = [b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x01-"]
DOMAINS = [frozenset({"example.org"}), frozenset({"example.net"})]
PROFILES = [
    Profile(UserKey("alice", "users.demo"), ("a@example.org",), ("a@example.org",), DOMAINS[0]),
    Profile(UserKey("alice", "users.demo"), ("b@example.org",), ("b@example.org",), DOMAINS[0]),
    Profile(UserKey("alice", "users.demo"), ("a@example.org",), ("a@example.org",), DOMAINS[1]),
    Profile(ANONYMOUS),
]
LIFETIME = 900.0

FIRST = Registration(
    PROFILES[0], PLACES[0], PLACES[0], LoginProtocol.LEGACY_UDP, "mail1", "agent", "", 0.0, 1
)

DIFFERENCES: list[dict[str, Any]] = [
    {},
    *({"profile": profile} for profile in PROFILES),
    {"place": PLACES[1]},
    {"client_address": b"\xc0\x00\x02\x02"},
    {"protocol": LoginProtocol.POP3},
    {"messaging_server": "mail2"},
    {"credential_epoch": None},
    {"credential_epoch": 2},
    {"renewal": True},
    {"age": 30.0},
    {"age": 1000.0},
    {"session_id": ""},
    {"session_id": "s2"},
    {"session_id": "s2", "renewal": True},
]
"""What a registration may say that the one before did not."""
PASSED = [0.0, 0.3, 1.0, 29.0, 60.0, 899.0, 900.0, 901.0]

revocations = st.builds(
    Revocation,
    made=st.just(0.0),
    user=st.sampled_from([None, PROFILES[0].user]),
    network=st.sampled_from([None, PLACES[0]]),
    credential_epoch=st.sampled_from([0, 2]),
).filter(lambda one: one.user is not None or one.network is not None)
steps = st.lists(
    st.tuples(st.sampled_from(PASSED), st.just({}) | st.sampled_from(DIFFERENCES) | revocations),
    max_size=30,
)


class _Forgetful(Renewals):
    """Knows no login, so that the table looks at each registration in full."""

    def learn(self, known: KnownLogin) -> None:
        """Does not."""


def table(renewals: Renewals) -> LoginTable:
    one = LoginTable(TableLimits(LIFETIME), ChangeLog())
    one._renewals = renewals
    return one


class _Both:
    """A table that knows renewed logins, and one that does not: nobody can tell them apart."""

    def __init__(self) -> None:
        self.tables = knowing, plain = table(Renewals(4)), table(_Forgetful(4))
        self.knowing, self.plain = knowing, plain

    def register(self, registration: Registration, now: float) -> None:
        answers = [one.register(registration, now) for one in self.tables]
        assert answers[0] == answers[1]
        self.compare(now)

    def revoke(self, revocation: Revocation) -> None:
        gone = [one.revoke(revocation) for one in self.tables]
        assert gone[0] == gone[1]
        self.compare(revocation.made)

    def compare(self, now: float) -> None:
        assert self.knowing.snapshot() == self.plain.snapshot()
        assert self.knowing.changes.revision == self.plain.changes.revision
        assert self.knowing.packer.origins._uses == self.plain.packer.origins._uses
        for place in PLACES:
            assert self.knowing.find(place, now) == self.plain.find(place, now)


@given(steps)
def test_a_table_that_knows_renewed_logins_is_the_same_table(
    events: list[tuple[float, dict[str, Any] | Revocation]],
) -> None:
    both, now, last = _Both(), 1000.5, FIRST
    for number, (passed, event) in enumerate(events):
        now += passed
        if isinstance(event, Revocation):
            both.revoke(replace(event, made=now))
        else:
            last = last._replace(**{"session_id": f"s{number}", "age": 0.0, **event})
            both.register(last, now)


@pytest.mark.parametrize("passed", PASSED)
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_a_known_login_that_says_something_else_is_looked_at_in_full(
    difference: dict[str, Any], passed: float
) -> None:
    both, now = _Both(), 1000.5
    for number in range(3):
        both.register(FIRST._replace(session_id=f"s{number}"), now)
    for number in range(3, 5):
        now += passed
        both.register(FIRST._replace(**{"session_id": f"s{number}", **difference}), now)


def test_a_login_does_not_end_earlier_for_one_more_that_is_older() -> None:
    both = _Both()
    for number in range(3):
        both.register(FIRST._replace(session_id=f"s{number}", renewal=True, age=100.0), 1000.5)
    both.register(FIRST._replace(session_id="s3", age=90.0), 1010.5)


def test_a_login_that_says_the_same_again_is_not_looked_at_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = table(Renewals(4))
    looked = Mock(wraps=one.packer.session_at)
    monkeypatch.setattr(one.packer, "session_at", looked)
    for number in range(10):
        answer = one.register(FIRST._replace(session_id=f"s{number}"), 1000.0 + number)
        assert answer.remaining == LIFETIME
        assert answer.renewed == bool(number)
    assert looked.call_count == 1  # at the second: it is the first renewal
    (login,) = one.find(FIRST.place, 1010.0).logins
    assert (login.session_id, login.verified) == ("s9", 1009.0)


def test_only_so_many_logins_are_known() -> None:
    renewals = Renewals(4)
    one = table(renewals)
    for number in range(30):
        user = UserKey(f"user{number % 10}", "users.demo")
        profile = FIRST.profile._replace(user=user)
        one.register(FIRST._replace(profile=profile, session_id=f"s{number}"), 1000.0)
    assert len(renewals) == 4
