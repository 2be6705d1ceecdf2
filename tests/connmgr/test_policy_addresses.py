"""Postfix is told by the table's rules about whom Dovecot told, whatever the address's spelling."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.app.front_ends import front_ends
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import Clock
from tests.connmgr.front_ends import ask_udp, settings
from tests.connmgr.legacy_udp.agents import agent
from tests.connmgr.vouching import LOGIN, V6, VOUCHING

KEY = "key-of-the-dovecot-policy"


@dataclass(frozen=True, slots=True)
class Servers:
    """A Dovecot and a Postfix, as far as the Connection Manager can tell."""

    ports: Mapping[str, Sequence[int]]

    async def log_in(self, remote: str, user: str = "alice") -> None:
        """Dovecot reports a login."""
        port = self.ports["dovecot_policy"][0]
        event = {"login": user, "remote": remote, "protocol": "imap", "success": True}
        async with (
            aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session,
            session.post(
                f"http://127.0.0.1:{port}/?command=report", data=json.dumps(event)
            ) as response,
        ):
            assert response.status == 200

    async def relays(self, client: str, sender: str = "alice@example.org") -> bool:
        """Postfix asks about a client."""
        port = self.ports["postfix_policy"][0]
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1\n"
                f"client_address={client}\nsender={sender}\n\n".encode()
            )
            answer = await reader.readuntil(b"\n\n")
            writer.close()
        assert answer in {b"action=OK\n\n", b"action=DUNNO\n\n"}
        return answer == b"action=OK\n\n"


@pytest.fixture
async def servers(certificates: Path, tmp_path: Path) -> AsyncIterator[Servers]:
    (tmp_path / "key").write_text(KEY)
    config = settings(
        certificates,
        shared_networks=["198.51.100.0/24", "2001:db8:5::/48"],
        address_map={"domains": ["example.org"]},
        postfix_policy={"listen": ["127.0.0.1:0"], "allowed_sources": ["127.0.0.0/8"]},
        dovecot_policy={"listen": ["127.0.0.1:0"], "api_key_file": str(tmp_path / "key")},
        whoson={
            "listen": ["127.0.0.1:0"],
            "allowed_sources": ["127.0.0.0/8"],
            "udp_login": True,
        },
        legacy_udp={
            "listen": ["127.0.0.1:0"],
            "allowed_sources": ["127.0.0.0/8"],
            "plain": True,
        },
    )
    rules = AddressRules.of_installation(config, "cm1")
    desk = LocalDesk(
        MemoryStore(TableLimits(), clock=Clock()), NetworkMap(rules), max_users_per_network=2
    )
    async with front_ends(FrontEndSetup(config, "cm1", rules, desk)) as opened:
        yield Servers(opened.ports)


@pytest.mark.parametrize(
    ("login", "client", "known"),
    [
        *VOUCHING,
        (V6, "2001:DB8:0:1::2", True),
        (f"{V6}%eth0", f"{V6}%eth1", True),
        ("fe80::1%eth0", "fe80::1%eth0", False),
        # A spelling that is none is no address, on either side.
        ("203.0.113.01", LOGIN, False),
        ("0313.0.113.1", LOGIN, False),
        ("0xcb.0.113.1", LOGIN, False),
        ("3405803777", LOGIN, False),
        ("203.0.113", LOGIN, False),
        ("203.0.113.1.", LOGIN, False),
        ("203.0.113.1/32", LOGIN, False),
        ("[203.0.113.1]", LOGIN, False),
        (" 203.0.113.1", LOGIN, False),
        ("203.0.113.1:4711", LOGIN, False),
        ("\u0662\u0660\u0663.0.113.1", LOGIN, False),
        (LOGIN, "203.0.113.01", False),
        (LOGIN, "0313.0.113.1", False),
        (LOGIN, "0xcb.0.113.1", False),
        (LOGIN, "3405803777", False),
        (LOGIN, "203.0.113.1 ", False),
        (LOGIN, "[203.0.113.1]", False),
        (LOGIN, "unknown", False),
        (LOGIN, "", False),
        ("", "", False),
        ("unknown", "unknown", False),
    ],
)
async def test_a_login_vouches_for_its_network_and_nothing_else(
    servers: Servers, login: str, client: str, known: bool
) -> None:
    await servers.log_in(login)
    assert await servers.relays(client) is known


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        ("alice@example.org", True),
        ("Alice@Example.ORG", True),
        ("alice+shop@example.org", True),
        ("", True),
        ("bob@example.org", False),
        ("alice@example.net", False),
        ("alice@example.org@example.net", False),
        ("bob@example.org,alice@example.org", False),
        ("bob%example.net@example.org", False),
        ("@example.org", False),
        ("alice", False),
        ("alice@", False),
        ("alice@example.org ", False),
        ("alice@example.org.", False),
        (" alice@example.org", False),
        ("alice@[203.0.113.1]", False),
    ],
)
async def test_a_login_vouches_for_its_users_senders_and_no_others(
    servers: Servers, sender: str, allowed: bool
) -> None:
    await servers.log_in(LOGIN)
    assert await servers.relays(LOGIN, sender) is allowed


async def test_logins_of_other_front_ends_have_their_users_addresses_too(servers: Servers) -> None:
    whoson, legacy = (servers.ports[name][0] for name in ("whoson", "legacy_udp"))
    assert await ask_udp(whoson, f"LOGIN {LOGIN} alice\n\n".encode()) == b"+LOGIN OK\r\n\r\n"
    assert await servers.relays(LOGIN)
    assert not await servers.relays(LOGIN, "bob@example.org")
    async with agent(legacy) as pop:
        await pop.store("203.0.113.9", "bob")
        assert await pop.check("203.0.113.9", name=True) == (2, "bob")
    assert await servers.relays("203.0.113.9", "bob@example.org")
    assert not await servers.relays("203.0.113.9")


async def test_a_crowd_on_one_network_is_bound_strictly_and_each_by_his_own(
    servers: Servers,
) -> None:
    for user in ("alice", "bob", "carol", "dora"):
        await servers.log_in(LOGIN, user)
    for user in ("alice", "bob", "carol", "dora"):
        assert await servers.relays(LOGIN, f"{user}@example.org")
    assert not await servers.relays(LOGIN, "eve@example.org")
