"""Small messages by the client that the POP/IMAP agent uses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.certificates import Identity
from netmail_common.config import Installation
from netmail_common.nmap import AppendFailed, MailboxClients, NmapChannels
from netmail_common.nmap._kept_stream import KeptStream
from netmail_common.roles import Role
from netmail_nmap.app import Running, nmap_agent

MESSAGE = b"Subject: hello\r\nFrom: a@example.net\r\n\r\nHello.\r\n"


@pytest.fixture
async def channels(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[NmapChannels]:
    made = NmapChannels(installation, "mail1", identity_for(Role.POP_IMAP))
    yield made
    await made.close()


async def alice(mail1: Running) -> int:
    found = await mail1.directory.find_login("alice")
    assert found is not None
    return found.id


def item(
    user_id: int, data: bytes = MESSAGE, *, mailbox: str = "INBOX"
) -> mailbox_pb2.AppendSmallMessageRequest:
    start = mailbox_pb2.AppendStart(user_id=user_id, mailbox=mailbox, size=len(data))
    return mailbox_pb2.AppendSmallMessageRequest(start=start, data=data)


async def sizes(clients: MailboxClients, user_id: int) -> list[int]:
    """Sizes of the messages in his INBOX."""
    opened = clients.for_server("mail1").OpenMailbox(
        mailbox_pb2.OpenMailboxRequest(user_id=user_id, name="INBOX", with_sizes=True)
    )
    return [size async for response in opened for size in response.messages.sizes]


async def test_many_messages_are_each_answered_with_their_own_uid(
    mail1: Running, channels: NmapChannels
) -> None:
    clients, user = MailboxClients(channels), await alice(mail1)
    messages = [MESSAGE + b"x" * number for number in range(100)]
    answers = await asyncio.gather(
        *(clients.append_small("mail1", item(user, data)) for data in messages)
    )
    by_uid = await sizes(clients, user)
    assert len({uid_validity for uid_validity, _ in answers}) == 1
    assert [by_uid[uid - 1] for _, uid in answers] == list(map(len, messages))


async def test_one_that_is_refused_spoils_nothing_for_its_neighbours(
    mail1: Running, channels: NmapChannels
) -> None:
    clients, user = MailboxClients(channels), await alice(mail1)
    results = await asyncio.gather(
        clients.append_small("mail1", item(user)),
        clients.append_small("mail1", item(user, mailbox="nowhere")),
        clients.append_small("mail1", item(user, b"x" * 1_100_000)),
        clients.append_small("mail1", item(user)),
        return_exceptions=True,
    )
    refused = [result.reason for result in results if isinstance(result, AppendFailed)]
    assert refused == ["MAILBOX_NOT_FOUND", "MESSAGE_TOO_BIG"]
    assert await sizes(clients, user) == [len(MESSAGE)] * 2


async def test_messages_go_on_when_the_agent_has_restarted(
    installation: Installation, channels: NmapChannels
) -> None:
    clients = MailboxClients(channels)
    for _ in range(2):
        async with nmap_agent(installation, "mail1") as mail1:
            assert await channels.for_server("mail1").wait_ready(20)
            user = await alice(mail1)
            await clients.append_small("mail1", item(user))
        with pytest.raises(AppendFailed) as raised:
            await clients.append_small("mail1", item(user))
        assert raised.value.reason == ""


async def test_a_role_that_may_not_append_is_told_so(
    mail1: Running, installation: Installation, identity_for: Callable[[Role], Identity]
) -> None:
    channels = NmapChannels(installation, "mail1", identity_for(Role.SMTP))
    try:
        with pytest.raises(AppendFailed) as raised:
            await MailboxClients(channels).append_small("mail1", item(await alice(mail1)))
        assert raised.value.reason == "ROLE_NOT_ALLOWED"
    finally:
        await channels.close()


async def test_a_stream_is_kept_for_seconds_and_then_replaced(
    mail1: Running, channels: NmapChannels
) -> None:
    stub = MailboxClients(channels).for_server("mail1")
    user = await alice(mail1)
    now = [100.0]
    opened = []

    def open_stream() -> object:
        opened.append(stub.AppendSmallMessages())  # type: ignore[call-arg] # written to
        return opened[-1]

    stream = KeptStream[
        mailbox_pb2.AppendSmallMessagesRequest, mailbox_pb2.AppendSmallMessagesResponse
    ](open_stream, clock=lambda: now[0])
    request = mailbox_pb2.AppendSmallMessagesRequest(items=[item(user)])
    for now[0], streams in ((100.0, 1), (103.9, 1), (104.1, 2), (108.0, 2), (109.0, 3)):
        response = await stream.ask(request)
        assert response is not None
        assert not response.results[0].error_reason
        assert len(opened) == streams
    assert [call.done() for call in opened] == [True, True, False]


async def test_who_is_cancelled_leaves_no_answer_for_the_next(
    mail1: Running, channels: NmapChannels
) -> None:
    stub = MailboxClients(channels).for_server("mail1")
    user = await alice(mail1)
    stream = KeptStream[
        mailbox_pb2.AppendSmallMessagesRequest, mailbox_pb2.AppendSmallMessagesResponse
    ](partial(stub.AppendSmallMessages, timeout=60))
    three = mailbox_pb2.AppendSmallMessagesRequest(items=[item(user)] * 3)
    assert await stream.ask(three) is not None
    hasty = asyncio.ensure_future(stream.ask(three))
    await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.gather(hasty, return_exceptions=True)
    response = await stream.ask(mailbox_pb2.AppendSmallMessagesRequest(items=[item(user)]))
    assert response is not None
    assert len(response.results) == 1
