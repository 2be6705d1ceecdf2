"""Replies and failures in the queue's terms; hosts that are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_smtp.domain import deliver_health
from netmail_smtp.domain.deliver_health import HostHealth
from netmail_smtp.domain.deliver_outcome import (
    Attempt,
    Delivered,
    DeliveryFailure,
    from_answer,
    from_refusal,
    from_reply,
    permanent,
    prevailing,
    temporary,
)
from netmail_smtp.protocol.client import Answer, SessionRefused, Stage
from netmail_smtp.protocol.client_extensions import Extensions
from netmail_smtp.protocol.client_reply import Reply

from tests.smtp.deliver_support import Clock

STAGES = st.sampled_from(list(Stage))
REPLIES = st.builds(
    Reply,
    st.integers(200, 559),
    st.lists(st.text(max_size=20), min_size=1, max_size=3).map(tuple),
)


@pytest.mark.parametrize(
    ("stage", "code", "status"),
    [
        (Stage.RECIPIENT, 550, "5.1.1"),
        (Stage.RECIPIENT, 552, "5.2.2"),
        (Stage.RECIPIENT, 556, "5.1.10"),
        (Stage.MAIL, 552, "5.3.4"),
        (Stage.FINAL, 554, "5.0.0"),
    ],
)
def test_a_reply_without_enhanced_code_gets_one(stage: Stage, code: int, status: str) -> None:
    failure = from_reply(Reply(code, ("no",)), stage, "mx.test")
    assert (failure.status, failure.retryable) == (status, False)


@given(STAGES, REPLIES)
def test_class_and_retryable_always_agree(stage: Stage, reply: Reply) -> None:
    outcome = from_answer(Answer(stage, reply), "mx.test", Extensions())
    if isinstance(outcome, Delivered):
        assert stage is Stage.FINAL
        assert outcome.status[0] == "2"
    else:
        assert outcome.status[0] == ("4" if outcome.retryable else "5")
        assert outcome.retryable or reply.code >= 500


@given(REPLIES)
def test_only_a_greeting_that_takes_no_mail_is_final(reply: Reply) -> None:
    for stage in (Stage.GREETING, Stage.HELLO, Stage.AUTH):
        failure = from_refusal(SessionRefused(stage, reply), "mx.test")
        final = stage is Stage.GREETING and reply.code in (521, 554)
        assert failure.retryable is not final


def test_mail_waits_while_any_host_may_come_back() -> None:
    first, second = temporary("4.4.1", "dead"), permanent("5.3.2", "no")
    assert prevailing([first, second]) is first
    assert prevailing([second, first]) is first
    assert prevailing([second]) is second


def test_the_first_outcome_of_a_recipient_stays() -> None:
    attempt = Attempt(("a", "b"))
    attempt.decide({"a": permanent("5.1.1", "no")})
    attempt.decide_rest(temporary("4.0.0", "later"))
    assert [attempt.outcomes[r].status for r in ("a", "b")] == ["5.1.1", "4.0.0"]
    assert attempt.undecided == ()


def health(clock: Clock) -> HostHealth:
    return HostHealth(first=60, longest=240, clock=clock)


def fail(table: HostHealth, host: str) -> DeliveryFailure:
    failure = temporary("4.4.1", f"{host} is dead")
    table.failed(host, failure)
    return failure


def test_failures_within_one_suspension_count_once() -> None:
    clock = Clock()
    table = health(clock)
    for _ in range(10):
        first = fail(table, "a")
    assert table.suspended("a") == first
    clock.now += 60
    assert table.suspended("a") is None
    fail(table, "a")
    clock.now += 119
    assert table.suspended("a") is not None
    clock.now += 1
    assert table.suspended("a") is None


def test_a_good_session_forgets_all_failures() -> None:
    clock = Clock()
    table = health(clock)
    fail(table, "a")
    clock.now += 60
    assert not table.proven("a")
    table.succeeded("a")
    assert table.proven("a")
    fail(table, "a")
    clock.now += 60
    assert table.suspended("a") is None
    assert not table.proven("a")


def test_the_table_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver_health, "_MAX_HOSTS", 10)
    clock = Clock()
    table = health(clock)
    fail(table, "dead")
    for number in range(100):
        table.succeeded(f"host{number}")
        assert len(table._hosts) <= 10
    assert table.suspended("dead") is not None, "who is suspended is kept longest"
    for number in range(100):
        fail(table, f"bad{number}")
        assert len(table._hosts) <= 10
