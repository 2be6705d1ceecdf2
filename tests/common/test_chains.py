"""The index of slots, against a dictionary of sets."""

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netmail_common.connmgr.chains import Chains

operations = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "remove"]), st.integers(0, 20)), max_size=200
)


def key(number: int) -> bytes:
    return b"key %d" % number


class Model:
    """The same with a set for each key, and numbers given out as a table would."""

    def __init__(self, expected: int = 0) -> None:
        self.chains = Chains(expected)
        self.slots: defaultdict[bytes, list[int]] = defaultdict(list)
        self.free: list[int] = []
        self.highest = 0

    def add(self, wanted: bytes) -> None:
        if self.free:
            slot = self.free.pop()
        else:
            self.highest += 1
            slot = self.highest
        self.chains.add(wanted, slot)
        self.slots[wanted].append(slot)

    def remove(self, wanted: bytes, which: int) -> None:
        slots = self.slots[wanted]
        if slots:
            slot = slots.pop(which % len(slots))
            self.chains.remove(slot)
            self.free.append(slot)

    def check(self, wanted: bytes) -> None:
        assert self.chains.find(wanted) == self.slots[wanted][::-1]


@given(operations, st.sampled_from([0, 1, 9, 100]))
@settings(deadline=None)
def test_it_finds_what_a_dictionary_would_newest_first(
    steps: list[tuple[str, int]], expected: int
) -> None:
    model = Model(expected)
    for number, (step, which) in enumerate(steps):
        if step == "add":
            model.add(key(which))
        else:
            model.remove(key(which), number)
        model.check(key(which))
    for which in range(21):
        model.check(key(which))
    assert len(model.chains) == sum(map(len, model.slots.values()))


@pytest.mark.parametrize("expected", [0, 3000, 20_000])
def test_thousands_of_keys_come_and_go(expected: int) -> None:
    dice = random.Random(expected)
    model = Model(expected)
    for number in range(10_000):
        model.add(key(number))
        if dice.random() < 0.3:
            model.remove(key(dice.randrange(number + 1)), 0)
    for number in range(10_000):
        model.check(key(number))
    assert len(model.chains._heads) >= len(model.chains)
