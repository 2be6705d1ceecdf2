"""Counters in memory, and their notes on disk."""

import asyncio
from pathlib import Path

import pytest
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.adapters.note_journal import NoteJournal
from netmail_connmgr.domain.counters import Count


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def test_counts_are_answered_in_their_order_each_by_itself() -> None:
    counters = MemoryCounters(Clock(0.0))
    answers = await counters.count(
        [
            Count("a", 2, 60.0, 3),
            Count("b", 1, 60.0),
            Count("a", 2, 60.0, 3),
            Count("a", 1, 60.0, 3),
        ]
    )
    assert [(one.total, one.admitted) for one in answers] == [
        (2, True),
        (1, True),
        (2, False),
        (3, True),
    ]
    assert answers[2].wait > 0


async def test_notes_end_at_their_time_and_can_be_forgotten() -> None:
    clock = Clock(0.0)
    counters = MemoryCounters(clock)
    await counters.note(["a", "b"], 10.0)
    clock.now = 9.9
    assert await counters.noted(["b", "x", "a"]) == [True, False, True]
    assert await counters.forget(["a", "x"]) == 1
    assert await counters.noted(["a", "b"]) == [False, True]
    clock.now = 10.0
    assert await counters.noted(["b"]) == [False]
    counters.drop_expired()
    assert not len(counters)


async def test_notes_outlive_the_process_and_the_machine(tmp_path: Path) -> None:
    wall, path = Clock(1_700_000_000.0), tmp_path / "deep" / "notes"
    journal = NoteJournal(path, wall=wall)
    counters = MemoryCounters(Clock(5_000_000.0), journal=journal)
    await counters.note(["a", "b"], 100.0)
    await counters.note(["long"], 1000.0)
    await counters.forget(["b"])
    journal.close()

    wall.now += 60.0
    clock = Clock(3.0)  # the machine has started anew
    journal = NoteJournal(path, wall=wall)
    counters = MemoryCounters(clock, journal=journal)
    assert await counters.noted(["a", "b", "long"]) == [True, False, True]
    clock.now += 41.0
    assert await counters.noted(["a", "long"]) == [False, True]
    journal.close()


async def test_the_file_holds_no_more_than_what_lasts_when_it_is_opened(tmp_path: Path) -> None:
    wall, path = Clock(1000.0), tmp_path / "notes"
    journal = NoteJournal(path, wall=wall)
    for number in range(50):
        await journal.append([f"{number % 5:024x}"], 100.0 if number % 2 else 10.0)
    journal.close()
    wall.now += 50.0
    NoteJournal(path, wall=wall).close()
    assert len(path.read_text().splitlines()) <= 5


@pytest.mark.parametrize(
    "damage", [b"17", b"garbage\n\n \n9e9 a\n", b"\xff\xfe\x00", b"99999999999 0123456789"]
)
async def test_a_damaged_file_is_read_as_far_as_it_makes_sense(
    tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / "notes"
    good, more = "0123456789abcdef01234567", "f" * 24
    path.write_bytes(f"2000 {good}\n".encode() + damage)
    journal = NoteJournal(path, wall=Clock(1000.0))
    assert dict(journal.notes()) == {good: 1000.0}
    await journal.append([more], 10.0)
    journal.close()
    journal = NoteJournal(path, wall=Clock(1000.0))
    assert dict(journal.notes()).keys() == {good, more}
    journal.close()


async def test_a_file_that_has_grown_is_written_anew_while_notes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_connmgr.adapters.memory_counters._SPARE_LINES", 50)
    clock, path = Clock(0.0), tmp_path / "notes"
    journal = NoteJournal(path)
    counters = MemoryCounters(clock, journal=journal)
    for _ in range(40):
        clock.now += 20.0
        await asyncio.gather(*(counters.note([f"key{number}"], 100.0) for number in range(10)))
    await counters.forget(["key0"])
    assert len(path.read_text().splitlines()) < 100
    journal.close()
    journal = NoteJournal(path)
    again = MemoryCounters(Clock(5.0), journal=journal)
    assert await again.noted([f"key{number}" for number in range(10)]) == [False] + [True] * 9
    journal.close()


async def test_a_full_disk_costs_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    journal = NoteJournal(tmp_path / "notes")
    counters = MemoryCounters(Clock(0.0), journal=journal)

    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    await counters.note(["a"], 10.0)
    assert await counters.noted(["a"]) == [True]
    journal.close()
