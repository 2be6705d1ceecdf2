"""Answers that are kept, asked for once at a time, and not too many at once."""

import asyncio

import pytest
from netmail_connmgr.adapters.lookups import LookupBusy, Lookups

from tests.connmgr.conftest import Clock


class Source:
    """Answers when told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    async def __call__(self, key: str) -> str:
        self.asked.append(key)
        await self.gate.wait()
        if self.fails:
            raise KeyError(key)
        return key.upper()


@pytest.fixture
def source() -> Source:
    return Source()


def lookups(source: Source, clock: Clock | None = None, **bounds: int) -> Lookups[str, str]:
    return Lookups(
        source,
        lambda value: 60.0 if value != "NEVER" else 0.0,
        max_kept=bounds.get("kept", 10),
        max_under_way=bounds.get("under_way", 10),
        clock=clock or Clock(),
    )


async def test_an_answer_is_kept_until_its_time_is_over(source: Source) -> None:
    clock = Clock()
    cache = lookups(source, clock)
    assert await cache.get("a") == "A"
    clock.advance(59.9)
    assert await cache.get("a") == "A"
    assert source.asked == ["a"]
    clock.advance(0.1)
    assert cache.kept("a") is None
    assert await cache.get("a") == "A"
    assert source.asked == ["a", "a"]


async def test_what_is_not_to_be_kept_is_asked_again(source: Source) -> None:
    cache = lookups(source)
    await cache.get("never")
    await cache.get("never")
    assert len(source.asked) == 2


async def test_a_crowd_asks_once(source: Source) -> None:
    cache = lookups(source)
    source.gate.clear()
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*waiting) == ["A"] * 20
    assert source.asked == ["a"]


async def test_a_question_goes_on_when_nobody_waits_any_more(source: Source) -> None:
    cache = lookups(source)
    source.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get("a")
    source.gate.set()
    assert await cache.get("a") == "A"
    assert source.asked == ["a"]


async def test_too_many_questions_are_not_asked(source: Source) -> None:
    cache = lookups(source, under_way=2)
    source.gate.clear()
    waiting = [asyncio.create_task(cache.get(key)) for key in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(LookupBusy):
        await cache.get("c")
    source.gate.set()
    assert await asyncio.gather(*waiting) == ["A", "B"]
    assert await cache.get("c") == "C"


async def test_the_cache_forgets_what_was_used_longest_ago(source: Source) -> None:
    cache = lookups(source, kept=2)
    await cache.get("a")
    await cache.get("b")
    await cache.get("a")
    await cache.get("c")
    assert cache.kept("b") is None
    assert cache.kept("a") == "A"
    assert cache.kept("c") == "C"


async def test_an_error_goes_to_everybody_and_is_not_kept(source: Source) -> None:
    cache = lookups(source)
    source.fails = True
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, KeyError) for result in results)
    source.fails = False
    assert await cache.get("a") == "A"


async def test_closing_ends_what_is_under_way(source: Source) -> None:
    cache = lookups(source)
    source.gate.clear()
    waiting = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
