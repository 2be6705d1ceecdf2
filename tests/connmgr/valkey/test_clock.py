"""A partition's clock, from afar."""

from hypothesis import given
from hypothesis import strategies as st
from netmail_connmgr.adapters.valkey.clock import MICROSECONDS, PartitionClock

AHEAD = 1_700_000_000.0


def shown_at(time: float, ahead: float = AHEAD) -> int:
    return int((time + ahead) * MICROSECONDS)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.001, 30)), min_size=1))
def test_logins_never_end_later_here_than_there(trips: list[tuple[float, float, float]]) -> None:
    clock, now = PartitionClock(), 1000.0
    for there, back, pause in trips:
        sent = now
        answered = sent + there
        now = answered + back
        leapt = clock.observe(sent, now, shown_at(answered))
        assert not leapt
        assert clock.to_store(shown_at(now)) <= now + 1e-5
        # Nor by more than the shortest way there, which cannot be told from a difference.
        assert clock.to_store(shown_at(now)) >= now - 0.5 - 1e-5
        now += pause


def test_both_directions_agree() -> None:
    clock = PartitionClock()
    clock.observe(10.0, 10.2, shown_at(10.1))
    assert abs(clock.to_store(clock.to_partition(11.0)) - 11.0) < 1e-5


def test_a_clock_that_goes_a_little_faster_is_followed() -> None:
    clock, ahead = PartitionClock(), AHEAD
    for second in range(1000):
        ahead += 0.0005
        assert not clock.observe(second, second + 0.002, shown_at(second + 0.001, ahead))
    assert abs(clock.to_store(shown_at(1000, ahead)) - 1000) < 0.01


def test_a_clock_that_was_set_is_noticed_once() -> None:
    clock = PartitionClock()
    assert not clock.observe(10.0, 10.1, shown_at(10.05))
    assert clock.observe(11.0, 11.1, shown_at(11.05, AHEAD + 600))
    assert not clock.observe(12.0, 12.1, shown_at(12.05, AHEAD + 600))
    assert abs(clock.to_store(shown_at(13.0, AHEAD + 600)) - 13.0) < 0.1
