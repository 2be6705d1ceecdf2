"""The wheel of seconds against a dictionary, in virtual time."""

from hypothesis import given, settings
from hypothesis import strategies as st
from netmail_common.connmgr.expiry import ExpiryWheel

START = 1000

steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(1, 12), st.integers(0, 30)),
        st.tuples(st.just("clear"), st.integers(1, 12), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 7, 100]), st.just(0)),
        st.tuples(st.just("take"), st.integers(1, 4), st.just(0)),
    ),
    max_size=80,
)


@given(steps)
@settings(deadline=None)
def test_each_slot_is_taken_once_when_its_newest_second_is_over(
    which: list[tuple[str, int, int]],
) -> None:
    wheel, due, now = ExpiryWheel(), dict[int, int](), START
    for step, number, seconds in which:
        if step == "set":
            due[number] = now + seconds
            wheel.set(number, now + seconds + 0.5)
        elif step == "clear" and due.pop(number, None) is not None:
            wheel.clear(number)
        elif step == "wait":
            now += number
        elif step == "take":
            slots, looked = wheel.take(now, number)
            assert looked <= number
            for slot in slots:
                assert due.pop(slot) < now
            assert looked == number or not any(second < now for second in due.values())
    slots, _ = wheel.take(now + 1000, 10_000)
    assert sorted(slots) == sorted(due)
    assert (wheel._buckets, wheel._dead) == ({}, {})


def test_what_comes_and_goes_leaves_no_entries_behind() -> None:
    wheel = ExpiryWheel()
    for number in range(100_000):
        slot = number % 50 + 1
        wheel.set(slot, START + number % 7)
        if number % 3 == 0:
            wheel.clear(slot)
    assert sum(map(len, wheel._buckets.values())) < 2000
    assert sum(wheel._dead.values()) < 2000


def test_no_second_is_cut_short() -> None:
    wheel = ExpiryWheel()
    wheel.set(1, START + 0.9)
    assert wheel.take(START + 0.95, 10) == ([], 0)
    assert wheel.take(START + 1, 10) == ([1], 1)
