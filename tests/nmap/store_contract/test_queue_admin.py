"""The queue as operators see and change it."""

import pytest
from netmail_nmap.domain.delivery import DeliveryOutcome, Expansion, QueueFilter, QueueState
from netmail_nmap.domain.errors import QueueMessageNotFound

from tests.nmap.store_contract.engines import Clock, Opened
from tests.nmap.store_contract.words import Words


async def states(store: Opened) -> dict[str, QueueState]:
    messages, _ = await store.queue.list_queue(QueueFilter(), page_size=100)
    return {r.address: r.state for message in messages for r in message.recipients}


async def test_the_queue_is_listed_in_pages(store: Opened, do: Words) -> None:
    ids = [await do.enqueue(f"u{number}@example.com") for number in range(5)]
    listed: list[str] = []
    after, pages = 0, 0
    while True:
        messages, after = await store.queue.list_queue(QueueFilter(), page_size=2, after=after)
        listed += [message.message_id for message in messages]
        pages += 1
        if not after:
            break
    assert (listed, pages) == (ids, 3)


async def test_a_filter_shows_only_what_it_means(store: Opened, do: Words) -> None:
    first = await do.enqueue("a@example.com", sender="x@example.org")
    second = await do.enqueue("b@example.net", sender="y@example.org")
    for queue_filter, wanted in (
        (QueueFilter(message_id=first), [first]),
        (QueueFilter(destination="EXAMPLE.net"), [second]),
        (QueueFilter(sender="x@example.org"), [first]),
        (QueueFilter(sender="x@example.org", destination="example.net"), []),
    ):
        messages, _ = await store.queue.list_queue(queue_filter, page_size=10)
        assert [message.message_id for message in messages] == wanted


async def test_each_state_has_its_name(store: Opened, do: Words, clock: Clock) -> None:
    await do.enqueue("leased@a.example")
    await do.enqueue("deferred@b.example")
    for item in await do.lease():
        if item.destination == "b.example":
            await do.report(item, DeliveryOutcome.DEFERRED, "4.0.0")
    await do.enqueue("ready@c.example")
    await do.enqueue("held@d.example")
    await store.queue.hold(QueueFilter(destination="d.example"))
    assert await states(store) == {
        "leased@a.example": QueueState.LEASED,
        "deferred@b.example": QueueState.DEFERRED,
        "ready@c.example": QueueState.READY,
        "held@d.example": QueueState.HELD,
    }
    clock.now += 100
    assert (await states(store))["leased@a.example"] is QueueState.READY


async def test_a_message_is_shown_with_its_header(store: Opened, do: Words) -> None:
    message_id = await do.enqueue("a@example.com")
    message, header = await store.queue.get_message(message_id)
    assert message.message_id == message_id
    assert header == b"From: bob@example.net\r\nSubject: greetings\r\n\r\n"
    with pytest.raises(QueueMessageNotFound):
        await store.queue.get_message("no-such-message-at-all")


async def test_a_retry_makes_due_what_waits(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    await do.report(item, DeliveryOutcome.DEFERRED, "4.0.0")
    assert await store.queue.retry(QueueFilter(destination="example.com")) == 1
    assert len(await do.lease()) == 1


async def test_a_retry_does_not_break_a_lease(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com")
    await do.lease()
    await store.queue.retry(QueueFilter())
    await store.queue.hold(QueueFilter())
    await store.queue.release(QueueFilter())
    assert await do.lease() == []


async def test_removing_is_silent_unless_a_bounce_is_wanted(
    store: Opened, alice: int, do: Words
) -> None:
    await do.enqueue("a@example.com", sender="alice@example.org")
    await do.enqueue("b@example.net", sender="alice@example.org")
    assert (
        await store.queue.remove(QueueFilter(destination="example.com"), bounce=False, senders={})
        == 1
    )
    assert await do.bodies(alice) == []
    assert await store.queue.bounced_senders(QueueFilter()) == ["alice@example.org"]
    senders = {"alice@example.org": Expansion((alice,))}
    assert await store.queue.remove(QueueFilter(), bounce=True, senders=senders) == 1
    (notification,) = await do.bodies(alice)
    assert b"b@example.net" in notification
    assert await states(store) == {}


async def test_a_worker_finds_the_lease_of_a_removed_item_lost(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    await store.queue.remove(QueueFilter(), bounce=False, senders={})
    assert not await do.report(item, DeliveryOutcome.DELIVERED)
