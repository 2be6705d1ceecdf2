"""QueueService as the SMTP agent, `deliver` and operators use it."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from netmail.nmap.v1 import queue_pb2 as pb
from netmail_common.grpc_errors import error_reason
from netmail_nmap.domain.mail import FetchRequest, OpenRequest

from tests.nmap.services.conftest import MAX_SIZE, Agent

SOON = 10.0
PLAIN = b"Subject: hello\r\n\r\nHello there.\r\n"
numbers = itertools.count(1)


def envelope(*recipients: str, sender: str = "sender@example.net") -> pb.Envelope:
    return pb.Envelope(
        message_id=f"message-{next(numbers):012d}",
        sender=sender,
        recipients=[pb.Recipient(address=address) for address in recipients],
    )


async def submit(
    agent: Agent, *envelopes: pb.Envelope, data: bytes = PLAIN
) -> list[pb.SubmitResult]:
    items = [pb.Submission(envelope=each, data=data) for each in envelopes]
    call = agent.submit.Submit(iter([pb.SubmitRequest(items=items)]), timeout=SOON)
    return [result async for response in call for result in response.results]


async def stored(agent: Agent, user: str = "alice") -> list[bytes]:
    user_id = agent.users[user]
    view = await agent.store.mail.open_mailbox(OpenRequest(user_id, "INBOX"))
    request = FetchRequest(user_id, view.state.mailbox_id, view.messages.uids, body=True)
    whole: dict[int, bytes] = {}
    async for batch in agent.store.mail.fetch(request):
        for part in batch:
            whole[part.uid] = whole.get(part.uid, b"") + part.body
    return list(whole.values())


async def lease(agent: Agent, wait: int = 0) -> list[pb.LeasedItem]:
    request = pb.LeaseRequest(limit=10, lease_seconds=60, wait_seconds=wait, worker="test")
    return list((await agent.work.Lease(request, timeout=SOON)).items)


async def test_a_batch_is_answered_item_by_item(agent: Agent) -> None:
    good, far = envelope("alice@example.org"), envelope("a@example.com", "bob@example.org")
    bad, nobody = envelope("alice@example.org"), envelope()
    bad.message_id = "short"
    results = await submit(agent, good, bad, far, nobody, good)
    assert [result.outcome for result in results] == [
        pb.SUBMIT_OUTCOME_ACCEPTED,
        pb.SUBMIT_OUTCOME_INVALID,
        pb.SUBMIT_OUTCOME_ACCEPTED,
        pb.SUBMIT_OUTCOME_INVALID,
        pb.SUBMIT_OUTCOME_ACCEPTED,
    ]
    assert [(result.delivered, result.queued) for result in results[:3]] == [(1, 0), (0, 0), (1, 1)]
    assert await stored(agent) == [b"Return-Path: <sender@example.net>\r\n" + PLAIN]


@pytest.mark.parametrize("odd", ["a\r\nX: y@b.example", "a\0@b.example", "no-at-sign"])
async def test_an_address_cannot_continue_a_header(agent: Agent, odd: str) -> None:
    (result,) = await submit(agent, envelope(odd))
    assert result.outcome == pb.SUBMIT_OUTCOME_INVALID
    if "@" in odd:
        (result,) = await submit(agent, envelope("alice@example.org", sender=odd))
        assert result.outcome == pb.SUBMIT_OUTCOME_INVALID


def parts(
    first: pb.Envelope, data: bytes, kind: type, *, finish: bool = True
) -> AsyncIterator[Any]:
    async def requests() -> AsyncIterator[Any]:
        yield kind(envelope=first)
        for start in range(0, len(data), 200_000):
            yield kind(data=data[start : start + 200_000])
        if finish:
            yield kind(end=pb.SubmitEnd())

    return requests()


async def test_a_stream_takes_a_large_message(agent: Agent) -> None:
    data = b"Subject: large\r\n\r\n" + os.urandom(2_000_000)
    response = await agent.submit.SubmitStream(
        parts(envelope("alice@example.org", "a@example.com"), data, pb.SubmitStreamRequest),
        timeout=SOON,
    )
    assert (response.result.outcome, response.result.delivered, response.result.queued) == (
        pb.SUBMIT_OUTCOME_ACCEPTED,
        1,
        1,
    )
    assert await stored(agent) == [b"Return-Path: <sender@example.net>\r\n" + data]
    (item,) = await lease(agent)
    assert not item.data_included
    request = pb.ReadMessageRequest(lease_id=item.lease_id, fence=item.fence)
    read = [response.data async for response in agent.work.ReadMessage(request, timeout=SOON)]
    assert b"".join(read) == data


async def test_a_stream_without_its_end_stores_nothing(agent: Agent) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agent.submit.SubmitStream(
            parts(
                envelope("alice@example.org"),
                b"A: b\r\n\r\n" + b"x" * 1_500_000,
                pb.SubmitStreamRequest,
                finish=False,
            ),
            timeout=SOON,
        )
    assert error_reason(raised.value) == "INVALID_REQUEST"
    assert await stored(agent) == []


async def test_a_stream_beyond_the_limit_is_invalid(agent: Agent) -> None:
    response = await agent.submit.SubmitStream(
        parts(envelope("alice@example.org"), b"x" * (MAX_SIZE + 1), pb.SubmitStreamRequest),
        timeout=SOON,
    )
    assert response.result.outcome == pb.SUBMIT_OUTCOME_INVALID


@pytest.mark.parametrize("kind", [pb.SubmitStreamRequest, pb.DeliverRequest])
async def test_a_refusal_waits_for_the_rest_of_the_stream(agent: Agent, kind: type) -> None:
    """Else the client's write fails first, and it never learns why."""
    bad = envelope("alice@example.org")
    bad.message_id = "short"
    requests = parts(bad, b"x" * 2_000_000, kind)
    call: Any = agent.submit.SubmitStream if kind is pb.SubmitStreamRequest else agent.work.Deliver
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(requests, timeout=SOON)
    assert error_reason(raised.value) == "INVALID_REQUEST"


