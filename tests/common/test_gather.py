"""Gathered calls."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from netmail_common.gather import Gatherer


class Recorder:
    """A call that waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.fault: Exception | None = None

    async def call(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.gate.wait()
        if self.fault:
            raise self.fault
        return [item * 10 for item in items]

    def gatherer(self, *, linger: float = 0.0, **limits: int) -> Gatherer[int, int]:
        arguments = {"max_items": 100, "max_bytes": 1000, "in_flight": 1, **limits}
        return Gatherer(self.call, size_of=lambda item: item, linger=linger, **arguments)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_item_goes_at_once() -> None:
    recorder = Recorder()
    recorder.gate.set()
    assert await recorder.gatherer()(7) == 70
    assert recorder.batches == [[7]]


async def test_what_arrives_during_a_call_goes_together_with_the_next() -> None:
    recorder = Recorder()
    gatherer = recorder.gatherer()
    first = asyncio.create_task(gatherer(1))
    await settle()
    others = [asyncio.create_task(gatherer(n)) for n in (2, 3, 4)]
    await settle()
    assert recorder.batches == [[1]]
    recorder.gate.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_items_of_one_turn_of_the_loop_share_a_call() -> None:
    recorder = Recorder()
    recorder.gate.set()
    gatherer = recorder.gatherer()
    assert await asyncio.gather(*(gatherer(n) for n in range(1, 5))) == [10, 20, 30, 40]
    assert recorder.batches == [[1, 2, 3, 4]]


@pytest.mark.looptime
async def test_in_a_crowd_items_wait_for_others_and_a_lone_one_does_not() -> None:
    recorder = Recorder()
    recorder.gate.set()
    gatherer = recorder.gatherer(linger=5.0)
    now = asyncio.get_running_loop().time

    async def later(item: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return await gatherer(item)

    assert await gatherer(1) == 10
    assert now() == 0
    await asyncio.gather(gatherer(2), gatherer(3))
    assert now() == 0
    await asyncio.gather(later(4, 0), later(5, 2), later(6, 4.9), later(7, 6))
    assert recorder.batches == [[1], [2, 3], [4, 5, 6], [7]]
    assert now() == pytest.approx(11)  # 4 to 6 waited until 5, 7 as the first after a crowd
    assert await gatherer(8) == 80
    assert now() == pytest.approx(11)


@pytest.mark.looptime
async def test_what_came_during_a_call_in_a_crowd_waits_no_longer_than_that() -> None:
    recorder = Recorder()
    gatherer = recorder.gatherer(linger=5.0)
    crowd = [asyncio.create_task(gatherer(n)) for n in (1, 2)]
    await settle()
    third = asyncio.create_task(gatherer(3))
    await settle()
    recorder.gate.set()
    assert await asyncio.gather(*crowd) == [10, 20]
    assert asyncio.get_running_loop().time() == 0
    assert await third == 30
    assert asyncio.get_running_loop().time() == pytest.approx(5)


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        ({"max_items": 2}, [[1, 2], [3, 4], [5]]),
        ({"max_bytes": 6}, [[1, 2, 3], [4], [5]]),
        ({"max_bytes": 0}, [[1], [2], [3], [4], [5]]),
    ],
)
async def test_a_call_stays_within_its_limits(
    limits: dict[str, int], batches: list[list[int]]
) -> None:
    recorder = Recorder()
    recorder.gate.set()
    gatherer = recorder.gatherer(**limits)
    await asyncio.gather(*(gatherer(n) for n in range(1, 6)))
    assert recorder.batches == batches


async def test_no_more_calls_than_allowed_are_under_way() -> None:
    recorder = Recorder()
    gatherer = recorder.gatherer(max_items=1, in_flight=2)
    tasks = [asyncio.create_task(gatherer(n)) for n in range(1, 6)]
    await settle()
    assert recorder.batches == [[1], [2]]
    recorder.gate.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]


async def test_an_error_reaches_everyone_of_its_call_and_nobody_else() -> None:
    recorder = Recorder()
    recorder.fault = ConnectionError("gone")
    recorder.gate.set()
    gatherer = recorder.gatherer()
    results = await asyncio.gather(gatherer(1), gatherer(2), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError]
    recorder.fault = None
    assert await gatherer(3) == 30


async def test_a_cancelled_item_that_was_not_sent_is_taken_back() -> None:
    recorder = Recorder()
    gatherer = recorder.gatherer()
    first = asyncio.create_task(gatherer(1))
    await settle()
    second = asyncio.create_task(gatherer(2))
    third = asyncio.create_task(gatherer(3))
    await settle()
    second.cancel()
    await settle()
    recorder.gate.set()
    assert list(await asyncio.gather(first, third)) == [10, 30]
    assert recorder.batches == [[1], [3]]


async def test_a_cancelled_item_that_was_sent_spoils_nothing_for_its_neighbours() -> None:
    recorder = Recorder()
    gatherer = recorder.gatherer()
    first, second = (asyncio.create_task(gatherer(n)) for n in (1, 2))
    await settle()
    first.cancel()
    await settle()
    recorder.gate.set()
    assert await second == 20


async def test_too_few_results_are_an_error_and_not_a_mix_up() -> None:
    async def call(items: list[int]) -> list[int]:
        return items[1:]

    typed: Callable[[list[int]], Awaitable[list[int]]] = call
    gatherer = Gatherer(typed, max_items=9, max_bytes=9, size_of=lambda _: 1)
    results = await asyncio.gather(gatherer(1), gatherer(2), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
