"""Who may connect, and who must be known before anything is taken from him."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2

from tests.smtp.conftest import Start
from tests.smtp.receiving import FROM_ALICE, OPEN, PLAIN_ALICE, Client, Receiving
from tests.support.dns_server import Zone, dns_server

HOW = "log in by POP3 or IMAP4 first, or use SMTP authentication"
REMOTE = "friend@example.net"
LOCAL = "bob@example.org"
CLIENT = "127.0.0.7"
BLOCKED = {"lists": {"blocked": ["127.0.0.7/32"]}}
LISTED = {("7.0.0.127.bad.test", "A"): ["127.0.0.2"]}
NAMED = {("7.0.0.127.in-addr.arpa", "PTR"): ["a.test."], ("a.test", "A"): [CLIENT]}
DNSBL: dict[str, Any] = {"dnsbl": {"zones": [{"zone": "bad.test"}]}}
DIALUP: dict[str, Any] = {"dnsbl": {"zones": [{"zone": "bad.test", "action": "require_auth"}]}}
REVERSE: dict[str, Any] = {"reverse_dns": {"enabled": True}}


@contextlib.asynccontextmanager
async def asking(
    zone: Zone, manager: dict[str, Any], start: Start, **settings: Any
) -> AsyncIterator[Receiving]:
    """An SMTP agent whose Connection Manager asks a DNS server of the test's."""
    async with (
        dns_server(zone) as dns,
        start(manager={"dns_servers": [dns.address], **manager}, **settings) as server,
    ):
        yield server


async def first_word(server: Receiving, code: str, address: str = CLIENT) -> tuple[str, Client]:
    """Connects until it is greeted by that code: at first the agent has not heard of the rules."""
    deadline = time.monotonic() + 20
    while True:
        client = await server.connect(address=address, greeted=False)
        reply = await client.reply()
        if reply.startswith(code) or time.monotonic() > deadline:
            return reply, client
        await client.close()
        await asyncio.sleep(0.05)


async def rules_are_known(server: Receiving, zone: Zone) -> None:
    """Connects from elsewhere until the agent asks about it."""
    deadline = time.monotonic() + 20
    while not zone.questions:
        assert time.monotonic() < deadline, "the agent never asked"
        await (await server.connect(address="127.0.0.99")).close()
        await asyncio.sleep(0.05)


async def test_a_blocked_client_is_told_so_and_nobody_else_is(start: Start) -> None:
    async with start(manager=BLOCKED) as server:
        reply, client = await first_word(server, "554")
        assert reply == "554 5.7.1 127.0.0.7 is not welcome here"
        assert await client.reply() == ""
        assert (await first_word(server, "220", "127.0.0.8"))[0].startswith("220")


async def test_a_listed_client_is_told_by_whom(start: Start) -> None:
    async with asking(Zone(LISTED), DNSBL, start) as server:
        reply, client = await first_word(server, "554")
        assert reply == "554 5.7.1 127.0.0.7 is listed by bad.test"
        assert await client.reply() == ""


async def test_a_listed_client_with_a_login_may_relay(start: Start) -> None:
    async with asking(Zone(LISTED), DNSBL, start) as server:
        await first_word(server, "554")
        await server.login("alice", CLIENT)
        client = await server.connect(address=CLIENT)
        reply = await client.message(FROM_ALICE, "alice@example.org", REMOTE)
        assert reply.startswith("250")


async def test_a_client_of_an_allowed_network_is_not_asked_about(start: Start) -> None:
    settings = {"smtp": {"allowed_networks": ["127.0.0.7/32"]}, "manager": BLOCKED}
    async with start(**settings) as server:
        await asyncio.sleep(0.2)
        client = await server.connect(address=CLIENT)
        assert (await client.message(FROM_ALICE, "alice@example.org", REMOTE)).startswith("250")


