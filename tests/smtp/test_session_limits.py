"""Limits, time limits and endings of SMTP sessions, on real sockets."""

import asyncio
import base64

import pytest
from netmail_smtp.adapters.connection import Connection

from tests.loops import on_both_loops
from tests.smtp.conftest import Start
from tests.smtp.receiving import FROM_ALICE, OPEN, PLAIN_ALICE, Receiving, begin


async def test_sessions_do_not_share_limits(start: Start) -> None:
    async with start(smtp={"limits": {"command_line": 512}}) as server:
        first = await server.connect()
        for _ in range(20):
            await first.say("EHLO x.example")
        second = await server.connect()
        for client in (first, second):
            line = "MAIL FROM:<s@example.net> ENVID=" + "a" * 600
            assert (await client.say(line)).startswith("500 5.5.2")


async def test_a_line_without_end_is_not_kept(start: Start) -> None:
    async with start(smtp={"limits": {"command_line": 512}}) as server:
        client = await server.connect()
        client.send(b"x" * 500_000)
        assert (await client.say("")).startswith("500 5.5.2")
        assert (await client.say("NOOP")).startswith("250")
        client.send(b"x" * 2_000_000)
        assert (await client.reply()).startswith("500 5.5.2")
        assert await client.reply() == ""


async def test_a_command_that_trickles_in_is_timed_out(start: Start) -> None:
    async with start(smtp={"limits": {"command_timeout": 1}}) as server:
        client = await server.connect()
        for _ in range(4):
            client.send(b"N")
            await asyncio.sleep(0.3)
        assert (await client.reply()).startswith("421 4.4.2")


async def test_too_many_errors_end_the_session(start: Start) -> None:
    async with start(smtp={"limits": {"errors": 3}}) as server:
        client = await server.connect()
        for _ in range(3):
            assert (await client.say("FOO")).startswith("500 5.5.1")
        assert (await client.reply()).startswith("421 4.7.0")
        assert await client.reply() == ""


async def test_commands_without_a_message_are_counted(start: Start) -> None:
    async with start(smtp={"limits": {"commands": 10}}) as server:
        client = await server.connect()
        for _ in range(9):
            assert (await client.say("NOOP")).startswith("250")
        assert (await client.say("NOOP")).startswith("421 4.7.0")
        assert await client.reply() == ""
        client = await server.connect()
        for _ in range(5):
            reply = await client.message(FROM_ALICE, "s@example.net", "bob@example.org")
            assert reply.startswith("250")


@on_both_loops
async def test_twice_the_size_ends_the_connection_without_waiting_for_the_end(start: Start) -> None:
    async with start(smtp={"limits": {"message_size": 10_000}}) as server:
        client = await server.connect()
        await begin(client)
        client.send(b"Subject: x\r\n\r\n" + b"x" * 30_000)
        assert (await client.reply()).startswith("552 5.3.4")
        assert await client.reply() == ""
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        await client.say("RCPT TO:<bob@example.org>")
        assert (await client.say("BDAT 99999999999")).startswith("552 5.3.4")
        assert await client.reply() == ""


