"""The NMAP agent goes on with another configuration; what it stores stays."""

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netmail_common.certificates import Identity
from netmail_common.config import ConfigError, parse_config
from netmail_common.mail_address import parse_mail_address
from netmail_common.nmap import DirectoryClient
from netmail_common.roles import Role
from netmail_common.sasl import AuthFailed
from netmail_nmap.app import Running, nmap_agent
from passlib.hash import ldap_sha1

from tests.nmap.agents import client_of, login, two_servers
from tests.support.waiting import until


@dataclass
class Agent:
    """The NMAP agent of mail1, and a client that follows its configuration as other agents do."""

    running: Running
    client: DirectoryClient
    data: dict[str, Any]
    folder: Path

    async def use(self, *, nmap: dict[str, Any] | None = None, **server: Any) -> None:
        data = copy.deepcopy(self.data)
        data["messaging_servers"][0].update(server)
        data["messaging_servers"][0]["nmap"].update(nmap or {})
        installation = parse_config(data, state=self.folder)
        await self.running.use(installation)
        self.client.use(installation)

    async def outcome(self, address: str) -> tuple[str, str]:
        (result,) = await self.client.resolve([parse_mail_address(address)], 100)
        return result.outcome.name, result.name


@pytest.fixture
async def agent(tmp_path: Path, certificates: Path) -> AsyncIterator[Agent]:
    installation = two_servers(tmp_path, certificates)
    identity = Identity.from_folder(certificates, Role.SMTP)
    async with (
        nmap_agent(installation, "mail1") as running,
        client_of(installation, "mail1", identity) as client,
    ):
        data = installation.model_dump(exclude_unset=True)
        yield Agent(running, client, data, tmp_path)


def context(name: str, *users: str) -> dict[str, Any]:
    return {
        "name": name,
        "initial_users": [{"name": user, "password": f"{user}'s"} for user in users],
    }


async def test_a_new_context_brings_its_users(agent: Agent) -> None:
    with pytest.raises(AuthFailed):
        await login(agent.client, "dave@example.org", "dave's")
    contexts = agent.data["messaging_servers"][0]["contexts"]
    await agent.use(contexts=[*contexts, context("staff.demo", "dave")])
    assert (await login(agent.client, "dave@example.org", "dave's")).context == "staff.demo"
    assert (await login(agent.client, "alice@example.org", "wonderland")).name == "alice"


async def test_a_context_that_goes_takes_its_users_along_and_brings_them_back(
    agent: Agent,
) -> None:
    contexts = agent.data["messaging_servers"][0]["contexts"]
    await agent.use(contexts=[*contexts, context("staff.demo", "dave")])
    assert await agent.outcome("dave@example.org") == ("LOCAL", "dave")
    before = await login(agent.client, "dave@example.org", "dave's")
    await agent.use(contexts=contexts)
    assert await agent.outcome("dave@example.org") == ("UNKNOWN_USER", "")
    with pytest.raises(AuthFailed):
        await login(agent.client, "dave@example.org", "dave's")
    await agent.use(contexts=[*contexts, context("staff.demo")])
    again = await login(agent.client, "dave@example.org", "dave's")
    assert again.user_id == before.user_id
    # So his logins of before are revoked, and his sessions ended.
    assert again.credential_epoch > before.credential_epoch


async def test_a_new_domain_is_ours(agent: Agent) -> None:
    assert await agent.outcome("postmaster@new.example") == ("NOT_LOCAL", "")
    await agent.use(domains=["example.org", "new.example"])
    assert await agent.outcome("postmaster@new.example") == ("LOCAL", "alice")
    user = await login(agent.client, "alice@example.org", "wonderland")
    assert user.domains == ("example.org", "new.example")
    await agent.use()
    assert await agent.outcome("postmaster@new.example") == ("NOT_LOCAL", "")


async def test_what_was_looked_up_before_is_forgotten(agent: Agent) -> None:
    for _ in range(2):
        assert await agent.outcome("nobody@example.org") == ("UNKNOWN_USER", "")
        assert await agent.outcome("alice+tag@example.org") == ("LOCAL", "alice")
    await agent.use(nmap={"catch_all": "bob@example.org", "subaddress_separator": ""})
    assert await agent.outcome("nobody@example.org") == ("LOCAL", "bob")
    assert await agent.outcome("alice+tag@example.org") == ("LOCAL", "bob")


async def test_a_password_file_is_followed_from_then_on(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "staff"
    path.write_text(f"erin:{ldap_sha1.hash('one')}\n")
    contexts = agent.data["messaging_servers"][0]["contexts"]
    staff = {"name": "staff.demo", "backend": "htpasswd", "file": str(path)}
    await agent.use(contexts=[*contexts, staff])
    assert (await login(agent.client, "erin@example.org", "one")).context == "staff.demo"
    path.write_text(f"erin:{ldap_sha1.hash('another')}\n")

    async def follows() -> bool:
        try:
            await login(agent.client, "erin@example.org", "another")
        except AuthFailed:
            return False
        return True

    await until(follows)
    await agent.use(contexts=contexts)
    with pytest.raises(AuthFailed):
        await login(agent.client, "erin@example.org", "another")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"contexts": [{"name": "staff", "backend": "htpasswd", "file": "/none"}]}, "staff"),
        ({"nmap": {"catch_all": "bob@elsewhere.example"}}, "catch_all"),
    ],
)
async def test_what_is_not_usable_changes_nothing(
    agent: Agent, bad: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await agent.use(**{"domains": ["new.example"], **bad})
    assert (await login(agent.client, "alice@example.org", "wonderland")).name == "alice"
    assert await agent.outcome("alice@example.org") == ("LOCAL", "alice")