@pytest.mark.parametrize(
    ("manager", "refusal"),
    [
        (REVERSE, "550 5.7.25 127.0.0.7 has no reverse name that resolves back"),
        (DIALUP, "550 5.7.1 127.0.0.7 is listed by bad.test"),
    ],
    ids=["reverse DNS", "DNSBL"],
)
async def test_who_must_authenticate_may_not_even_send_to_our_users(
    start: Start, manager: dict[str, Any], refusal: str
) -> None:
    zone = Zone(LISTED)
    async with asking(zone, manager, start, listeners=OPEN) as server:
        await rules_are_known(server, zone)
        client = await server.connect(address=CLIENT)
        assert (await client.say("MAIL FROM:<s@example.net>")).startswith("250")
        assert await client.say(f"RCPT TO:<{LOCAL}>") == f"{refusal}: {HOW}"
        assert (await client.say("RSET")).startswith("250")
        assert (await client.say(PLAIN_ALICE)).startswith("235")
        assert (await client.message(FROM_ALICE, "alice@example.org", LOCAL)).startswith("250")


async def test_who_must_authenticate_may_be_known_by_a_login(start: Start) -> None:
    zone = Zone()
    async with asking(zone, REVERSE, start) as server:
        await rules_are_known(server, zone)
        client = await server.connect(address=CLIENT)
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(f"RCPT TO:<{LOCAL}>")).startswith("550 5.7.25")
        await client.say("RSET")
        await server.login("alice", CLIENT)
        assert (await client.message(FROM_ALICE, "alice@example.org", LOCAL)).startswith("250")
        assert b"X-Auth-OK" not in server.last.data


async def test_a_client_with_a_reverse_name_may_send_to_our_users(start: Start) -> None:
    zone = Zone(NAMED)
    async with asking(zone, REVERSE, start) as server:
        await rules_are_known(server, zone)
        client = await server.connect(address=CLIENT)
        reply = await client.message("Subject: hi\r\n\r\nx\r\n", "s@example.net", LOCAL)
        assert reply.startswith("250")
        assert ("7.0.0.127.in-addr.arpa", "PTR") in zone.questions


async def test_many_refusals_of_who_must_authenticate_end_the_session(start: Start) -> None:
    zone = Zone()
    async with asking(zone, REVERSE, start, smtp={"limits": {"relay_refusals": 3}}) as server:
        await rules_are_known(server, zone)
        client = await server.connect(address=CLIENT)
        await client.say("MAIL FROM:<s@example.net>")
        for _ in range(3):
            assert (await client.say(f"RCPT TO:<{LOCAL}>")).startswith("550")
        assert (await client.reply()).startswith("421")


async def test_an_address_that_is_always_allowed_relays_without_a_login(start: Start) -> None:
    async with start(manager={"lists": {"allowed": ["127.0.0.7/32"]}}) as server:
        client = await server.connect(address=CLIENT)
        assert (await client.message(FROM_ALICE, "s@example.com", REMOTE)).startswith("250")
        assert b"X-Auth-OK" not in server.last.data
        assert b"relayed for an allowed network" in server.last.data
        other = await server.connect(address="127.0.0.8")
        assert (await other.message(FROM_ALICE, "s@example.com", REMOTE)).startswith("550")


async def test_an_allowed_address_relays_with_a_sender_of_anybodys_whoever_is_logged_in(
    start: Start,
) -> None:
    async with start(manager={"lists": {"allowed": ["127.0.0.7/32"]}}) as server:
        login = connmgr_pb2.LoginRegistration(
            user=connmgr_pb2.UserKey(name="alice", context="users.demo"),
            addresses=["alice@example.org"],
            client_address=ip_address(CLIENT).packed,
            protocol=connmgr_pb2.PROTOCOL_POP3,
            session_id="one",
            credential_epoch=1,
        )
        await server.connmgr.register_one(login)
        client = await server.connect(address=CLIENT)
        assert (await client.message(FROM_ALICE, "bob@example.org", REMOTE)).startswith("250")


async def test_without_a_connection_manager_that_answers_everybody_may_connect(
    start: Start,
) -> None:
    async with start(manager=BLOCKED) as server:
        await first_word(server, "554")
        await server.connmgr_server.stop(None)
        assert (await first_word(server, "220"))[0].startswith("220")
