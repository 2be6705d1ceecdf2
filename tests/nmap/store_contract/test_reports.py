"""Outcomes: who leaves the queue, who waits, who is told."""

import pytest
from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Expansion,
    ItemReport,
    QueueFilter,
    Recipient,
    RecipientReport,
)
from netmail_nmap.domain.dsn import Notify

from tests.nmap.store_contract.engines import SCHEDULE, Clock, Opened
from tests.nmap.store_contract.words import Words

DELIVERED, DEFERRED, FAILED = (
    DeliveryOutcome.DELIVERED,
    DeliveryOutcome.DEFERRED,
    DeliveryOutcome.FAILED,
)


async def queued(store: Opened) -> list[str]:
    messages, _ = await store.queue.list_queue(QueueFilter(), page_size=100)
    return [recipient.address for message in messages for recipient in message.recipients]


async def test_what_is_delivered_leaves_the_queue_silently(
    store: Opened, alice: int, do: Words
) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    assert await do.report(item, DELIVERED, "2.0.0", sender=Expansion((alice,)))
    assert await queued(store) == []
    assert await do.bodies(alice) == []


async def test_a_deferred_item_waits_for_its_next_attempt(
    store: Opened, do: Words, clock: Clock
) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    await do.report(item, DEFERRED, "4.4.1", diagnostic="smtp; 421 later", remote_mta="mx")
    assert await do.lease() == []
    messages, _ = await store.queue.list_queue(QueueFilter(), page_size=10)
    (recipient,) = messages[0].recipients
    assert (recipient.last_status, recipient.last_diagnostic) == ("4.4.1", "smtp; 421 later")
    assert recipient.due_in == SCHEDULE.first_retry
    clock.now += SCHEDULE.first_retry
    (again,) = await do.lease()
    assert again.attempt == 2


async def test_a_failure_is_told_to_a_sender_here(store: Opened, alice: int, do: Words) -> None:
    await do.enqueue("a@example.com", sender="alice@example.org")
    (item,) = await do.lease()
    reports = [ItemReport(item.lease_id, item.fence, (RecipientReport("a@example.com", FAILED),))]
    assert await store.queue.report_senders(reports) == ["alice@example.org"]
    await do.report(
        item,
        FAILED,
        "5.1.1",
        diagnostic="smtp; 550 5.1.1 unknown",
        remote_mta="mx.example.com",
        sender=Expansion((alice,)),
    )
    (notification,) = await do.bodies(alice)
    assert b"Action: failed" in notification
    assert b"Status: 5.1.1" in notification
    assert b"550 5.1.1 unknown" in notification
    assert b"Reporting-MTA: dns; mail1.example.org" in notification
    assert b"Hello there." in notification
    assert await queued(store) == []