async def test_a_small_message_comes_along_with_its_lease(agent: Agent) -> None:
    sent = envelope("a@example.com")
    sent.recipients[0].notify_given = True
    sent.recipients[0].notify_delay = True
    await submit(agent, sent)
    (item,) = await lease(agent)
    assert item.data_included
    assert item.data == PLAIN
    assert item.envelope == sent
    assert (item.attempt, item.destination) == (1, "example.com")


async def test_a_failure_reaches_the_sender_with_the_report(agent: Agent) -> None:
    await submit(agent, envelope("a@example.com", sender="alice@example.org"))
    (item,) = await lease(agent)
    report = pb.ItemReport(
        lease_id=item.lease_id,
        fence=item.fence,
        recipients=[
            pb.RecipientReport(
                address="a@example.com",
                outcome=pb.DELIVERY_OUTCOME_FAILED,
                status="5.1.1",
                diagnostic="smtp; 550 5.1.1 no such user",
                remote_mta="mx.example.com",
            )
        ],
    )
    response = await agent.work.Report(pb.ReportRequest(items=[report, report]), timeout=SOON)
    assert [result.accepted for result in response.results] == [True, False]
    (notification,) = await stored(agent)
    assert b"550 5.1.1 no such user" in notification


async def test_a_report_without_an_outcome_is_refused(agent: Agent) -> None:
    await submit(agent, envelope("a@example.com"))
    (item,) = await lease(agent)
    report = pb.ItemReport(
        lease_id=item.lease_id,
        fence=item.fence,
        recipients=[pb.RecipientReport(address="a@example.com")],
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agent.work.Report(pb.ReportRequest(items=[report]), timeout=SOON)
    assert error_reason(raised.value) == "INVALID_REQUEST"


async def test_a_delivery_is_answered_for_each_recipient(agent: Agent) -> None:
    sent = envelope("alice@example.org", "nobody@example.org")
    for _ in range(2):
        response = await agent.work.Deliver(parts(sent, PLAIN, pb.DeliverRequest), timeout=SOON)
        assert [(result.outcome, result.status) for result in response.results] == [
            (pb.DELIVERY_OUTCOME_DELIVERED, "2.0.0"),
            (pb.DELIVERY_OUTCOME_FAILED, "5.1.1"),
        ]
    assert len(await stored(agent)) == 1


async def test_a_success_notification_is_there_with_the_answer(agent: Agent) -> None:
    sent = envelope("alice@example.org", sender="bob@example.org")
    sent.recipients[0].notify_given = sent.recipients[0].notify_success = True
    await submit(agent, sent)
    (notification,) = await stored(agent, "bob")
    assert b"Action: delivered" in notification


async def test_a_waiting_lease_ends_with_the_drain(agent: Agent) -> None:
    agent.queue_service.drain()
    assert await lease(agent, wait=60) == []


async def test_a_waiting_lease_is_woken(agent: Agent) -> None:
    waiting = asyncio.create_task(lease(agent, wait=8))
    await asyncio.sleep(0.05)
    await submit(agent, envelope("a@example.com"))
    assert len(await waiting) == 1


async def test_operators_see_and_change_the_queue(agent: Agent) -> None:
    first, second = envelope("a@example.com"), envelope("b@example.net")
    await submit(agent, first, second)
    page = await agent.operate.ListQueue(pb.ListQueueRequest(page_size=1))
    rest = await agent.operate.ListQueue(pb.ListQueueRequest(page_token=page.next_page_token))
    listed = [*page.messages, *rest.messages]
    assert [message.message_id for message in listed] == [first.message_id, second.message_id]
    assert listed[0].recipients[0].state == pb.QUEUE_STATE_READY
    by_domain = pb.QueueFilter(destination="example.com")
    held = await agent.operate.HoldQueue(pb.HoldQueueRequest(filter=by_domain))
    assert held.changed == 1
    shown = await agent.operate.GetQueueMessage(
        pb.GetQueueMessageRequest(message_id=first.message_id)
    )
    assert shown.message.recipients[0].state == pb.QUEUE_STATE_HELD
    assert shown.header == b"Subject: hello\r\n\r\n"
    released = await agent.operate.ReleaseQueue(pb.ReleaseQueueRequest(filter=by_domain))
    assert released.changed == 1
    everything = pb.QueueFilter(all=True)
    retried = await agent.operate.RetryQueue(pb.RetryQueueRequest(filter=everything))
    assert retried.changed == 2
    removed = await agent.operate.RemoveQueue(pb.RemoveQueueRequest(filter=everything))
    assert removed.changed == 2
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agent.operate.RemoveQueue(pb.RemoveQueueRequest())
    assert error_reason(raised.value) == "INVALID_REQUEST"


async def test_another_role_is_refused(agent: Agent) -> None:
    request = pb.LeaseRequest(limit=1, lease_seconds=1)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agent.submit.Lease(request, timeout=SOON)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
