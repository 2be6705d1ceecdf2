"""What aiosmtpd would do otherwise, each put right: octets, TLS, limits, timers, the drain."""

import asyncio
import base64
import ssl
from typing import Any

import pytest
from netmail_common.logging import get_logger
from netmail_smtp.adapters.standing import Standing
from structlog.testing import capture_logs

from tests.loops import on_both_loops
from tests.smtp.conftest import Start
from tests.smtp.receiving import FROM_ALICE, OPEN, PLAIN_ALICE, Client, begin

PLAIN_WRONG = "AUTH PLAIN AGFsaWNlAHdyb25n"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def keywords(reply: str) -> list[str]:
    return [line[4:] for line in reply.split("\n")[1:]]


async def test_ehlo_offers_everything(start: Start) -> None:
    async with start() as server:
        client = await server.connect(ehlo=None)
        assert keywords(await client.say("EHLO x.example")) == [
            "PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES",
            "SIZE 52428800", "LIMITS RCPTMAX=1000", "STARTTLS", "AUTH SCRAM-SHA-256",
        ]  # fmt: skip
        await client.start_tls(unverified())
        assert keywords(await client.say("EHLO x.example"))[-2:] == [
            "AUTH SCRAM-SHA-256 PLAIN LOGIN", "AUTH=LOGIN PLAIN",
        ]  # fmt: skip
        assert await client.say("HELO x.example") == "250 mail1.example.org"


