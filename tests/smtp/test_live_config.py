"""The SMTP Agent goes on with another configuration, in open sessions too."""

import pytest
from netmail_common.config import ConfigError

from tests.smtp.conftest import Start

ELSEWHERE = "RCPT TO:<somebody@backup.example>"


async def test_a_new_relay_domain_counts_from_the_next_message_on(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        assert (await client.say("MAIL FROM:<s@example.net>"))[:3] == "250"
        assert (await client.say(ELSEWHERE))[:3] == "550"
        await server.go_on_with(smtp={"relay_domains": ["backup.example"]})
        assert (await client.say(ELSEWHERE))[:3] == "550"
        assert (await client.say("RSET"))[:3] == "250"
        assert (await client.say("MAIL FROM:<s@example.net>"))[:3] == "250"
        assert (await client.say(ELSEWHERE))[:3] == "250"
        another = await server.connect()
        await another.say("MAIL FROM:<s@example.net>")
        assert (await another.say(ELSEWHERE))[:3] == "250"


async def test_a_new_domain_is_local(start: Start) -> None:
    async with start() as server:
        server.nmap.add("carol", "carols", "carol@new.example")
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say("RCPT TO:<carol@new.example>"))[:3] == "550"
        await server.go_on_with(server={"domains": ["example.org", "new.example"]})
        await client.say("RSET")
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say("RCPT TO:<carol@new.example>"))[:3] == "250"


async def test_what_ehlo_has_announced_holds_until_the_session_ends(start: Start) -> None:
    async with start(listeners=[{"plaintext_auth": True}]) as server:
        client = await server.connect()
        listener = {**server.installation.messaging_servers[0].smtp.listeners[0].model_dump()}
        await server.go_on_with(smtp={"listeners": [{**listener, "auth": False}]})
        assert "AUTH" in await client.say("EHLO again.example.net")
        another = await server.connect(ehlo=None)
        assert "AUTH" not in await another.say("EHLO client.example.net")


async def test_what_logins_grant_is_decided_anew(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.9")
        client = await server.connect(address="127.0.0.9")
        relay = "RCPT TO:<somebody@elsewhere.example>"
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(relay))[:3] == "250"
        await server.go_on_with(server={"ube_relaying": {"smtp_after_pop": False}})
        await client.say("RSET")
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(relay))[:3] in {"530", "550"}
        await server.go_on_with()
        await client.say("RSET")
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(relay))[:3] == "250"


async def test_what_is_not_usable_changes_nothing(start: Start) -> None:
    async with start(loopback_grants=False) as server:
        with pytest.raises(ConfigError, match="127"):
            await server.go_on_with(
                smtp={"relay_domains": ["backup.example"], "allowed_networks": ["127.0.0.0/8"]}
            )
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say(ELSEWHERE))[:3] == "550"
