"""The retry schedule."""

from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import QueueConfig
from netmail_nmap.domain.retry import GiveUp, RetryLater, RetrySchedule

SCHEDULE = RetrySchedule.from_config(QueueConfig())
PLAIN = RetrySchedule(
    first_retry=300, max_retry=14400, jitter=0, lifetime=432000, delay_warning=14400
)


def delay(schedule: RetrySchedule, attempt: int, age: float = 0, random: float = 0) -> float:
    step = schedule.after(attempt=attempt, age=age, warned=True, random=lambda: random)
    assert isinstance(step, RetryLater)
    return step.delay


def test_delays_double_up_to_the_longest() -> None:
    assert [delay(PLAIN, n) for n in range(1, 9)] == [
        300, 600, 1200, 2400, 4800, 9600, 14400, 14400,
    ]  # fmt: skip


def test_jitter_shortens_by_its_share_at_most() -> None:
    assert delay(SCHEDULE, 1, random=0) == 300
    assert delay(SCHEDULE, 1, random=0.5) == 270
    assert delay(SCHEDULE, 1, random=1) == 240


def test_the_last_attempt_is_made_when_the_lifetime_ends() -> None:
    assert delay(PLAIN, 30, age=432000 - 60) == 60
    step = PLAIN.after(attempt=31, age=432000, warned=True, random=lambda: 0)
    assert step == GiveUp()


def test_the_sender_is_warned_once_and_not_before_its_time() -> None:
    def warn(age: float, *, warned: bool) -> bool:
        step = PLAIN.after(attempt=5, age=age, warned=warned, random=lambda: 0)
        assert isinstance(step, RetryLater)
        return step.warn

    assert not warn(14399, warned=False)
    assert warn(14400, warned=False)
    assert not warn(14400, warned=True)


@given(
    attempt=st.integers(1, 10**6),
    age=st.floats(0, 431_999),
    random=st.floats(0, 1, exclude_max=True),
)
def test_every_delay_is_within_its_bounds(attempt: int, age: float, random: float) -> None:
    step = SCHEDULE.after(attempt=attempt, age=age, warned=False, random=lambda: random)
    assert isinstance(step, RetryLater)
    assert 0 < step.delay <= SCHEDULE.max_retry
    assert step.delay >= min(SCHEDULE.first_retry * 0.8, SCHEDULE.lifetime - age)
