"""Taking messages: into mailboxes, into the queue, each once."""

import asyncio
import os

from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Expansion,
    Recipient,
    Submission,
    SubmitOutcome,
)
from netmail_nmap.domain.dsn import Notify

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import PLAIN, Words

RETURN_PATH = b"Return-Path: <sender@example.net>\r\n"


async def test_a_local_message_is_in_inbox_with_its_return_path(alice: int, do: Words) -> None:
    result = await do.submit(do.envelope("alice@example.org"), Expansion((alice,)))
    assert (result.outcome, result.delivered, result.queued) == (SubmitOutcome.ACCEPTED, 1, 0)
    assert await do.bodies(alice) == [RETURN_PATH + PLAIN]


async def test_the_null_sender_has_an_empty_return_path(alice: int, do: Words) -> None:
    await do.submit(do.envelope("alice@example.org", sender=""), Expansion((alice,)))
    assert await do.bodies(alice) == [b"Return-Path: <>\r\n" + PLAIN]


async def test_the_queue_does_not_see_what_local_delivery_adds(
    store: Opened, alice: int, do: Words
) -> None:
    result = await do.submit(
        do.envelope("alice@example.org", "far@example.com"),
        Expansion((alice,)),
        Expansion(remote=("far@example.com",)),
    )
    assert (result.delivered, result.queued) == (1, 1)
    (item,) = await do.lease()
    assert (item.data, item.size) == (PLAIN, len(PLAIN))
    read = [part async for part in store.queue.read_message(item.lease_id, item.fence)]
    assert b"".join(read) == PLAIN


async def test_local_recipients_share_one_body(alice: int, bob: int, do: Words) -> None:
    await do.submit(
        do.envelope("alice@example.org", "bob@example.org"), Expansion((alice,)), Expansion((bob,))
    )
    ids = [list((await do.open(user)).messages.object_ids) for user in (alice, bob)]
    assert ids[0] == ids[1]
    assert await do.bodies(bob) == [RETURN_PATH + PLAIN]


async def test_a_message_id_is_taken_once(alice: int, do: Words) -> None:
    envelope = do.envelope("alice@example.org", "far@example.com")
    to = (Expansion((alice,)), Expansion(remote=("far@example.com",)))
    await do.submit(envelope, *to)
    again = await do.submit(envelope, *to)
    assert again.outcome is SubmitOutcome.ACCEPTED
    assert len(await do.bodies(alice)) == 1
    assert len(await do.lease()) == 1


async def test_a_message_id_twice_in_one_call_is_taken_once(
    store: Opened, alice: int, do: Words
) -> None:
    submission = Submission(do.envelope("alice@example.org"), PLAIN, (Expansion((alice,)),))
    results = await store.queue.submit([submission, submission])
    assert [result.outcome for result in results] == [SubmitOutcome.ACCEPTED] * 2
    assert len(await do.bodies(alice)) == 1


async def test_two_addresses_of_a_user_are_one_copy(alice: int, do: Words) -> None:
    result = await do.submit(
        do.envelope("alice@example.org", "al@example.org"), Expansion((alice,)), Expansion((alice,))
    )
    assert result.delivered == 1
    assert len(await do.bodies(alice)) == 1


async def test_forwarding_delivers_and_queues(alice: int, do: Words) -> None:
    expansion = Expansion((alice,), ("far@example.com", "elsewhere@example.net"))
    result = await do.submit(do.envelope("alice@example.org"), expansion)
    assert (result.delivered, result.queued) == (1, 2)
    items = await do.lease()
    assert sorted(item.destination for item in items) == ["example.com", "example.net"]


async def test_recipients_of_one_domain_are_one_item(do: Words) -> None:
    await do.submit(
        do.envelope("a@example.com", "b@EXAMPLE.com", "c@example.net"),
        Expansion(remote=("a@example.com",)),
        Expansion(remote=("b@EXAMPLE.com",)),
        Expansion(remote=("c@example.net",)),
    )
    items = {item.destination: item for item in await do.lease()}
    assert [r.address for r in items["example.com"].envelope.recipients] == [
        "a@example.com",
        "b@EXAMPLE.com",
    ]
    assert set(items) == {"example.com", "example.net"}


async def test_who_vanished_since_rcpt_is_queued_so_that_the_sender_hears_of_it(
    do: Words,
) -> None:
    result = await do.submit(do.envelope("gone@example.org"), Expansion((4711,)))
    assert (result.outcome, result.queued) == (SubmitOutcome.ACCEPTED, 1)
    (item,) = await do.lease()
    assert item.envelope.recipients[0].address == "gone@example.org"
    result = await do.submit(do.envelope("never@example.org"), Expansion())
    assert result.queued == 1


async def test_a_message_is_accepted_beyond_the_quota(store: Opened, do: Words) -> None:
    user = await store.make_user("small", 10)
    assert (await do.submit(do.envelope("s@example.org"), Expansion((user,)))).delivered == 1


