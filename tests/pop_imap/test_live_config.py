"""The POP/IMAP agent goes on with another configuration; open connections keep what they had."""

from collections.abc import Callable, Iterator

import pytest
from netmail_common.config import Installation
from netmail_pop_imap.app import PopImapAgent

from tests.pop_imap.agents import PASSWORD, Agents
from tests.support.imap_client import ImapClient, Refused


@pytest.fixture
def agent(agents: Agents) -> Iterator[PopImapAgent]:
    with agents.another() as another:
        yield another


def with_plaintext(installation: Installation) -> Installation:
    """Every listener takes passwords without TLS, and messages of 10 octets at most."""
    (own,) = installation.messaging_servers
    pop_imap = own.pop_imap.model_copy(
        update={
            "listeners": [
                one.model_copy(update={"plaintext_auth": True}) for one in own.pop_imap.listeners
            ],
            "limits": own.pop_imap.limits.model_copy(update={"literal": 10}),
        }
    )
    changed = own.model_copy(update={"pop_imap": pop_imap})
    return installation.model_copy(update={"messaging_servers": [changed]})


def test_other_rules_count_for_who_comes_after_them(
    agents: Agents, agent: PopImapAgent, new_user: Callable[[], str]
) -> None:
    port = agent.ports["imap-strict"][0]
    before = ImapClient.connect(port)
    agents.run(agent.use(with_plaintext(agent.installation)))
    after = ImapClient.connect(port)
    try:
        with pytest.raises(Refused):
            before.login(new_user(), PASSWORD)
        after.login(new_user(), PASSWORD)
        assert b"APPENDLIMIT=10" in after.command("CAPABILITY")[0]
    finally:
        before.close()
        after.close()


def test_an_open_session_goes_on(
    agents: Agents, agent: PopImapAgent, new_user: Callable[[], str]
) -> None:
    client = ImapClient.connect(agent.ports["imap"][0])
    client.login(new_user(), PASSWORD)
    agents.run(agent.use(with_plaintext(agent.installation)))
    try:
        client.command("SELECT INBOX")
        assert b"APPENDLIMIT=10" not in client.command("CAPABILITY")[0]
    finally:
        client.close()