@on_both_loops
async def test_large_messages_are_streamed_to_the_store(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await begin(client)
        body = (b"x" * 76 + b"\r\n") * 40_000
        client.send(b"From: a@b.example\r\n\r\n" + body + b".\r\n")
        assert (await client.reply()).startswith("250")
        assert server.nmap.submit_calls == 0
        assert server.last.data.endswith(b"\r\n\r\n" + body)
        assert server.last.data.startswith(b"Received: ")
        assert server.last.envelope.recipients[0].address == "bob@example.org"


@pytest.mark.parametrize(
    ("header", "tail", "expected"),
    [
        (b"From: a@b.example\r\n\r\n", b"\n", "550 5.6.11"),
        (b"x" * 300_000 + b": y\r\n\r\n", b"", "552 5.3.4"),
        (b"", b"", "552 5.3.4"),
        (b"Received: x\r\n" * 101 + b"\r\n", b"", "554 5.4.6"),
    ],
)
async def test_a_streamed_message_that_is_refused_leaves_nothing(
    start: Start, header: bytes, tail: bytes, expected: str
) -> None:
    async with start() as server:
        client = await server.connect()
        await begin(client)
        client.send(header + (b"x" * 76 + b"\r\n") * 20_000 + tail + b"\r\n.\r\n")
        assert (await client.reply()).startswith(expected)
        assert server.nmap.submitted == []
        assert (await client.say("NOOP")).startswith("250")


@on_both_loops
async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await begin(client)
        client.send(b"From: a@b.example\r\n\r\n" + (b"x" * 76 + b"\r\n") * 20_000)
        await client.writer.drain()
        await client.close()
        async with asyncio.timeout(5):
            await server.receiver.sessions.wait_empty()
        assert server.nmap.submitted == []


async def test_a_silent_client_is_timed_out(start: Start) -> None:
    async with start(smtp={"limits": {"command_timeout": 1}}) as server:
        client = await server.connect()
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.reply() == ""


async def test_the_timer_runs_for_each_block_of_data(start: Start) -> None:
    async with start(smtp={"limits": {"data_block_timeout": 1}}) as server:
        client = await server.connect()
        await begin(client)
        for _ in range(3):
            client.send(b"x\r\n")
            await asyncio.sleep(0.5)
        assert (await client.reply()).startswith("421 4.4.2")


async def test_a_message_that_trickles_in_is_timed_out_as_a_whole(start: Start) -> None:
    async with start(smtp={"limits": {"data_timeout": 1}}) as server:
        client = await server.connect()
        await begin(client)
        for _ in range(4):
            client.send(b"x\r\n")
            await asyncio.sleep(0.3)
        assert (await client.reply()).startswith("421 4.4.2")


@on_both_loops
async def test_a_client_that_reads_nothing_does_not_fill_the_memory(start: Start) -> None:
    async with start(smtp={"limits": {"commands": 10**9}}) as server:
        client = await server.connect()
        session = next(iter(server.receiver.sessions.open_sessions()))
        line, sent = b"EHLO x.example\r\n" * 4096, 0
        try:
            async with asyncio.timeout(2):
                while True:
                    client.send(line)
                    sent += len(line)
                    await client.writer.drain()
        except TimeoutError:
            pass
        assert sent < 64 * 1024 * 1024
        assert isinstance(session, Connection)
        assert session.transport is not None
        assert session.transport.get_write_buffer_size() < 1024 * 1024
        assert len(session.input) < 1024 * 1024
        client.writer.transport.abort()


@on_both_loops
async def test_who_half_closes_still_gets_the_replies(start: Start) -> None:
    async with start() as server:
        client = await server.connect(ehlo=None)
        client.send(b"EHLO x.example\r\nNOOP\r\n")
        client.writer.write_eof()
        assert (await client.reply()).startswith("250")
        assert await client.reply() == "250 2.0.0 OK"
        assert await client.reply() == ""


async def drain(server: Receiving) -> None:
    server.receiver.sessions.drain()
    await asyncio.sleep(0)


@on_both_loops
async def test_the_drain_ends_idle_sessions_and_lets_transactions_finish(start: Start) -> None:
    async with start() as server:
        idle = await server.connect()
        busy = await server.connect()
        await begin(busy)
        await drain(server)
        assert (await idle.reply()).startswith("421 4.3.2")
        assert await idle.reply() == ""
        assert (await busy.say(FROM_ALICE + ".")).startswith("250")
        assert (await busy.reply()).startswith("421 4.3.2")
        async with asyncio.timeout(5):
            await server.receiver.sessions.wait_empty()
        late = await server.connect(greeted=False)
        assert (await late.reply()).startswith("220")
        assert (await late.reply()).startswith("421 4.3.2")


async def test_early_talkers_are_tolerated_unless_configured(start: Start) -> None:
    refusing = {"early_talkers": "refuse", "greeting_delay": 0.2}
    async with start(listeners=[{}, refusing]) as server:
        client = await server.connect(0, greeted=False, first=b"EHLO x.example\r\n")
        assert (await client.reply()).startswith("220")
        assert (await client.reply()).startswith("250")
        client = await server.connect(1, greeted=False, first=b"EHLO x.example\r\n")
        assert (await client.reply()).startswith("554 5.5.1")
        assert await client.reply() == ""
        assert (await (await server.connect(1)).say("NOOP")).startswith("250")


async def test_a_revocation_ends_the_sessions_of_the_user_only(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        await server.login("alice", "127.0.0.7")
        sessions = [await server.connect() for _ in range(4)]
        await sessions[0].say(PLAIN_ALICE)
        await sessions[1].say(PLAIN_ALICE)
        await sessions[1].say("MAIL FROM:<alice@example.org>")
        await sessions[2].say("AUTH PLAIN " + base64.b64encode(b"\0bob\0builder").decode())
        await server.revoke("alice")
        for session in sessions[:2]:
            assert (await session.reply()).startswith("421 4.7.0")
            assert await session.reply() == ""
        for session in sessions[2:]:
            assert (await session.say("NOOP")).startswith("250")
