"""The DNS list as others ask it: Exim, by docs/examples, and dig."""

import asyncio
import ipaddress
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.conftest import IdentityFor, login
from tests.connmgr.front_ends import grpc_client, settings
from tests.interop.exim_host import EximHost, exim_host
from tests.support.installation import ROOT

EXAMPLE = ROOT / "docs/examples/exim-dns-list.conf"
# Exim asks port 53, which an address of our own has free.
RESOLVER = str(ipaddress.ip_address("127.64.0.1") + os.getpid() % 1_000_000)
KNOWN, UNKNOWN = "127.0.0.9", "127.0.0.10"
REMOTE = "dave@remote.example"


@pytest.fixture(scope="module")
def exim() -> Iterator[EximHost]:
    with exim_host(acl_rcpt=EXAMPLE.read_text(), resolver=RESOLVER) as host:
        yield host


async def test_exim_relays_for_a_client_that_is_on_the_list(
    exim: EximHost, certificates: Path, identity_for: IdentityFor
) -> None:
    config = settings(
        certificates,
        dns_list={
            "listen": [f"{RESOLVER}:53"],
            "allowed_sources": ["127.0.0.0/8"],
            "zone": "logins.example",
            "txt": True,
        },
    )
    async with (
        connection_manager(config, "cm1") as running,
        grpc_client(running, identity_for, Role.POP_IMAP) as agent,
        grpc_client(running, identity_for) as admin,
    ):
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert (code, "log in by POP3 or IMAP4 first" in text) == (550, True), text
        code, text = await asyncio.to_thread(exim.offer, UNKNOWN, "carol@example.net")
        assert code == 250, text

        await agent.register_one(login(address=ipaddress.ip_address(KNOWN).packed))
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert code == 250, text
        code, text = await asyncio.to_thread(exim.offer, UNKNOWN, REMOTE)
        assert code == 550, text
        messages = await asyncio.to_thread(exim.wait_for, 2)
        (relayed,) = [message for message in messages if b"X-Auth-OK" in message]
        assert relayed.count(b"X-Auth-OK") == 1
        assert b"X-Auth-OK: alice.users.demo\n" in relayed

        await admin.revoke(client_address=ipaddress.ip_address(KNOWN).packed, reason="test")
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert code == 550, text


def test_exim_puts_off_whom_nobody_can_judge(exim: EximHost) -> None:
    """No Connection Manager runs here."""
    code, text = exim.offer(KNOWN, REMOTE)
    assert code == 451, text


async def dig(port: int, *argv: str) -> str:
    if shutil.which("dig") is None:
        pytest.skip("needs the Debian package bind9-dnsutils")
    process = await asyncio.create_subprocess_exec(
        "dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=20", *argv,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


async def test_dig_reads_the_list(certificates: Path, identity_for: IdentityFor) -> None:
    config = settings(
        certificates,
        dns_list={
            "listen": ["127.0.0.1:0"],
            "allowed_sources": ["127.0.0.0/8"],
            "zone": "logins.example",
        },
    )
    async with (
        connection_manager(config, "cm1") as running,
        grpc_client(running, identity_for, Role.POP_IMAP) as agent,
    ):
        (port,) = running.front_end_ports["dns_list"]
        await agent.register_one(login(address=ipaddress.ip_address("203.0.113.10").packed))
        name = "10.113.0.203.logins.example"
        for more in ((), ("+tcp",), ("+dnssec",), ("+noedns",), ("+cookie",), ("+nsid",)):
            assert await dig(port, "+short", *more, name) == "127.0.0.2\n", more
        assert "NXDOMAIN" in await dig(port, "11.113.0.203.logins.example")
        assert "NOERROR" in await dig(port, name, "TXT")
        assert "REFUSED" in await dig(port, "www.example.org")
        assert "Transfer failed" in await dig(port, "logins.example", "AXFR")
        assert "NOTIMP" in await dig(port, "+opcode=STATUS", name)
        assert "BADVERS" in await dig(port, "+edns=1", "+noednsneg", name)