async def test_a_failure_is_sent_to_a_sender_elsewhere(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com", sender="carol@example.net")
    (item,) = await do.lease()
    await do.report(item, FAILED, "5.0.0", sender=Expansion(remote=("carol@example.net",)))
    (notification,) = await do.lease()
    assert notification.envelope.sender == ""
    assert [r.address for r in notification.envelope.recipients] == ["carol@example.net"]
    assert notification.data is not None
    assert b"Action: failed" in notification.data


async def test_a_sender_nobody_could_look_up_is_told_by_the_queue(do: Words) -> None:
    await do.enqueue("a@example.com", sender="carol@example.net")
    (item,) = await do.lease()
    await do.report(item, FAILED, "5.0.0")
    (notification,) = await do.lease()
    assert [r.address for r in notification.envelope.recipients] == ["carol@example.net"]


async def test_the_null_sender_is_never_told(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com", sender="")
    (item,) = await do.lease()
    await do.report(item, FAILED, "5.0.0")
    assert await queued(store) == []


async def test_a_notification_that_fails_is_the_end(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com", sender="carol@example.net")
    (item,) = await do.lease()
    await do.report(item, FAILED, "5.0.0")
    (notification,) = await do.lease()
    await do.report(notification, FAILED, "5.0.0")
    assert await queued(store) == []


@pytest.mark.parametrize(
    "notify", [Notify(never=True, given=True), Notify(success=True, given=True)]
)
async def test_who_did_not_ask_for_failures_is_not_told(
    store: Opened, do: Words, notify: Notify
) -> None:
    await do.enqueue(Recipient("a@example.com", notify))
    (item,) = await do.lease()
    await do.report(item, FAILED, "5.0.0")
    assert await queued(store) == []


@pytest.mark.parametrize(
    ("more", "action"),
    [
        ({"remote_mta": "mx.example.com"}, b"Action: relayed"),
        ({"final": True}, b"Action: delivered"),
        ({"remote_mta": "mx.example.com", "dsn_passed_on": True}, None),
    ],
)
async def test_success_is_told_unless_the_next_hop_will(
    alice: int, do: Words, more: dict[str, object], action: bytes | None
) -> None:
    recipient = Recipient("a@example.com", Notify(success=True, given=True))
    await do.enqueue(recipient, sender="alice@example.org")
    (item,) = await do.lease()
    await do.report(item, DELIVERED, "2.0.0", sender=Expansion((alice,)), **more)
    found = await do.bodies(alice)
    assert [action in body for body in found if action] == ([True] if action else [])
    assert len(found) == (action is not None)


async def test_a_delay_is_told_once(alice: int, do: Words, clock: Clock) -> None:
    await do.enqueue("a@example.com", sender="alice@example.org")
    for _ in range(3):
        clock.now += SCHEDULE.delay_warning
        (item,) = await do.lease()
        await do.report(item, DEFERRED, "4.4.1", sender=Expansion((alice,)))
    (notification,) = await do.bodies(alice)
    assert b"Action: delayed" in notification
    assert b"Will-Retry-Until:" in notification


async def test_after_its_lifetime_a_message_is_returned(
    store: Opened, alice: int, do: Words, clock: Clock
) -> None:
    await do.enqueue("a@example.com", sender="alice@example.org")
    clock.now += SCHEDULE.lifetime
    (item,) = await do.lease()
    await do.report(item, DEFERRED, "4.4.1", sender=Expansion((alice,)))
    (notification,) = await do.bodies(alice)
    assert b"Action: failed" in notification
    assert b"Status: 4.4.7" in notification
    assert await queued(store) == []


async def test_recipients_of_one_item_part_ways(store: Opened, alice: int, do: Words) -> None:
    addresses = ("a@example.com", "b@example.com", "c@example.com", "d@example.com")
    await do.submit(
        do.envelope(*addresses, sender="alice@example.org"),
        *(Expansion(remote=(address,)) for address in addresses),
    )
    (item,) = await do.lease()
    report = ItemReport(
        item.lease_id,
        item.fence,
        (
            RecipientReport("a@example.com", DELIVERED, "2.0.0"),
            RecipientReport("b@example.com", FAILED, "5.1.1"),
            RecipientReport("c@example.com", DEFERRED, "4.2.2"),
            RecipientReport("stranger@example.com", FAILED, "5.1.1"),
        ),
    )
    assert await store.queue.report([report], {"alice@example.org": Expansion((alice,))}) == [True]
    assert await queued(store) == ["c@example.com", "d@example.com"]
    (notification,) = await do.bodies(alice)
    assert b"b@example.com" in notification
    assert b"stranger" not in notification


async def test_a_report_twice_in_one_call_counts_once(store: Opened, do: Words) -> None:
    await do.enqueue("a@example.com")
    (item,) = await do.lease()
    report = ItemReport(
        item.lease_id, item.fence, (RecipientReport("a@example.com", FAILED, "5.0.0"),)
    )
    assert await store.queue.report([report, report], {}) == [True, False]
    assert len(await do.lease()) == 1


async def test_reports_of_many_leases_come_in_one_call(store: Opened, do: Words) -> None:
    for number in range(20):
        await do.enqueue(f"u{number}@d{number}.example")
    reports = [
        ItemReport(
            item.lease_id,
            item.fence,
            tuple(RecipientReport(r.address, DELIVERED) for r in item.envelope.recipients),
        )
        for item in await do.lease(limit=50)
    ]
    assert await store.queue.report(reports, {}) == [True] * 20
    assert await queued(store) == []
