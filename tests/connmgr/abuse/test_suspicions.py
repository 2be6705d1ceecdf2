"""What watchers are told of suspects, and what agents make of it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import UserKey
from netmail_connmgr.adapters.suspicion_messages import suspicion_changes
from netmail_connmgr.domain.changes import MissedChanges
from netmail_connmgr.domain.suspicions import (
    Suspect,
    SuspicionBook,
    SuspicionReader,
    SuspicionStep,
)

ALICE = UserKey("alice", "users.demo")
NETWORK = bytes([192, 0, 2, 1])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Follower:
    """What a watcher knows by what it was told."""

    def __init__(self, reader: SuspicionReader) -> None:
        self._reader = reader
        self.known: set[Suspect] = set()
        self.complete = self.everybody = False

    def catch_up(self) -> bool:
        """Whether it was told to ask about everybody."""
        while (step := self._reader.take()) is not None:
            if step.everybody or self.everybody:
                self.known = set()
            self.everybody = step.everybody
            self.complete = self.complete or step.complete
            self.known |= set(step.added)
            self.known -= set(step.removed)
        return self.everybody


def test_a_watcher_is_told_all_suspects_first_and_the_changes_after_that() -> None:
    clock = Clock()
    book = SuspicionBook(clock)
    book.suspect(ALICE, 60.0)
    with book.watch(asyncio.Event()) as reader:
        assert reader.take() == SuspicionStep(added=(ALICE,), complete=True)
        assert reader.take() is None
        book.suspect(NETWORK, 60.0)
        book.acquit(ALICE)
        assert reader.take() == SuspicionStep(added=(NETWORK,), removed=(ALICE,))
        assert reader.take() is None


def test_without_suspects_the_beginning_is_complete_at_once() -> None:
    with SuspicionBook(Clock()).watch(asyncio.Event()) as reader:
        assert reader.take() == SuspicionStep(complete=True)


def test_watchers_are_woken_by_changes_and_by_nothing_else() -> None:
    book, wake = SuspicionBook(Clock()), asyncio.Event()
    with book.watch(wake):
        book.acquit(ALICE)
        assert not wake.is_set()
        book.suspect(ALICE, 60.0)
        assert wake.is_set()
        wake.clear()
        book.suspect(ALICE, 90.0)
        assert not wake.is_set()
    book.acquit(ALICE)
    assert not wake.is_set()


def test_a_suspicion_lasts_as_long_as_its_latest_cause() -> None:
    clock = Clock()
    book = SuspicionBook(clock)
    assert book.suspect(ALICE, 60.0)
    clock.now = 50.0
    assert not book.suspect(ALICE, 60.0)
    clock.now = 109.0
    book.drop_expired()
    assert ALICE in book
    clock.now = 110.0
    book.drop_expired()
    assert ALICE not in book


def test_a_long_list_comes_in_pieces_and_says_when_it_is_complete() -> None:
    book = SuspicionBook(Clock())
    for number in range(2500):
        book.suspect(UserKey(str(number), "c"), 60.0)
    with book.watch(asyncio.Event()) as reader:
        steps = [reader.take() for _ in range(3)]
        assert [(len(step.added), step.complete) for step in steps if step is not None] == [
            (1000, False),
            (1000, False),
            (500, True),
        ]


def test_too_many_suspects_are_not_told_until_they_are_few_again() -> None:
    book = SuspicionBook(Clock(), max_told=10)
    with book.watch(asyncio.Event()) as reader:
        follower = Follower(reader)
        for number in range(12):
            book.suspect(UserKey(str(number), "c"), 60.0)
        assert follower.catch_up()
        for number in range(6):
            book.acquit(UserKey(str(number), "c"))
        assert follower.catch_up()
        book.acquit(UserKey("6", "c"))
        assert not follower.catch_up()
        assert follower.known == {UserKey(str(number), "c") for number in range(7, 12)}


def test_a_watcher_that_is_too_slow_has_to_begin_anew() -> None:
    book = SuspicionBook(Clock(), max_told=10)
    with book.watch(asyncio.Event()) as reader:
        reader.take()
        for _ in range(20):
            book.suspect(ALICE, 60.0)
            book.acquit(ALICE)
        with pytest.raises(MissedChanges):
            reader.take()


changes = st.lists(
    st.one_of(
        st.tuples(st.just("suspect"), st.integers(0, 15)),
        st.tuples(st.just("acquit"), st.integers(0, 15)),
        st.tuples(st.just("later"), st.integers(1, 30)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    max_size=60,
)


@given(changes)
def test_whoever_has_caught_up_knows_what_the_book_says(changes: list[tuple[str, int]]) -> None:
    clock = Clock()
    book = SuspicionBook(clock, max_told=40)
    with book.watch(asyncio.Event()) as reader:
        follower = Follower(reader)
        for what, number in changes:
            who = UserKey(str(number), "c")
            match what:
                case "suspect":
                    book.suspect(who, 20.0)
                case "acquit":
                    book.acquit(who)
                case "later":
                    clock.now += number
                    book.drop_expired()
                case _:
                    follower.catch_up()
        follower.catch_up()
        assert follower.complete
        assert follower.known == {UserKey(str(n), "c") for n in range(16) if _is_in(book, n)}


def _is_in(book: SuspicionBook, number: int) -> bool:
    return UserKey(str(number), "c") in book


def test_the_stream_names_users_and_networks() -> None:
    v6 = bytes.fromhex("20010db8000000000000000000000000")
    message = suspicion_changes(SuspicionStep(added=(ALICE, NETWORK, v6), complete=True), 64)
    assert message.complete
    user, v4_network, v6_network = message.added
    assert (user.user.name, user.user.context) == ALICE
    assert (v4_network.network, v4_network.prefix_length) == (NETWORK, 32)
    assert (v6_network.network, v6_network.prefix_length) == (v6, 64)
