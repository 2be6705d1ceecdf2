"""Submitting through the client that the SMTP agent uses."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from netmail.nmap.v1 import mailbox_pb2, queue_pb2
from netmail_common.certificates import Identity
from netmail_common.config import Installation
from netmail_common.nmap import (
    Accepted,
    MailboxClients,
    NmapChannels,
    QueueClient,
    QueueClients,
    QueueInsufficientStorage,
    QueueRefused,
    QueueUnavailable,
)
from netmail_common.roles import Role
from netmail_nmap.app import Running, nmap_agent

HEADER = b"Subject: hello\r\nFrom: a@example.net\r\n\r\n"


def envelope(number: int, *recipients: str) -> queue_pb2.Envelope:
    return queue_pb2.Envelope(
        message_id=f"test-message-{number:06}",
        sender="a@example.net",
        recipients=[queue_pb2.Recipient(address=address) for address in recipients],
        messaging_server="mail1",
    )


@pytest.fixture
async def channels(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[NmapChannels]:
    made = NmapChannels(installation, "mail1", identity_for(Role.ADMIN))
    yield made
    await made.close()


async def sizes(channels: NmapChannels, mail1: Running) -> list[int]:
    """Sizes of the messages in alice's INBOX."""
    alice = await mail1.directory.find_login("alice")
    assert alice is not None
    opened = (
        MailboxClients(channels)
        .for_server("mail1")
        .OpenMailbox(
            mailbox_pb2.OpenMailboxRequest(user_id=alice.id, name="INBOX", with_sizes=True)
        )
    )
    return [size async for response in opened for size in response.messages.sizes]


async def test_many_submissions_are_each_answered(mail1: Running, channels: NmapChannels) -> None:
    client = QueueClient(channels)
    results = await asyncio.gather(
        *(client.submit(envelope(n, "alice@example.org"), HEADER) for n in range(30)),
        client.submit(envelope(99, "alice@example.org", "x@example.net"), HEADER),
    )
    assert results == [Accepted(1, 0)] * 30 + [Accepted(1, 1)]
    assert len(await sizes(channels, mail1)) == 31
    # The same message id again changes nothing.
    await client.submit(envelope(7, "alice@example.org"), HEADER)
    assert len(await sizes(channels, mail1)) == 31


async def test_an_invalid_one_spoils_nothing_for_its_neighbours(
    mail1: Running, channels: NmapChannels
) -> None:
    client = QueueClient(channels)
    good, bad = await asyncio.gather(
        client.submit(envelope(1, "alice@example.org"), HEADER),
        client.submit(queue_pb2.Envelope(message_id="x"), HEADER),
        return_exceptions=True,
    )
    assert good == Accepted(1, 0)
    assert isinstance(bad, QueueRefused)
    assert bad.smtp[0] == 554


async def test_a_large_message_is_streamed(mail1: Running, channels: NmapChannels) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield HEADER
        for _ in range(3):
            yield b"x" * 998 + b"\r\n" + b"y" * 999_000

    client = QueueClient(channels)
    result = await client.submit_stream(envelope(1, "alice@example.org"), chunks())
    assert result == Accepted(1, 0)
    (size,) = await sizes(channels, mail1)
    assert size >= len(HEADER) + 3_000_000


async def test_a_stream_that_breaks_off_stores_nothing(
    mail1: Running, channels: NmapChannels
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield HEADER
        raise ConnectionResetError

    client = QueueClient(channels)
    with pytest.raises(ConnectionResetError):
        await client.submit_stream(envelope(1, "alice@example.org"), chunks())
    with pytest.raises(QueueRefused):
        await client.submit_stream(queue_pb2.Envelope(message_id="x"), chunks_of(HEADER))
    assert await sizes(channels, mail1) == []


async def chunks_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_message_waits_for_an_agent_that_restarts(
    installation: Installation, channels: NmapChannels
) -> None:
    client = QueueClient(channels)
    early = asyncio.create_task(client.submit(envelope(1, "alice@example.org"), HEADER))
    async with nmap_agent(installation, "mail1"):
        assert await early == Accepted(1, 0)
    late = asyncio.create_task(client.submit(envelope(2, "alice@example.org"), HEADER))
    await asyncio.sleep(0.05)
    async with nmap_agent(installation, "mail1"):
        assert await late == Accepted(1, 0)


async def test_an_agent_that_stays_away_is_451(
    channels: NmapChannels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_common.nmap._queue._TIMEOUT", 0.2)
    with pytest.raises(QueueUnavailable) as caught:
        await QueueClient(channels).submit(envelope(1, "alice@example.org"), HEADER)
    assert caught.value.smtp[:2] == (451, "4.3.0")
    assert QueueInsufficientStorage.smtp[:2] == (452, "4.3.1")


async def test_the_queue_of_another_server_is_its_own(
    mail1: Running, channels: NmapChannels
) -> None:
    await QueueClient(channels).submit(envelope(1, "x@example.net"), HEADER)
    queue = QueueClients(channels).for_server("mail1")
    listed = await queue.ListQueue(queue_pb2.ListQueueRequest())
    assert [message.message_id for message in listed.messages] == ["test-message-000001"]
    with pytest.raises(KeyError):
        QueueClients(channels).for_server("mail9")
