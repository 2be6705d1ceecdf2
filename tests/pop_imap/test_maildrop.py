"""The maildrop of a POP3 session."""

import pytest
from netmail_pop_imap.domain.maildrop import Maildrop, NoSuchMessage


def maildrop() -> Maildrop:
    return Maildrop(7, [3, 5, 9], [100, 200, 300], ["a", "b", "c"], frozenset({5}))


def test_numbers_count_from_one_in_uid_order() -> None:
    message = maildrop().message(2)
    assert (message.number, message.uid, message.size, message.unique_id) == (2, 5, 200, "b")


@pytest.mark.parametrize("number", [0, -1, 4, 2**31])
def test_other_numbers_are_no_messages(number: int) -> None:
    with pytest.raises(NoSuchMessage):
        maildrop().message(number)


def test_a_deleted_message_is_gone_for_every_command_but_numbers_stay() -> None:
    drop = maildrop()
    drop.delete(2)
    with pytest.raises(NoSuchMessage):
        drop.message(2)
    with pytest.raises(NoSuchMessage):
        drop.delete(2)
    assert drop.statistics() == (2, 400)
    assert list(drop.sizes()) == [(1, 100), (3, 300)]
    assert list(drop.unique_ids()) == [(1, "a"), (3, "c")]
    assert drop.to_remove() == [5]


def test_reset_takes_every_mark_back() -> None:
    drop = maildrop()
    drop.delete(1)
    drop.delete(3)
    drop.reset()
    assert drop.statistics() == (3, 600)
    assert drop.to_remove() == []


def test_what_was_retrieved_and_stays_is_flagged_seen_unless_it_is_already() -> None:
    drop = maildrop()
    for number in (1, 2, 3):
        drop.retrieved(drop.message(number))
    drop.delete(3)
    assert drop.to_flag_seen() == [3]
