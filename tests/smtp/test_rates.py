"""Known senders and guessers at the SMTP Agent: what the rates and the gate do to a session."""

import base64
from typing import Any

from tests.smtp.conftest import Start
from tests.smtp.receiving import Client, Receiving

HERE, THERE = "127.0.0.7", "127.0.0.8"
OVER = "451 4.7.1 You have sent too much"
PLAINTEXT = [{"plaintext_auth": True}]


def rates(**more: Any) -> dict[str, Any]:
    return {"after_login": {"recipients": 10}, "after_auth": {"recipients": 20}, **more}


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


async def begin(client: Client) -> None:
    assert (await client.say("MAIL FROM:<alice@example.org>")).startswith("250")


async def rcpt(client: Client, count: int, *, first: int = 0) -> list[str]:
    """Recipients in one piece, as a client that pipelines sends them."""
    lines = [f"RCPT TO:<friend{number}@example.net>" for number in range(first, first + count)]
    return await client.say_all(*lines)


async def authenticated(server: Receiving, address: str = HERE) -> Client:
    client = await server.connect(address=address)
    assert (await client.say(plain("alice", "wonderland"))).startswith("235")
    return client


async def test_after_a_login_ten_recipients_an_hour_are_taken_and_the_rest_is_for_later(
    start: Start,
) -> None:
    async with start(manager={"rates": rates()}) as server:
        await server.login("alice", HERE)
        client = await server.connect(address=HERE)
        await begin(client)
        replies = await rcpt(client, 12)
        assert [reply[:3] for reply in replies] == ["250"] * 10 + ["451"] * 2
        assert replies[-1].startswith(OVER)
        await client.say("DATA")
        reply = await client.say("From: alice@example.org\r\n\r\nhello\r\n.")
        assert reply.startswith("250")
        assert len(server.last.envelope.recipients) == 10


async def test_recipients_one_by_one_are_counted_like_those_in_one_piece(start: Start) -> None:
    async with start(manager={"rates": rates()}) as server:
        await server.login("alice", HERE)
        client = await server.connect(address=HERE)
        await begin(client)
        replies = [(await rcpt(client, 1, first=number))[0] for number in range(11)]
        assert [reply[:3] for reply in replies] == ["250"] * 10 + ["451"]


async def test_the_rate_is_the_users_in_every_session(start: Start) -> None:
    async with start(listeners=PLAINTEXT, manager={"rates": rates()}) as server:
        for address, expected in ((HERE, 15), (THERE, 5)):
            client = await authenticated(server, address)
            await begin(client)
            replies = await rcpt(client, 15)
            assert sum(reply.startswith("250") for reply in replies) == expected


async def test_a_recipient_that_is_there_already_costs_nothing(start: Start) -> None:
    async with start(manager={"rates": rates()}) as server:
        await server.login("alice", HERE)
        client = await server.connect(address=HERE)
        await begin(client)
        for _ in range(15):
            assert (await rcpt(client, 1))[0].startswith("250")


async def test_mail_to_our_own_users_is_not_counted_where_it_needs_no_login(start: Start) -> None:
    async with start(manager={"rates": rates()}) as server:
        await server.login("alice", HERE)
        client = await server.connect(address=HERE)
        await begin(client)
        await rcpt(client, 10)
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("250")


async def test_who_authenticates_is_none_the_worse_for_an_infected_neighbour(start: Start) -> None:
    async with start(listeners=PLAINTEXT, manager={"rates": rates()}) as server:
        await server.login("alice", HERE)
        infected = await server.connect(address=HERE)
        await begin(infected)
        assert (await rcpt(infected, 11))[-1].startswith(OVER)
        client = await authenticated(server)
        await begin(client)
        assert [reply[:3] for reply in await rcpt(client, 20)] == ["250"] * 20


async def test_allowed_networks_have_no_rates(start: Start) -> None:
    smtp = {"allowed_networks": [f"{HERE}/32"]}
    async with start(smtp=smtp, manager={"rates": rates()}) as server:
        client = await server.connect(address=HERE)
        await begin(client)
        assert {reply[:3] for reply in await rcpt(client, 50)} == {"250"}


async def test_logins_of_an_address_end_when_it_sends_too_much_if_so_configured(
    start: Start,
) -> None:
    manager = {"rates": rates(revoke_on_excess=True)}
    async with start(smtp={"replica_max_logins": 0}, manager=manager) as server:
        await server.login("alice", HERE)
        client = await server.connect(address=HERE)
        await begin(client)
        assert (await rcpt(client, 11))[-1].startswith(OVER)
        again = await server.connect(address=HERE)
        await begin(again)
        assert (await rcpt(again, 1))[0].startswith("550 5.7.1")


async def test_rates_are_kept_while_the_connection_manager_is_away(start: Start) -> None:
    smtp = {"connmgr_timeout": 0.5}
    async with start(listeners=PLAINTEXT, smtp=smtp, manager={"rates": rates()}) as server:
        client = await authenticated(server)
        await server.connmgr_server.stop(0)
        await begin(client)
        replies = await rcpt(client, 21)
        assert [reply[:3] for reply in replies] == ["250"] * 20 + ["451"]
        assert replies[-1].startswith(OVER)


async def test_after_20_guesses_elsewhere_the_right_password_is_answered_like_a_wrong_one(
    start: Start,
) -> None:
    manager = {"guessing": {"max_delay": 0}}
    async with start(listeners=PLAINTEXT, manager=manager) as server:
        for number in range(20):
            client = await server.connect(address=f"127.0.1.{number}")
            # By whatever name of hers.
            name = ("alice", "alice@example.org")[number % 2]
            assert (await client.say(plain(name, "x"))).startswith("535 5.7.8")
        client = await server.connect(address=HERE)
        wrong = await client.say(plain("alice", "x"))
        assert await client.say(plain("alice", "wonderland")) == wrong
        assert (await client.say(plain("bob", "builder"))).startswith("235")


async def test_who_has_authenticated_from_an_address_is_let_in_there_whatever_others_guess(
    start: Start,
) -> None:
    manager = {"guessing": {"max_delay": 0}}
    async with start(listeners=PLAINTEXT, manager=manager) as server:
        await authenticated(server, HERE)
        for number in range(20):
            client = await server.connect(address=f"127.0.1.{number}")
            await client.say(plain("alice", "x"))
        await authenticated(server, HERE)
        client = await server.connect(address=THERE)
        assert (await client.say(plain("alice", "wonderland"))).startswith("535")
