"""Registrations that wait for the store to come back."""

from netmail_connmgr.adapters.valkey.waiting import REMEMBERED, WaitingRegistrations

from tests.connmgr.store_contract.stores import ALICE, registration


def sessions(waiting: WaitingRegistrations) -> list[str]:
    return [one.session_id for one, _ in waiting.take()]


def test_what_waits_is_taken_once_and_in_its_order() -> None:
    waiting = WaitingRegistrations(10)
    for number in range(3):
        waiting.wait(registration(session=f"s{number}"), float(number))
    assert [since for _, since in waiting.take()] == [0.0, 1.0, 2.0]
    assert sessions(waiting) == []


def test_the_oldest_goes_when_there_is_no_room() -> None:
    waiting = WaitingRegistrations(2)
    for number in range(5):
        waiting.wait(registration(session=f"s{number}"), float(number))
    assert len(waiting) == 2
    assert sessions(waiting) == ["s3", "s4"]


def test_an_agent_that_tries_again_takes_no_more_room() -> None:
    waiting = WaitingRegistrations(2)
    waiting.wait(registration(session="other"), 0.0)
    for attempt in range(50):
        waiting.wait(registration(ALICE, session="same", age=attempt), float(attempt))
    assert sessions(waiting) == ["other", "same"]


def test_without_room_nothing_waits() -> None:
    waiting = WaitingRegistrations(0)
    waiting.wait(registration(), 0.0)
    waiting.made(registration(), 0.0)
    assert sessions(waiting) == []


def test_what_was_made_a_moment_ago_is_made_again_and_older_is_not() -> None:
    waiting = WaitingRegistrations(100)
    waiting.made(registration(session="long ago"), 0.0)
    waiting.made(registration(session="a moment ago"), REMEMBERED)
    waiting.made(registration(session="now"), REMEMBERED + 1)
    assert sessions(waiting) == ["a moment ago", "now"]
    assert sessions(waiting) == ["a moment ago", "now"], "the next server may be lost too"
