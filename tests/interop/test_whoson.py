"""WHOSON as a real Exim asks it, by docs/examples."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.front_ends import settings
from tests.interop.exim_host import EximHost, exim_host
from tests.support.installation import ROOT, free_port

EXAMPLE = ROOT / "docs/examples/exim-whoson.conf"
PORT = free_port()
KNOWN, UNKNOWN = "127.0.0.9", "127.0.0.10"
REMOTE = "dave@remote.example"


@pytest.fixture(scope="module")
def exim() -> Iterator[EximHost]:
    acl = EXAMPLE.read_text()
    assert acl.count(":9876") == 1
    with exim_host(acl_rcpt=acl.replace(":9876", f":{PORT}")) as host:
        yield host


async def say(line: str) -> bytes:
    """The reply to a request, from the connection of another server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(f"{line}\r\n\r\n".encode())
    writer.write_eof()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


async def test_exim_relays_for_whom_another_server_has_logged_in(
    exim: EximHost, certificates: Path
) -> None:
    whoson = {"listen": [f"127.0.0.1:{PORT}"], "allowed_sources": ["127.0.0.0/8"]}
    async with connection_manager(settings(certificates, whoson=whoson), "cm1"):
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert (code, "log in by POP3 or IMAP4 first" in text) == (550, True), text
        code, text = await asyncio.to_thread(exim.offer, UNKNOWN, "carol@example.net")
        assert code == 250, text

        assert await say(f"LOGIN {KNOWN} alice") == b"+LOGIN OK\r\n\r\n"
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert code == 250, text
        code, text = await asyncio.to_thread(exim.offer, UNKNOWN, REMOTE)
        assert code == 550, text
        messages = await asyncio.to_thread(exim.wait_for, 2)
        (relayed,) = [message for message in messages if b"X-Auth-OK" in message]
        assert relayed.count(b"X-Auth-OK") == 1
        assert b"\nX-Auth-OK: alice\n" in relayed

        assert await say(f"LOGOUT {KNOWN}") == b"+LOGOUT OK\r\n\r\n"
        code, text = await asyncio.to_thread(exim.offer, KNOWN, REMOTE)
        assert code == 550, text


def test_exim_puts_off_whom_nobody_can_judge(exim: EximHost) -> None:
    """No Connection Manager runs here."""
    code, text = exim.offer(KNOWN, REMOTE)
    assert (code, "try again later" in text) == (451, True), text
