"""SMTP sessions on real sockets: the six stages' part that happens at the SMTP Agent."""

from tests.smtp.conftest import Start

PLAIN_ALICE = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="
OPEN = [{"plaintext_auth": True}]


async def test_mail_to_a_local_user_needs_nothing(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        reply = await client.message(
            "Subject: hi\r\n\r\nHello\r\n", "s@example.net", "bob@example.org"
        )
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        assert server.last.envelope.sender == "s@example.net"
        assert [r.address for r in server.last.envelope.recipients] == ["bob@example.org"]
        assert server.last.data.endswith(b"Subject: hi\r\n\r\nHello\r\n")
        assert server.last.data.startswith(b"Received: from client.example.net ([127.0.0.1])\r\n")


async def test_a_stranger_is_told_how_to_become_known(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await client.say("MAIL FROM:<alice@example.org>")
        reply = await client.say("RCPT TO:<friend@example.net>")
        assert reply == (
            "550 5.7.1 Relaying to <friend@example.net> denied: log in by POP3 or IMAP4 first,"
            " or use SMTP authentication"
        )


async def test_a_login_from_the_same_address_lets_the_user_relay(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(
            "From: alice@example.org\r\n\r\nHello\r\n", "alice@example.org", "friend@example.net"
        )
        assert reply.startswith("250")
        assert b"\r\nX-Auth-OK: alice\r\n" in server.last.data
        assert b"user alice of users.demo, known by POP3 login" in server.last.data
        assert server.last.envelope.relayed_for == "alice@users.demo"


async def test_smtp_auth_lets_the_user_relay(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        assert (await client.say(PLAIN_ALICE)).startswith("235 2.7.0")
        reply = await client.message(
            "From: alice@example.org\r\n\r\nHello\r\n", "alice@example.org", "friend@example.net"
        )
        assert reply.startswith("250")
        assert b" with ESMTPA id " in server.last.data
        assert b"known by SMTP AUTH PLAIN" in server.last.data
