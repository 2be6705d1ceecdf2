"""NetMail's own agents beside ours, on UDP port 689: what they register we relay for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.connmgr.legacy_udp.agents import Agent, agent
from tests.connmgr.legacy_udp.vectors import CREDENTIAL, TREE
from tests.e2e.test_logins import logged_in, relay
from tests.support.installation import RunningInstallation, installation

AGENT = "127.0.0.50"
T = TypeVar("T")


@pytest.fixture(scope="module")
def with_legacy_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """The demonstration with a UDP port for agents on AGENT, served by two workers."""
    state: Path = tmp_path_factory.mktemp("installation")
    (state / "credential").write_text(CREDENTIAL, encoding="ascii")

    def change(data: dict[str, Any]) -> None:
        data["connection_managers"][0].update(
            front_end_workers=2,
            legacy_udp={
                "listen": ["127.0.0.1:2689"],
                "allowed_sources": [f"{AGENT}/32"],
                "credential_file": str(state / "credential"),
                "tree": TREE,
                "plain": True,
            },
        )

    with installation(state, change=change) as started:
        yield started


def by_udp(
    running: RunningInstallation, call: Callable[[Agent], Awaitable[T]], host: str = AGENT
) -> T:
    """What an agent on HOST does."""

    async def run() -> T:
        async with agent(running.port(2689), host=host) as one:
            return await call(one)

    return asyncio.run(run())


def test_a_login_that_a_legacy_agent_saw_opens_our_relay(
    with_legacy_agents: RunningInstallation,
) -> None:
    running, client = with_legacy_agents, "127.0.0.51"
    assert relay(running, client, "alice@example.org").startswith("550 5.7.1")
    assert by_udp(running, lambda pop: pop.authenticated(client, "alice")).result == 0
    assert relay(running, client, "alice@example.org").startswith("250")
    assert relay(running, client, "nobody-at-all@example.org").startswith("250")
    assert relay(running, client, "bob@example.org").startswith("550 5.7.1")
    assert relay(running, "127.0.0.52", "alice@example.org").startswith("550 5.7.1")


def test_a_login_that_our_agent_saw_opens_the_relay_of_a_legacy_agent(
    with_legacy_agents: RunningInstallation,
) -> None:
    running, client = with_legacy_agents, "127.0.0.53"
    assert by_udp(running, lambda smtp: smtp.relay(client)).result == 1
    with logged_in(running, client, "alice", "wonderland"):
        pass
    answer = by_udp(running, lambda smtp: smtp.relay(client))
    assert (answer.result, answer.text) == (3, "alice")
    assert by_udp(running, lambda smtp: smtp.check(client, name=True)) == (2, "alice")


def test_a_login_without_a_name_opens_nothing_of_ours(
    with_legacy_agents: RunningInstallation,
) -> None:
    running, client = with_legacy_agents, "127.0.0.54"

    async def store(pop: Agent) -> tuple[int, str]:
        await pop.store(client)
        while (found := await pop.check(client))[0] == 0:  # another worker may have it in hand
            pass
        return found

    assert by_udp(running, store) == (1, "")
    for sender in ("alice@example.org", ""):
        reply = relay(running, client, sender)
        assert reply.startswith("550 5.7.1")
        assert "log in by POP3 or IMAP4 first" in reply


def test_a_stranger_s_datagram_registers_nothing(with_legacy_agents: RunningInstallation) -> None:
    running, client = with_legacy_agents, "127.0.0.55"

    async def forge(host: Agent) -> bool:
        await host.store(client, "alice")
        return await host.gets_silence(host.plain(1, client))

    assert by_udp(running, forge, host=client)
    assert by_udp(running, lambda pop: pop.check(client)) == (0, "")
    assert relay(running, client, "alice@example.org").startswith("550 5.7.1")


def test_a_revocation_ends_what_a_legacy_agent_registered(
    with_legacy_agents: RunningInstallation,
) -> None:
    running, client = with_legacy_agents, "127.0.0.56"
    by_udp(running, lambda pop: pop.authenticated(client, "bob"))
    assert by_udp(running, lambda smtp: smtp.relay(client)).result == 3
    running.netmail("login", "revoke", "--address", client)
    assert by_udp(running, lambda smtp: smtp.relay(client)).result == 1
    assert relay(running, client, "bob@example.org").startswith("550 5.7.1")
