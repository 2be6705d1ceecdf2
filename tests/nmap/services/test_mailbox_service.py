"""MailboxService as POP3 and IMAP use it."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from netmail.nmap.v1 import mailbox_pb2 as pb
from netmail_common.grpc_errors import error_reason
from netmail_nmap.adapters.sql import Transaction, UserEnded

from tests.nmap.services.conftest import MAX_SIZE, Agent

SOON = 10.0


async def append(
    agent: Agent,
    data: bytes,
    *,
    user: str = "alice",
    mailbox: str = "INBOX",
    flags: tuple[str, ...] = (),
    finish: bool = True,
) -> pb.AppendMessageResponse:
    async def requests() -> AsyncIterator[pb.AppendMessageRequest]:
        start = pb.AppendStart(
            user_id=agent.users[user], mailbox=mailbox, flags=flags, size=len(data)
        )
        yield pb.AppendMessageRequest(start=start)
        for position in range(0, len(data), 256 * 1024):
            yield pb.AppendMessageRequest(data=data[position : position + 256 * 1024])
        if finish:
            yield pb.AppendMessageRequest(end=pb.AppendEnd())

    return await agent.mailboxes.AppendMessage(requests(), timeout=SOON)


async def opened(agent: Agent, name: str = "INBOX") -> list[pb.OpenMailboxResponse]:
    request = pb.OpenMailboxRequest(
        user_id=agent.users["alice"], name=name, with_sizes=True, with_object_ids=True
    )
    return [response async for response in agent.mailboxes.OpenMailbox(request, timeout=SOON)]


async def state(agent: Agent, name: str = "INBOX") -> pb.MailboxState:
    return (await opened(agent, name))[0].state


async def uids(agent: Agent, name: str = "INBOX") -> list[int]:
    return [uid for response in await opened(agent, name) for uid in response.messages.uids]


async def refused(call: Any) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), error_reason(raised.value)


async def test_a_message_goes_in_and_comes_out_octet_for_octet(agent: Agent) -> None:
    data = b"Subject: x\r\n\r\n" + os.urandom(2_500_000)
    appended = await append(agent, data, flags=("\\Seen", "$Work"))
    assert appended.uid == 1
    mailbox = (await state(agent)).mailbox_id
    request = pb.FetchMessagesRequest(
        user_id=agent.users["alice"], mailbox_id=mailbox, uids=[1], body=True, flags=True, size=True
    )
    parts = [
        part
        async for response in agent.mailboxes.FetchMessages(request, timeout=SOON)
        for part in response.messages
    ]
    assert b"".join(part.body for part in parts) == data
    assert (parts[0].flags, parts[0].size) == ("$Work \\Seen", len(data))
    assert len(parts) > 1


async def test_an_append_that_is_cut_off_stores_nothing(agent: Agent) -> None:
    answer = await refused(append(agent, b"A: b\r\n\r\n" + b"x" * 2_000_000, finish=False))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert await uids(agent) == []


async def test_an_append_beyond_the_limit_is_refused(agent: Agent) -> None:
    answer = await refused(append(agent, b"x" * (MAX_SIZE + 1)))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_BIG")


async def test_errors_carry_their_reason(agent: Agent) -> None:
    user = agent.users["alice"]
    stub = agent.mailboxes
    create = pb.CreateMailboxRequest(user_id=user, name="INBOX")
    assert await refused(stub.CreateMailbox(create)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "MAILBOX_EXISTS",
    )
    delete = pb.DeleteMailboxRequest(user_id=user, name="nothing")
    assert await refused(stub.DeleteMailbox(delete)) == (
        grpc.StatusCode.NOT_FOUND,
        "MAILBOX_NOT_FOUND",
    )
    expunge = pb.ExpungeMessagesRequest(user_id=user, mailbox_id=4711, uids=[1])
    assert await refused(stub.ExpungeMessages(expunge)) == (
        grpc.StatusCode.NOT_FOUND,
        "MAILBOX_GONE",
    )
    quota = pb.GetQuotaRequest(user_id=4711)
    assert await refused(stub.GetQuota(quota)) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")


async def test_flags_copies_moves_and_expunges(agent: Agent) -> None:
    user = agent.users["alice"]
    for _ in range(3):
        await append(agent, b"A: b\r\n\r\nc")
    before = await state(agent)
    store = pb.StoreFlagsRequest(
        user_id=user,
        mailbox_id=before.mailbox_id,
        uids=[1, 2],
        mode=pb.STORE_MODE_ADD,
        flags=["\\Deleted"],
        unchanged_since=before.highest_modseq,
    )
    (stored,) = [r async for r in agent.mailboxes.StoreFlags(store, timeout=SOON)]
    assert list(stored.changed.uids) == [1, 2]
    assert stored.previous_modseq == before.highest_modseq
    again = [r async for r in agent.mailboxes.StoreFlags(store, timeout=SOON)]
    assert list(again[0].modified_uids) == [1, 2]
    copied = await agent.mailboxes.CopyMessages(
        pb.CopyMessagesRequest(
            user_id=user, mailbox_id=before.mailbox_id, uids=[3], to_name="Archive"
        )
    )
    assert list(copied.target_uids) == [1]
    moved = await agent.mailboxes.MoveMessages(
        pb.MoveMessagesRequest(
            user_id=user, mailbox_id=before.mailbox_id, uids=[3], to_name="Trash"
        )
    )
    assert list(moved.source_uids) == [3]
    expunged = await agent.mailboxes.ExpungeMessages(
        pb.ExpungeMessagesRequest(user_id=user, mailbox_id=before.mailbox_id, all_deleted=True)
    )
    assert list(expunged.expunged_uids) == [1, 2]
    assert await uids(agent) == []
    sync = pb.SyncMailboxRequest(
        user_id=user, mailbox_id=before.mailbox_id, since_modseq=before.highest_modseq
    )
    (synced,) = [r async for r in agent.mailboxes.SyncMailbox(sync, timeout=SOON)]
    assert list(synced.expunged_uids) == [1, 2, 3]
    assert synced.state.highest_modseq == expunged.highest_modseq


async def test_mailboxes_are_made_listed_renamed_and_subscribed(agent: Agent) -> None:
    user = agent.users["alice"]
    stub = agent.mailboxes
    created = await stub.CreateMailbox(pb.CreateMailboxRequest(user_id=user, name="a/b"))
    assert created.mailbox.selectable
    await stub.SetSubscribed(pb.SetSubscribedRequest(user_id=user, name="a/b", subscribed=True))
    await stub.RenameMailbox(pb.RenameMailboxRequest(user_id=user, from_name="a/b", to_name="c"))
    listed = await stub.ListMailboxes(
        pb.ListMailboxesRequest(user_id=user, name="c", with_status=True)
    )
    assert [(m.name, m.status.uid_next) for m in listed.mailboxes] == [("c", 1)]
    await stub.DeleteMailbox(pb.DeleteMailboxRequest(user_id=user, name="c"))
    quota = await stub.GetQuota(pb.GetQuotaRequest(user_id=user))
    assert (quota.used_bytes, quota.limit_bytes) == (0, 0)


async def test_a_search_key_arrives_as_it_was_meant(agent: Agent) -> None:
    await append(agent, b"Subject: one\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nbody\r\n")
    await append(agent, b"Subject: two\r\n\r\nother\r\n", flags=("\\Seen",))
    mailbox = (await state(agent)).mailbox_id
    key = pb.SearchKey

    async def found(wanted: pb.SearchKey) -> list[int]:
        request = pb.SearchMessagesRequest(
            user_id=agent.users["alice"], mailbox_id=mailbox, key=wanted
        )
        answers = agent.mailboxes.SearchMessages(request, timeout=SOON)
        return [uid async for response in answers for uid in response.uids]

    on = pb.SearchDate(relation=pb.DATE_RELATION_ON, day=20_780)
    subject = key(header=pb.SearchHeader(name="Subject", value="ONE"))
    negated = key()
    getattr(negated, "not").CopyFrom(key(flag="\\Seen"))
    ranges = pb.UidSet(ranges=[pb.UidRange(first=2, last=9)])
    assert await found(key(all=True)) == [1, 2]
    assert await found(subject) == [1]
    assert await found(negated) == [1]
    assert await found(key(body="other")) == [2]
    assert await found(key(text="two")) == [2]
    assert await found(key(sent_date=on)) == [1]
    assert await found(key(uids=ranges)) == [2]
    assert await found(key(larger=50)) == [1]
    assert await found(key(smaller=50)) == [2]
    assert await found(key(any_of=pb.SearchKeys(keys=[subject, key(flag="\\Seen")]))) == [1, 2]
    assert await found(key(all_of=pb.SearchKeys(keys=[subject, key(flag="\\Seen")]))) == []
    today = pb.SearchDate(relation=pb.DATE_RELATION_SINCE, day=20_000)
    assert await found(key(internal_date=today)) == [1, 2]
    assert await found(key(saved_date=today)) == [1, 2]
    assert await found(key(modseq_at_least=3)) == [2]
    request = pb.SearchMessagesRequest(user_id=agent.users["alice"], mailbox_id=mailbox)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        _ = [r async for r in agent.mailboxes.SearchMessages(request, timeout=SOON)]
    assert error_reason(raised.value) == "INVALID_REQUEST"


class Requests(AsyncIterator[Any]):
    """A request stream that a test writes to."""

    def __init__(self, *first: object) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        for request in first:
            self._queue.put_nowait(request)

    def send(self, request: object) -> None:
        self._queue.put_nowait(request)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __anext__(self) -> Any:
        request = await self._queue.get()
        if request is None:
            raise StopAsyncIteration
        return request


async def test_changes_reach_a_watch_within_100_ms(agent: Agent) -> None:
    mailbox = (await state(agent)).mailbox_id
    requests = Requests(pb.WatchMailboxesRequest(add_mailbox_ids=[mailbox]))
    call = agent.mailboxes.WatchMailboxes(requests, timeout=SOON)
    responses = aiter(call)
    first = await anext(responses)
    assert [change.mailbox_id for change in first.changes] == [mailbox]
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(5):
        await append(agent, b"A: b\r\n\r\nc")
        start = loop.time()
        told = await anext(responses)
        delays.append(loop.time() - start)
        assert told.changes[0].highest_modseq == (await state(agent)).highest_modseq
    assert sorted(delays)[2] < 0.1
    requests.end()
    assert [response async for response in responses] == []


async def test_a_watch_tells_of_users_whose_sessions_end(agent: Agent) -> None:
    alice, bob = agent.users["alice"], agent.users["bob"]
    requests = Requests(pb.WatchMailboxesRequest(add_user_ids=[alice]))
    mailbox = (await state(agent)).mailbox_id
    requests.send(pb.WatchMailboxesRequest(add_mailbox_ids=[mailbox]))
    responses = aiter(agent.mailboxes.WatchMailboxes(requests, timeout=SOON))
    await anext(responses)
    for user in (bob, alice):
        await agent.store.core.writer.run(functools.partial(_end, user))
    assert list((await anext(responses)).ended_user_ids) == [alice]
    requests.end()


def _end(user: int, transaction: Transaction) -> None:
    transaction.events.append(UserEnded(user))


async def test_a_drain_ends_watches(agent: Agent) -> None:
    watched = aiter(agent.mailboxes.WatchMailboxes(Requests(), timeout=SOON))
    await asyncio.sleep(0.05)
    agent.mailbox_service.drain()
    assert [response async for response in watched] == []
