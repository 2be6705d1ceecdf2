"""What a session knows of its mailbox stays true, whatever happens in which order."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from netmail_pop_imap.adapters.imap_rows import local_rows
from netmail_pop_imap.domain.imap_mailbox import Change, Mailbox, View
from netmail_pop_imap.protocol.imap.commands import Metadata
from netmail_pop_imap.protocol.imap.sequence import parse_sequence_set

FLAGS = ["", "\\Seen", "\\Deleted \\Seen", "$x"]


def mailbox_of(uids: list[int], flags: str = "") -> Mailbox:
    mailbox = Mailbox(1, 7, "M1")
    mailbox.apply(
        Change(uids, [1] * len(uids), [0] * len(uids), [flags], (), (uids or [0])[-1] + 1, 1)
    )
    return mailbox


def view_of(mailbox: Mailbox, on_change: Callable[[], None] = lambda: None) -> View:
    return View(mailbox, read_only=False, on_change=on_change)


def test_an_expunge_waits_until_it_may_be_told_and_numbers_stay() -> None:
    mailbox = mailbox_of([1, 5, 9])
    view = view_of(mailbox)
    mailbox.apply(Change(expunged=[5], modseq=2))
    assert view.number(9) == 3
    assert view.take_updates(expunge=False).expunged == []
    updates = view.take_updates(expunge=True)
    assert updates.expunged == [2]
    assert updates.exists is None
    assert view.number(9) == 2


def test_expunges_are_told_from_the_highest_number_down() -> None:
    mailbox = mailbox_of([1, 5, 9])
    view = view_of(mailbox)
    mailbox.apply(Change(expunged=[1, 9]))
    assert view.take_updates(expunge=True).expunged == [3, 1]


def test_new_messages_wait_behind_an_expunge_that_may_not_be_told() -> None:
    mailbox = mailbox_of([1, 5])
    view = view_of(mailbox)
    mailbox.apply(Change([6], [2], [0], [""], [1]))
    assert not view.take_updates(expunge=False)
    updates = view.take_updates(expunge=True)
    assert (updates.expunged, updates.exists) == ([1], 2)


def test_a_message_that_came_and_went_untold_leaves_no_trace() -> None:
    mailbox = mailbox_of([1])
    view = view_of(mailbox)
    mailbox.apply(Change([2], [2], [0], [""]))
    mailbox.apply(Change(expunged=[2]))
    assert not view.take_updates(expunge=True)


def test_a_change_that_comes_twice_is_told_once() -> None:
    mailbox = mailbox_of([1])
    view = view_of(mailbox)
    change = Change([1], [2], [0], ["\\Seen"])
    mailbox.apply(change)
    assert view.take_updates(expunge=True).flags == [(1, 1)]
    mailbox.apply(change)
    assert not view.has_updates


def test_an_older_change_does_not_undo_a_newer_one() -> None:
    mailbox = mailbox_of([1])
    mailbox.apply(Change([1], [3], [0], ["\\Seen"]))
    mailbox.apply(Change([1], [2], [0], ["$x"]))
    assert mailbox.flags(0) == b"\\Seen"


def test_a_late_list_does_not_bring_an_expunged_message_back() -> None:
    mailbox = mailbox_of([1, 2])
    mailbox.apply(Change([3], [2], [0], [""], [2], 4, 2))
    mailbox.apply(Change([2, 3], [1, 2], [0, 0], [""], (), 4, 2))
    assert list(mailbox.uids) == [1, 3]


def test_a_session_is_not_told_what_it_did_itself_but_what_others_did() -> None:
    mailbox = mailbox_of([1, 2])
    mine, other = view_of(mailbox), view_of(mailbox)
    mailbox.apply(Change([2], [2], [0], ["$x"]))
    mailbox.apply(
        Change([1, 2], [3, 3], [0, 1], ["\\Seen", "$x \\Seen"]),
        origin=mine,
        expected=lambda flags: b" ".join(sorted({*flags.split(), b"\\Seen"})),
    )
    assert mine.take_updates(expunge=True).flags == [(2, 2)]
    assert other.take_updates(expunge=True).flags == [(1, 1), (2, 2)]


def test_a_silent_store_that_met_anothers_change_is_told() -> None:
    mailbox = mailbox_of([1])
    mine = view_of(mailbox)
    mailbox.apply(
        Change([1], [3], [0], ["$other \\Seen"]), origin=mine, expected=lambda _: b"\\Seen"
    )
    assert mine.take_updates(expunge=True).flags == [(1, 1)]


def test_recent_messages_are_counted_among_those_told() -> None:
    mailbox = mailbox_of([1, 2, 3])
    view = view_of(mailbox)
    view.claim_recent(2, 4)
    assert view.recent_count() == 2
    mailbox.apply(Change(expunged=[3]))
    view.take_updates(expunge=True)
    assert view.recent_count() == 1
    assert (view.is_recent(1), view.is_recent(2)) == (False, True)


def test_new_keywords_are_told_once() -> None:
    mailbox = mailbox_of([1])
    view = view_of(mailbox)
    mailbox.apply(Change([1], [2], [0], ["$new"]))
    assert view.take_updates(expunge=True).keywords
    assert not view.has_updates


@pytest.mark.parametrize("gone", [[2], list(range(1, 200, 2))])
def test_few_and_many_expunges_leave_the_same_columns(gone: list[int]) -> None:
    uids = list(range(1, 301))
    mailbox = Mailbox(1, 7, "")
    mailbox.apply(Change(uids, uids, [uid % 4 for uid in uids], FLAGS))
    mailbox.apply(Change(expunged=gone))
    left = [uid for uid in uids if uid not in set(gone)]
    assert list(mailbox.uids) == list(mailbox.modseqs) == left
    assert [mailbox.flags(at).decode() for at in range(len(left))] == [FLAGS[u % 4] for u in left]


@given(st.lists(st.integers(1, 50), unique=True).map(sorted), st.data())
def test_a_full_list_is_as_good_as_all_changes(before: list[int], data: st.DataObject) -> None:
    mailbox = mailbox_of(before)
    view = view_of(mailbox)
    kept = data.draw(
        st.lists(st.sampled_from(before), unique=True).map(sorted) if before else st.just([])
    )
    new = data.draw(st.lists(st.integers(51, 60), unique=True).map(sorted))
    after = kept + new
    mailbox.replace_all(Change(after, [1] * len(after), [0] * len(after), [""], (), 61, 9))
    view.take_updates(expunge=True)
    assert list(view.uids[: view.count]) == after


class Sessions(RuleBasedStateMachine):
    """Two clients that count along from what they are told, as the RFC lets them."""

    @initialize()
    def start(self) -> None:
        self.mailbox = mailbox_of([1, 2, 3])
        self.truth = {1: "", 2: "", 3: ""}
        self.modseq = 1
        self.next = 4
        self.views = [view_of(self.mailbox), view_of(self.mailbox)]
        self.numbers: list[list[int | None]] = [[1, 2, 3], [1, 2, 3]]
        self.flags: list[dict[int, str]] = [dict(self.truth), dict(self.truth)]

    @rule(count=st.integers(1, 3), flags=st.sampled_from(FLAGS))
    def deliver(self, count: int, flags: str) -> None:
        self.modseq += 1
        new = list(range(self.next, self.next + count))
        self.next += count
        self.truth.update(dict.fromkeys(new, flags))
        self.mailbox.apply(
            Change(new, [self.modseq] * count, [0] * count, [flags], (), self.next, self.modseq)
        )

    @precondition(lambda self: self.truth)
    @rule(data=st.data(), flags=st.sampled_from(FLAGS))
    def store(self, data: st.DataObject, flags: str) -> None:
        uid = data.draw(st.sampled_from(sorted(self.truth)))
        self.modseq += 1
        self.truth[uid] = flags
        self.mailbox.apply(Change([uid], [self.modseq], [0], [flags], modseq=self.modseq))

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def expunge(self, data: st.DataObject) -> None:
        uids = data.draw(st.lists(st.sampled_from(sorted(self.truth)), unique=True, min_size=1))
        self.modseq += 1
        for uid in uids:
            del self.truth[uid]
        self.mailbox.apply(Change(expunged=uids, modseq=self.modseq))

    @rule(which=st.integers(0, 1), expunge=st.booleans())
    def tell(self, which: int, expunge: bool) -> None:
        view, numbers = self.views[which], self.numbers[which]
        updates = view.take_updates(expunge=expunge)
        assert expunge or not updates.expunged
        for number in updates.expunged:
            del numbers[number - 1]
        if updates.exists is not None:
            assert updates.exists >= len(numbers)  # EXISTS never shrinks (RFC 3501 7.3.1)
            for number in range(len(numbers) + 1, updates.exists + 1):
                uid = view.uids[number - 1]
                numbers.append(uid)
                self.flags[which][uid] = self.mailbox.flags(self.mailbox.index(uid)).decode()
        for number, uid in updates.flags:
            assert numbers[number - 1] == uid
            self.flags[which][uid] = self.mailbox.flags(self.mailbox.index(uid)).decode()
        if expunge:
            assert numbers == sorted(self.truth)
            assert {uid: self.flags[which][uid] for uid in self.truth} == self.truth

    @invariant()
    def numbers_mean_what_the_client_thinks(self) -> None:
        for view, numbers in zip(self.views, self.numbers, strict=True):
            assert list(view.uids[: view.count]) == numbers
            spans = view.spans(parse_sequence_set(b"1:*"), uid=False)
            assert spans == ([(0, len(numbers) - 1)] if numbers else [])


TestSessions = Sessions.TestCase


def test_flags_that_change_after_they_were_fetched_are_told_again() -> None:
    mailbox = mailbox_of([1, 2])
    view = view_of(mailbox)
    mailbox.apply(Change([1, 2], [2, 2], [0, 0], ["\\Seen"]))
    rows = local_rows(view, [(0, 0), (1, 1)], [Metadata.FLAGS])
    assert next(rows) == b"* 1 FETCH (FLAGS (\\Seen))\r\n"
    mailbox.apply(Change([1, 2], [3, 3], [0, 0], ["$x"]))
    assert next(rows) == b"* 2 FETCH (FLAGS ($x))\r\n"
    assert view.take_updates(expunge=True).flags == [(1, 1)]


def test_a_message_claimed_twice_is_recent_once() -> None:
    view = view_of(mailbox_of([1, 2, 3]))
    view.claim_recent(2, 4)
    view.claim_recent(3, 4)
    assert view.recent_count() == 2
