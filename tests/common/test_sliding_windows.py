"""Counts over sliding windows, against a model that keeps every single thing counted."""

from hypothesis import given
from hypothesis import strategies as st
from netmail_common.sliding_windows import PARTS, SlidingWindows, Tally

WINDOW = 600.0
PART = WINDOW / PARTS

steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, PART, 7 * PART, WINDOW / 2, WINDOW, 2 * WINDOW]),
        st.integers(0, 3),
    ),
    max_size=40,
)


def of(counted: list[tuple[float, int]], now: float, back: float) -> int:
    return sum(amount for when, amount in counted if when > now - back)


@given(steps)
def test_a_window_is_never_looked_at_too_short_and_at_most_one_part_too_long(
    steps: list[tuple[float, int]],
) -> None:
    windows, counted, now = SlidingWindows(), [], 0.0
    for pause, amount in steps:
        now += pause
        tally = windows.count("a", amount, WINDOW, now)
        counted.append((now, amount))
        assert of(counted, now, WINDOW) <= tally.total <= of(counted, now, WINDOW + 2 * PART)


@given(steps, st.integers(1, 8))
def test_a_limit_is_never_exceeded_in_any_window(
    steps: list[tuple[float, int]], limit: int
) -> None:
    windows, counted, now = SlidingWindows(), [], 0.0
    for pause, amount in steps:
        now += pause
        tally = windows.count("a", amount, WINDOW, now, limit=limit)
        if tally.admitted:
            counted.append((now, amount))
        assert of(counted, now, WINDOW) <= limit


@given(steps, st.integers(3, 8))
def test_who_waits_as_long_as_he_was_told_is_admitted(
    steps: list[tuple[float, int]], limit: int
) -> None:
    windows, now = SlidingWindows(), 0.0
    for pause, amount in steps:
        now += pause
        tally = windows.count("a", amount, WINDOW, now, limit=limit)
        assert (tally.wait > 0) == (not tally.admitted or (not amount and tally.total >= limit))
        if not tally.admitted:
            assert tally.wait <= WINDOW + PART
            now += tally.wait
            assert windows.count("a", amount, WINDOW, now, limit=limit).admitted


def test_what_is_above_the_limit_at_once_is_never_admitted() -> None:
    tally = SlidingWindows().count("a", 11, WINDOW, 0.0, limit=10)
    assert tally == Tally(0.0, admitted=False, wait=float("inf"))


def test_what_was_given_back_counts_no_more() -> None:
    windows = SlidingWindows()
    windows.count("a", 9, WINDOW, 0.0, limit=10)
    windows.count("a", -9, WINDOW, 1.0)
    assert windows.count("a", 10, WINDOW, 2.0, limit=10) == Tally(10.0)


def test_reading_a_full_counter_says_when_one_more_would_fit() -> None:
    windows = SlidingWindows()
    windows.count("a", 10, WINDOW, 0.0, limit=10)
    tally = windows.count("a", 0, WINDOW, 5.0, limit=10)
    assert tally.admitted
    assert WINDOW - 5.0 <= tally.wait <= WINDOW + PART


def test_a_name_stands_for_another_counter_with_another_window() -> None:
    windows = SlidingWindows()
    windows.count("a", 1, 60.0, 0.0)
    windows.count("a", 1, WINDOW, 0.0)
    assert windows.count("a", 0, 60.0, 70.0).total == 0
    assert windows.count("a", 0, WINDOW, 70.0).total == 1
    assert windows.forget("a")
    assert not windows.forget("a")


def test_beyond_the_bound_the_counter_that_was_touched_least_recently_goes() -> None:
    windows = SlidingWindows(max_keys=3)
    for key in ("a", "b", "c", "a", "d"):
        windows.count(key, 1, WINDOW, 0.0)
    assert len(windows) == 3
    assert windows.count("b", 0, WINDOW, 0.0).total == 0
    assert windows.count("a", 0, WINDOW, 0.0).total == 2


def test_counters_that_nothing_is_left_of_take_no_room() -> None:
    windows = SlidingWindows()
    for number in range(1000):
        windows.count(str(number), 1, WINDOW, 0.0)
    for number in range(300):
        windows.count("alive", 1, WINDOW, 2 * WINDOW + number)
    assert len(windows) == 1