async def test_an_extension_that_is_off_is_neither_offered_nor_taken(start: Start) -> None:
    async with start(listeners=[{"extensions": ["PIPELINING"], "auth": False}]) as server:
        client = await server.connect(ehlo=None)
        assert keywords(await client.say("EHLO x.example")) == [
            "PIPELINING", "ENHANCEDSTATUSCODES", "STARTTLS",
        ]  # fmt: skip
        for parameter in ("SIZE=1", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x"):
            reply = await client.say(f"MAIL FROM:<a@b.example> {parameter}")
            assert reply.startswith("555 5.5.4")
        await client.say("MAIL FROM:<a@b.example>")
        assert (await client.say("RCPT TO:<bob@example.org> NOTIFY=NEVER")).startswith("555 5.5.4")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("250")
        client.send(b"BDAT 4 LAST\r\nNOOPNOOP\r\n")
        assert (await client.reply()).startswith("502 5.5.1")
        assert (await client.reply()).startswith("250")
        await client.say("RSET")
        assert (await client.say(PLAIN_ALICE)).startswith("502 5.5.1")


async def test_parameters_need_ehlo(start: Start) -> None:
    async with start() as server:
        client = await server.connect(ehlo=None)
        await client.say("HELO x.example")
        assert (await client.say("MAIL FROM:<a@b.example> SIZE=1")).startswith("555 5.5.4")
        assert (await client.message(FROM_ALICE, "a@b.example", "bob@example.org"))[:3] == "250"
        assert b" with SMTP id " in server.last.data


async def test_a_pipelined_batch_is_answered_in_order_with_one_resolve(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        replies = await client.say_all(
            "MAIL FROM:<s@example.net>",
            "RCPT TO:<bob@example.org>",
            "RCPT TO:<nobody@example.org>",
            "RCPT TO:bob",
            "RCPT TO:<alice@example.org>",
            "RCPT TO:<x@example.net>",
            "DATA",
        )
        assert [r[:3] for r in replies] == ["250", "250", "550", "501", "250", "550", "354"]
        assert server.nmap.resolve_calls == 1
        assert (await client.say(FROM_ALICE + ".", "QUIT")).startswith("221")
        assert len(server.last.envelope.recipients) == 2


async def test_messages_of_many_sessions_share_submit_calls(start: Start) -> None:
    async with start() as server:
        server.nmap.submit_gate = asyncio.Event()
        clients = [await server.connect() for _ in range(8)]
        for client in clients:
            await begin(client)
            client.send(FROM_ALICE.encode() + b".\r\n")
        while not server.nmap.submit_calls:  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        server.nmap.submit_gate.set()
        replies = await asyncio.gather(*(client.reply() for client in clients))
        assert [reply[:3] for reply in replies] == ["250"] * 8
        assert server.nmap.submit_calls < 8
        assert len({item.envelope.message_id for item in server.nmap.submitted}) == 8


async def test_250_comes_only_after_the_store_has_it(start: Start) -> None:
    async with start() as server:
        server.nmap.submit_gate = asyncio.Event()
        client = await server.connect()
        await begin(client)
        client.send(FROM_ALICE.encode() + b".\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.2)
        server.nmap.submit_gate.set()
        assert (await client.reply()).startswith("250")


@pytest.mark.parametrize("end", ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r"])
async def test_a_second_message_cannot_be_smuggled_into_the_first(start: Start, end: str) -> None:
    async with start() as server:
        client = await server.connect()
        await begin(client)
        smuggled = "MAIL FROM:<evil@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nx\r\n.\r\n"
        client.send(f"Subject: x\r\n\r\nHello{end}{smuggled}".encode())
        assert (await client.reply()).startswith("550 5.6.11")
        assert (await client.say("NOOP")).startswith("250")
        assert server.nmap.submitted == []


async def test_a_bare_line_feed_does_not_end_a_command(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        client.send(b"NOOP\nMAIL FROM:<a@b.example>\r\n")
        assert (await client.reply()).startswith("500 5.5.2")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("503")


async def test_the_octets_of_the_body_stay(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await begin(client)
        body = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n.\r\n..x\r\n \r\n"
        stuffed = body.replace(b"\r\n.", b"\r\n..")
        client.send(b"Subject:  odd \r\n\tfold\r\n\r\n" + stuffed + b".\r\n")
        assert (await client.reply()).startswith("250")
        assert server.last.data.endswith(b"Subject:  odd \r\n\tfold\r\n\r\n" + body)
        assert server.last.envelope.body_8bit


async def test_chunks_make_a_message(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        await client.say("RCPT TO:<bob@example.org>")
        client.send(b"BDAT 9\r\nSubject: BDAT 7\r\nx\r\n\r\n.\rBDAT 4 LAST\r\n\r\n.\nRSET\r\n")
        assert await client.reply() == "250 2.0.0 9 octets received"
        assert (await client.reply()).startswith("250 2.0.0")
        assert (await client.reply()).startswith("550 5.6.11")
        assert await client.reply() == "250 2.0.0 OK"
        await client.say("MAIL FROM:<s@example.net>")
        await client.say("RCPT TO:<bob@example.org>")
        client.send(b"BDAT 15\r\nSubject: x\r\n\r\n\rBDAT 5\r\n\n.\r\n.BDAT 0 LAST\r\n")
        assert [(await client.reply())[:3] for _ in range(3)] == ["250"] * 3
        assert server.last.data.endswith(b"Subject: x\r\n\r\n\r\n.\r\n.")


async def test_a_refused_chunk_still_takes_its_octets(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        octets = b"MAIL FROM:<evil@example.net>\r\n"
        client.send(b"BDAT %d\r\n%sNOOP\r\n" % (len(octets), octets))
        assert (await client.reply()).startswith("503 5.5.1")
        assert (await client.reply()).startswith("250")
        await client.say("MAIL FROM:<s@example.net>")
        client.send(b"BDAT %d LAST\r\n%sNOOP\r\n" % (len(octets), octets))
        assert (await client.reply()).startswith("554 5.5.1")
        assert (await client.reply()).startswith("250")
        assert (await client.say("BDAT x")).startswith("501 5.5.4")
        assert await client.reply() == ""


async def test_data_and_bdat_do_not_mix(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        await client.say("RCPT TO:<bob@example.org>")
        await client.say("BDAT 0")
        assert (await client.say("DATA")).startswith("503")
        assert (await client.say("RCPT TO:<alice@example.org>")).startswith("503")
        assert (await client.say("RSET")).startswith("250")
        assert (await client.say("DATA")).startswith("503")


@on_both_loops
async def test_what_comes_with_starttls_ends_the_session(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        client.send(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")
        assert (await client.reply()).startswith("554 5.5.1")
        assert await client.reply() == ""


@on_both_loops
async def test_starttls_forgets_what_was_said_before(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        assert (await client.say(PLAIN_ALICE)).startswith("235")
        await client.say("MAIL FROM:<alice@example.org>")
        await client.start_tls(unverified())
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("503")
        assert (await client.say("MAIL FROM:<alice@example.org>")).startswith("503")
        assert "STARTTLS" not in await client.say("EHLO x.example")
        await client.say("MAIL FROM:<bob@example.org>")
        assert (await client.say("RCPT TO:<friend@example.net>")).startswith("550 5.7.1")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("250")
        assert (await client.say("STARTTLS")).startswith("503")
        await client.say("DATA")
        await client.say(FROM_ALICE + ".")
        assert b" with ESMTPS id " in server.last.data


@on_both_loops
async def test_starttls_keeps_the_address_that_the_proxy_named(start: Start) -> None:
    proxied = {"proxy_protocol": True, "proxy_trusted_networks": ["127.0.0.0/8"]}
    async with start(listeners=[proxied], loopback_grants=False) as server:
        await server.login("alice", "192.0.2.7")
        for claimed, expected in (("192.0.2.7", "250"), ("192.0.2.8", "550 5.7.1")):
            client = await server.connect(first=f"PROXY TCP4 {claimed} 192.0.2.1 9 25\r\n".encode())
            await client.start_tls(unverified())
            await client.say("EHLO x.example")
            reply = await client.message(FROM_ALICE, "alice@example.org", "friend@example.net")
            assert reply.startswith(expected)
        assert b"([192.0.2.7])" in server.last.data


async def test_a_proxy_that_does_not_say_who_it_is_grants_nothing(start: Start) -> None:
    proxied = {"proxy_protocol": True, "proxy_trusted_networks": ["127.0.0.0/8"]}
    async with start(listeners=[proxied, {}]) as server:
        await server.login("alice", "127.0.0.1")
        client = await server.connect(first=b"PROXY UNKNOWN\r\n")
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say("RCPT TO:<friend@example.net>")).startswith("550 5.7.1")
        direct = await server.connect(1)
        await direct.say("MAIL FROM:<alice@example.org>")
        assert (await direct.say("RCPT TO:<friend@example.net>")).startswith("250")


@on_both_loops
async def test_implicit_tls_works_behind_a_proxy_and_offers_auth(start: Start) -> None:
    listener = {
        "tls": "implicit",
        "proxy_protocol": True,
        "proxy_trusted_networks": ["127.0.0.0/8"],
    }
    async with start(listeners=[listener]) as server:
        port = server.receiver.handles[0].ports[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 9 465\r\n")
        await writer.start_tls(unverified())
        client = Client(reader, writer)
        server.clients.append(client)
        assert (await client.reply()).startswith("220")
        offered = await client.say("EHLO x.example")
        assert "AUTH SCRAM-SHA-256 PLAIN LOGIN" in offered
        assert "STARTTLS" not in offered
        assert (await client.say(PLAIN_ALICE)).startswith("235")
        reply = await client.message(FROM_ALICE, "alice@example.org", "friend@example.net")
        assert reply.startswith("250")
        assert b" with ESMTPSA id " in server.last.data
        assert b"([192.0.2.7])" in server.last.data


async def test_passwords_do_not_cross_the_wire_in_the_clear(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        assert (await client.say(PLAIN_ALICE)).startswith("538 5.7.11")
        assert (await client.say("AUTH LOGIN")).startswith("538 5.7.11")
    async with start(listeners=[{"plaintext_auth_networks": ["127.0.0.9/32"]}]) as server:
        for address, expected in (("127.0.0.9", "235"), ("127.0.0.8", "538")):
            client = await server.connect(address=address)
            assert (await client.say(PLAIN_ALICE)).startswith(expected)


async def test_auth_can_be_challenged_cancelled_and_malformed(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        assert (await client.say("AUTH LOGIN")).startswith("334 ")
        assert (await client.say("*")).startswith("501 5.7.0")
        assert (await client.say("AUTH PLAIN")).startswith("334")
        assert (await client.say("not base64!")).startswith("501 5.5.2")
        assert (await client.say("AUTH FOO")).startswith("504 5.5.4")
        assert (await client.say("AUTH LOGIN")).startswith("334 ")
        assert (await client.say(base64.b64encode(b"alice"))).startswith("334 ")
        assert (await client.say(base64.b64encode(b"wonderland"))).startswith("235 2.7.0")
        assert (await client.say(PLAIN_ALICE)).startswith("503")


async def test_auth_is_not_taken_within_a_transaction_nor_after_helo(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect(ehlo=None)
        assert (await client.say(PLAIN_ALICE)).startswith("503")
        await client.say("HELO x.example")
        assert (await client.say(PLAIN_ALICE)).startswith("502")
        await client.say("EHLO x.example")
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say(PLAIN_ALICE)).startswith("503")


async def test_three_wrong_passwords_end_the_session(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        for _ in range(3):
            assert (await client.say(PLAIN_WRONG)).startswith("535 5.7.8")
        assert (await client.reply()).startswith("421 4.7.0")
        assert await client.reply() == ""


async def test_an_error_of_ours_is_451_and_a_log_line_without_text_for_the_client(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Standing, "of", broken)
    async with start() as server:
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        with capture_logs() as logs:
            reply = await client.say("RCPT TO:<friend@example.net>")
        assert reply == "451 4.3.0 Internal error, try again later"
        assert [entry["event"] for entry in logs] == ["command failed"]
        assert (await client.say("NOOP")).startswith("250")


async def test_recipients_beyond_the_limit_are_put_off(start: Start) -> None:
    async with start(smtp={"limits": {"recipients": 100}}) as server:
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        lines = [f"RCPT TO:<bob+{n}@example.org>" for n in range(150)]
        replies = await client.say_all(*lines)
        assert [reply[:9] for reply in replies] == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 50
        await client.say("DATA")
        assert (await client.say(FROM_ALICE + ".")).startswith("250")
        assert len(server.last.envelope.recipients) == 100


async def test_a_message_too_large_is_refused_at_mail_or_at_its_end(start: Start) -> None:
    async with start(smtp={"limits": {"message_size": 10_000}}) as server:
        client = await server.connect()
        assert (await client.say("MAIL FROM:<s@example.net> SIZE=10001")).startswith("552 5.3.4")
        await begin(client)
        client.send(b"Subject: x\r\n\r\n" + b"x" * 12_000 + b"\r\n.\r\n")
        assert (await client.reply()).startswith("552 5.3.4")
        await begin(client)
        assert (await client.say(FROM_ALICE + ".")).startswith("250")


async def test_the_small_verbs(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        for line, expected in (
            ("VRFY bob", "252"),
            ("EXPN list", "252"),
            ("HELP", "214"),
            ("NOOP", "250"),
            ("RSET", "250"),
            ("DATA", "503"),
            ("RCPT TO:<bob@example.org>", "503"),
            ("QUIT", "221"),
        ):
            assert (await client.say(line)).startswith(expected)
        assert await client.reply() == ""


async def test_addresses_beyond_ascii_need_smtputf8(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        assert (await client.say("MAIL FROM:<zoë@b.example>")).startswith("553 5.6.7")
        await client.say("MAIL FROM:<s@b.example>")
        assert (await client.say("RCPT TO:<zoë@example.org>")).startswith("553 5.6.7")
        await client.say("RSET")
        await client.say("MAIL FROM:<zoë@bücher.example> SMTPUTF8")
        assert (await client.say("RCPT TO:<zoe\u0308@example.org>")).startswith("250")
        await client.say("DATA")
        assert (await client.say(FROM_ALICE + ".")).startswith("250")
        envelope = server.last.envelope
        assert envelope.sender == "zoë@xn--bcher-kva.example"
        assert envelope.recipients[0].address == "zoë@example.org"
        assert envelope.smtputf8
        assert b" with UTF8SMTP id " in server.last.data


async def test_each_relay_decision_is_one_log_line(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        await client.say(PLAIN_ALICE)
        get_logger("test")
        with capture_logs() as logs:
            await client.message(
                FROM_ALICE, "alice@example.org", "f@example.net", "bob@example.org"
            )
        decisions = [entry for entry in logs if entry["event"] == "relay decision"]
        message_id = server.last.envelope.message_id
        assert [(d["reason"], d["recipient"], d["accepted"]) for d in decisions] == [
            ("auth", "f@example.net", True),
            ("local", "bob@example.org", True),
        ]
        for decision in decisions:
            assert decision["address"] == "127.0.0.1"
            assert decision["user"] == "alice@users.demo"
            assert decision["message_id"] == message_id
        assert "wonderland" not in str(logs)
        assert "Hello" not in str(logs)


@on_both_loops
async def test_a_broken_handshake_ends_the_session_quietly(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as server:
        with capture_logs() as logs:
            for rest in (b"EHLO x.example\r\n" * 10, b"\x16\x03\x01\x00\x05hello", b""):
                client = await server.connect()
                assert (await client.say("STARTTLS")).startswith("220")
                client.send(rest)
                if not rest:
                    client.writer.write_eof()
                async with asyncio.timeout(10):
                    assert b"250" not in await client.reader.read()
                await client.close()
            async with asyncio.timeout(10):
                await server.receiver.sessions.wait_empty()
        assert logs == []
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        assert (await (await server.connect()).say("NOOP")).startswith("250")