async def test_the_envelope_comes_back_from_the_queue(store: Opened, do: Words) -> None:
    notify = Notify(success=True, delay=True, given=True)
    envelope = do.envelope(Recipient("a@example.com", notify, "rfc822;A@example.com"))
    envelope = type(envelope)(
        envelope.message_id,
        envelope.sender,
        envelope.recipients,
        smtputf8=True,
        body_8bit=True,
        return_headers_only=True,
        envelope_id="QQ314159",
        messaging_server="mail1",
        relayed_for="alice@users.demo",
    )
    await do.submit(envelope, Expansion(remote=("a@example.com",)))
    (item,) = await do.lease()
    assert item.envelope == envelope


async def test_a_large_message_goes_to_mailboxes_and_queue(
    store: Opened, alice: int, do: Words
) -> None:
    data = b"Subject: large\r\n\r\n" + os.urandom(2_500_000)
    envelope = do.envelope("alice@example.org", "far@example.com")
    upload = store.mail.upload(limit=10_000_000, local_prefix=envelope.return_path)
    for start in range(0, len(data), 250_000):
        await upload.write(data[start : start + 250_000])
    submission = Submission(
        envelope,
        await upload.finish(),
        (Expansion((alice,)), Expansion(remote=("far@example.com",))),
    )
    (result,) = await store.queue.submit([submission])
    assert (result.delivered, result.queued) == (1, 1)
    assert await do.bodies(alice) == [RETURN_PATH + data]
    (item,) = await do.lease()
    assert item.data is None
    assert item.size == len(data)
    read = [part async for part in store.queue.read_message(item.lease_id, item.fence)]
    assert b"".join(read) == data
    assert list((await do.open(alice)).messages.sizes) == [len(RETURN_PATH) + len(data)]


async def test_many_callers_at_once_are_all_served(alice: int, bob: int, do: Words) -> None:
    await asyncio.gather(*(do.deliver_to(alice if number % 2 else bob) for number in range(100)))
    for user in (alice, bob):
        view = await do.open(user)
        assert view.messages.uids == list(range(1, 51))


async def test_a_success_notification_comes_with_the_delivery(
    store: Opened, alice: int, bob: int, do: Words
) -> None:
    recipient = Recipient("alice@example.org", Notify(success=True, given=True))
    envelope = do.envelope(recipient, sender="bob@example.org")
    submission = Submission(envelope, PLAIN, (Expansion((alice,)),), Expansion((bob,)))
    await store.queue.submit([submission])
    (notification,) = await do.bodies(bob)
    assert b"Action: delivered" in notification
    assert notification.startswith(b"Return-Path: <>\r\n")
    assert b"Hello there" not in notification


# -- handed over by another NMAP agent ---------------------------------------------------------


async def test_a_delivery_is_idempotent_for_each_recipient(
    store: Opened, alice: int, bob: int, do: Words
) -> None:
    both = do.envelope("alice@example.org", "bob@example.org")
    only_alice = type(both)(both.message_id, both.sender, both.recipients[:1])
    first = await store.queue.deliver(only_alice, PLAIN, [Expansion((alice,))])
    second = await store.queue.deliver(both, PLAIN, [Expansion((alice,)), Expansion((bob,))])
    third = await store.queue.deliver(both, PLAIN, [Expansion((alice,)), Expansion((bob,))])
    for results in (first, second, third):
        assert {result.outcome for result in results} == {DeliveryOutcome.DELIVERED}
    assert len(await do.bodies(alice)) == len(await do.bodies(bob)) == 1


async def test_a_delivery_to_nobody_fails_for_that_recipient_only(
    store: Opened, alice: int, do: Words
) -> None:
    results = await store.queue.deliver(
        do.envelope("nobody@example.org", "alice@example.org"),
        PLAIN,
        [Expansion(), Expansion((alice,))],
    )
    assert [(result.outcome, result.status) for result in results] == [
        (DeliveryOutcome.FAILED, "5.1.1"),
        (DeliveryOutcome.DELIVERED, "2.0.0"),
    ]
    assert len(await do.bodies(alice)) == 1


async def test_what_was_submitted_here_is_not_delivered_here_again(
    store: Opened, alice: int, do: Words
) -> None:
    envelope = do.envelope("alice@example.org")
    await do.submit(envelope, Expansion((alice,)))
    await store.queue.deliver(
        do.envelope("al@example.org", message_id=envelope.message_id), PLAIN, [Expansion((alice,))]
    )
    assert len(await do.bodies(alice)) == 1


async def test_a_delivery_that_is_forwarded_goes_to_the_queue_once(
    store: Opened, do: Words
) -> None:
    envelope = do.envelope("alice@example.org")
    for _ in range(2):
        await store.queue.deliver(envelope, PLAIN, [Expansion(remote=("far@example.com",))])
    assert [item.destination for item in await do.lease()] == ["example.com"]
