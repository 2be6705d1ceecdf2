"""Leases: who gets what, when, and for how long."""

import asyncio
from collections import Counter

import pytest
from netmail_nmap.domain.delivery import DeliveryOutcome, ItemReport, QueueFilter
from netmail_nmap.domain.errors import LeaseLost

from tests.nmap.store_contract.engines import Clock, Opened
from tests.nmap.store_contract.words import Words


async def test_an_item_is_leased_to_one_worker(do: Words) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    assert (item.attempt, item.age) == (1, 0)
    assert await do.lease() == []


async def test_an_expired_lease_is_given_again_with_a_greater_fence(
    do: Words, clock: Clock
) -> None:
    await do.enqueue("a@example.com")
    (first,) = await do.lease(seconds=60)
    clock.now += 59
    assert await do.lease() == []
    clock.now += 2
    (second,) = await do.lease()
    assert second.lease_id == first.lease_id
    assert second.fence > first.fence
    assert (second.attempt, second.age) == (2, 61)


async def test_who_lost_a_lease_changes_nothing(store: Opened, do: Words, clock: Clock) -> None:
    await do.enqueue("a@example.com")
    (first,) = await do.lease(seconds=1)
    clock.now += 2
    (second,) = await do.lease()
    assert not await do.report(first, DeliveryOutcome.DELIVERED)
    with pytest.raises(LeaseLost):
        _ = [part async for part in store.queue.read_message(first.lease_id, first.fence)]
    assert await do.report(second, DeliveryOutcome.DELIVERED)
    assert not await do.report(second, DeliveryOutcome.DELIVERED)


async def test_destinations_get_their_turn_beside_a_flood(do: Words) -> None:
    await do.enqueue_many(30, "flood.example")
    await do.enqueue("a@quiet.example")
    await do.enqueue("b@other.example")
    destinations = [item.destination for item in await do.lease(limit=6)]
    assert set(destinations) == {"flood.example", "quiet.example", "other.example"}
    assert destinations.count("flood.example") == 4


async def test_a_flood_larger_than_any_window_hides_nobody(do: Words) -> None:
    await do.enqueue_many(600, "flood.example")
    await do.enqueue("a@quiet.example")
    assert "quiet.example" in {item.destination for item in await do.lease(limit=5)}


async def test_the_oldest_of_a_destination_come_first(do: Words) -> None:
    ids = [await do.enqueue(f"u{number}@example.com") for number in range(5)]
    leased = await do.lease(limit=3)
    assert [item.envelope.message_id for item in leased] == ids[:3]


async def test_busy_destinations_are_left_alone(do: Words) -> None:
    await do.enqueue("a@busy.example")
    await do.enqueue("a@free.example")
    items = await do.lease(busy_destinations=("busy.example",))
    assert [item.destination for item in items] == ["free.example"]


async def test_of_a_destination_no_more_are_leased_than_the_worker_asks_for(do: Words) -> None:
    await do.enqueue_many(600, "flood.example")
    await do.enqueue("a@quiet.example")
    for _ in range(2):
        items = await do.lease(limit=50, limit_per_destination=3)
        destinations = Counter(item.destination for item in items)
        assert destinations["flood.example"] == 3
    assert len(await do.lease(limit=50)) == 50


async def test_an_untried_item_is_due_at_once_and_counts_no_attempt(
    store: Opened, do: Words
) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    report = ItemReport(item.lease_id, item.fence, untried=True)
    assert await store.queue.report([report], {}) == [True]
    (again,) = await do.lease()
    assert again.attempt == 1


async def test_a_worker_that_waits_is_woken_by_new_mail(store: Opened, do: Words) -> None:
    waiting = asyncio.create_task(store.queue.lease(limit=1, seconds=60, wait=30, worker="patient"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await do.enqueue("a@example.com")
    (item,) = await asyncio.wait_for(waiting, 5)
    assert item.destination == "example.com"


async def test_a_worker_that_waits_in_vain_gets_nothing(store: Opened) -> None:
    assert await store.queue.lease(limit=1, seconds=60, wait=0.05, worker="w") == []


async def test_a_held_item_is_not_leased(store: Opened, do: Words) -> None:
    held = await do.enqueue("a@example.com")
    await store.queue.hold(QueueFilter(message_id=held))
    assert await do.lease() == []
    await store.queue.release(QueueFilter(message_id=held))
    assert len(await do.lease()) == 1
