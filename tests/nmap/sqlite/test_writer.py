"""One writer: shared commits, none spoils another, nobody is answered too early."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.domain.delivery import (
    Envelope,
    Expansion,
    Recipient,
    Submission,
    SubmitOutcome,
)
from netmail_nmap.domain.errors import InvalidRequest, StoreUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite:///{path}", readers=1) as opened:
        yield opened


def put(key: str) -> Callable[[Transaction], str]:
    def operation(transaction: Transaction) -> str:
        transaction.driver.execute("INSERT INTO store_meta VALUES (?, '')", (key,))
        return key

    return operation


def keys(path: Path) -> set[str]:
    """What another process sees: only what is committed."""
    other = sqlite3.connect(path)
    try:
        return {key for (key,) in other.execute("SELECT key FROM store_meta")}
    finally:
        other.close()


def held_up(store: Store) -> tuple[threading.Event, "asyncio.Future[None]"]:
    """Keeps the writer busy until the event is set, so that others have to wait."""
    release = threading.Event()

    def operation(_: Transaction) -> None:
        release.wait(10)

    return release, asyncio.ensure_future(store.core.writer.run(operation))


async def test_an_answer_comes_after_the_commit(store: Store, path: Path) -> None:
    for number in range(20):
        key = await store.core.writer.run(put(f"k{number}"))
        assert key in keys(path)


async def test_what_waits_together_shares_one_commit(store: Store) -> None:
    release, busy = held_up(store)
    commits: list[Sequence[object]] = []

    def gathered(transaction: Transaction, items: Sequence[int]) -> list[int]:
        commits.append(items)
        return [item * 2 for item in items]

    waiting = [
        asyncio.ensure_future(store.core.writer.run_gathered(gathered, number))
        for number in range(50)
    ]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*waiting) == [number * 2 for number in range(50)]
    assert [len(items) for items in commits] == [50]
    await busy


async def test_an_operation_that_fails_spoils_no_other(store: Store, path: Path) -> None:
    release, busy = held_up(store)

    def half_done(transaction: Transaction) -> None:
        transaction.driver.execute("INSERT INTO store_meta VALUES ('half', '')")
        raise InvalidRequest

    operations: list[Callable[[Transaction], object]] = [put("before"), half_done, put("after")]
    waiting = [asyncio.ensure_future(store.core.writer.run(each)) for each in operations]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [str, InvalidRequest, str]
    assert keys(path) >= {"before", "after"}
    assert "half" not in keys(path)
    await busy


async def test_one_of_many_gathered_that_fails_spoils_no_other(store: Store, path: Path) -> None:
    release, busy = held_up(store)

    def insert(transaction: Transaction, items: Sequence[str]) -> Sequence[str]:
        for item in items:
            transaction.driver.execute("INSERT INTO store_meta VALUES (?, '')", (item,))
        return items

    waiting = [
        asyncio.ensure_future(store.core.writer.run_gathered(insert, key))
        for key in ("a", "b", "store_id", "c")
    ]
    await asyncio.sleep(0)
    release.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, StoreUnavailable, str]
    assert keys(path) >= {"a", "b", "c"}
    await busy


async def test_a_cancelled_caller_disturbs_nobody(store: Store, path: Path) -> None:
    release, busy = held_up(store)
    cancelled = asyncio.ensure_future(store.core.writer.run(put("a")))
    other = asyncio.ensure_future(store.core.writer.run(put("b")))
    await asyncio.sleep(0)
    cancelled.cancel()
    release.set()
    await other
    assert "b" in keys(path)
    await busy


async def test_what_was_asked_for_is_done_before_closing(path: Path) -> None:
    async with open_store(f"sqlite:///{path}") as store:
        waiting = [
            asyncio.ensure_future(store.core.writer.run(put(f"k{number}"))) for number in range(10)
        ]
        await asyncio.sleep(0)
        writer = store.core.writer
    await asyncio.gather(*waiting)
    assert keys(path) >= {f"k{number}" for number in range(10)}
    with pytest.raises(StoreUnavailable):
        await writer.run(put("late"))


async def test_a_full_disk_is_said_and_nothing_half_done_stays(store: Store, path: Path) -> None:
    def submission(number: int) -> Submission:
        envelope = Envelope(f"message-{number:010d}", "a@b.example", (Recipient("c@d.example"),))
        data = b"Subject: x\r\n\r\n" + b"y" * 200_000
        return Submission(envelope, data, (Expansion(remote=("c@d.example",)),))

    def limit(transaction: Transaction, pages: int) -> None:
        transaction.driver.execute(f"PRAGMA max_page_count={pages}")

    await store.core.writer.run(lambda transaction: limit(transaction, 150))
    outcomes = []
    for number in range(6):
        (result,) = await store.queue.submit([submission(number)])
        outcomes.append(result.outcome)
    assert outcomes[0] is SubmitOutcome.ACCEPTED
    assert outcomes[-1] is SubmitOutcome.INSUFFICIENT_STORAGE
    await store.core.writer.run(lambda transaction: limit(transaction, 1_000_000))
    (result,) = await store.queue.submit([submission(5)])
    assert result.outcome is SubmitOutcome.ACCEPTED
    other = sqlite3.connect(path)
    (count,) = other.execute("SELECT count(*) FROM queue_messages").fetchone()
    (whole,) = other.execute("SELECT count(*) FROM queue_items").fetchone()
    other.close()
    assert count == whole == outcomes.count(SubmitOutcome.ACCEPTED) + 1


async def test_an_error_of_the_engine_does_not_reach_the_caller_in_its_words(store: Store) -> None:
    def broken(transaction: Transaction) -> None:
        transaction.driver.execute("SELECT secret FROM nowhere")

    with pytest.raises(StoreUnavailable) as raised:
        await store.core.writer.run(broken)
    assert "nowhere" not in str(raised.value)
