"""Postfix's and Dovecot's policies in worker processes: they ask the one that owns the table."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.connmgr.one_manager import manager_process, worker_pids
from tests.support.installation import free_port

KEY = "key-of-the-dovecot-policy"
RELAY = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=203.0.113.1\n"
    b"sender=alice@example.org\nrecipient=eve@example.net\ninstance=1.2.3.4\n\n"
)
KNOWN, STRANGER = b"action=OK\n\n", b"action=DUNNO\n\n"


@dataclass(frozen=True, slots=True)
class Manager:
    """A Connection Manager, alone, with two workers."""

    pid: int
    policy_port: int
    policy_path: Path
    dovecot_port: int

    async def log_in(self) -> int:
        """Reports a login of alice; the status of the answer."""
        event = {"login": "alice", "remote": "203.0.113.1", "protocol": "imap", "success": True}
        url = f"http://127.0.0.1:{self.dovecot_port}/?command=report"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=event, headers={"X-API-Key": KEY}) as response,
        ):
            return response.status

    async def ask(self, path: Path | None = None) -> bytes:
        """What Postfix is told about her, on a connection of its own; empty: nothing."""
        async with asyncio.timeout(20):
            reader, writer = await (
                asyncio.open_connection("127.0.0.1", self.policy_port)
                if path is None
                else asyncio.open_unix_connection(str(path))
            )
            try:
                writer.write(RELAY)
                return await reader.readuntil(b"\n\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            finally:
                writer.close()

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return worker_pids(self.pid)


@pytest.fixture
async def manager(tmp_path: Path, certificates: Path) -> AsyncIterator[Manager]:
    policy, dovecot, path = free_port(), free_port(), tmp_path / "policy"
    (tmp_path / "key").write_text(KEY)
    config = {
        "grpc": {"certificates": str(certificates)},
        "connection_managers": [
            {
                "name": "cm1",
                "listen": [f"127.0.0.1:{free_port()}"],
                "loopback_grants": True,
                "front_end_workers": 2,
                "address_map": {"domains": ["example.org"]},
                "postfix_policy": {
                    "listen": [f"127.0.0.1:{policy}"],
                    "allowed_sources": ["127.0.0.1/32"],
                    "socket": str(path),
                },
                "dovecot_policy": {
                    "listen": [f"127.0.0.1:{dovecot}"],
                    "api_key_file": str(tmp_path / "key"),
                },
            }
        ],
    }
    ends = (0, -signal.SIGKILL)  # a test may kill it
    async with manager_process(config, tmp_path, exit_codes=ends) as process:
        yield Manager(process.pid, policy, path, dovecot)


async def test_a_login_reported_to_one_worker_is_known_to_all(manager: Manager) -> None:
    assert await manager.ask() == STRANGER
    assert await manager.log_in() == 200
    # The kernel spreads new connections over the workers.
    for _ in range(40):
        assert await manager.ask() == KNOWN
    assert await manager.ask(manager.policy_path) == KNOWN


async def test_a_worker_that_is_killed_comes_back_with_its_unix_socket(manager: Manager) -> None:
    await manager.log_in()
    for worker in manager.workers():
        os.kill(worker, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                if await manager.ask(manager.policy_path) == await manager.ask() == KNOWN:
                    break
            await asyncio.sleep(0.1)


async def test_without_the_owner_nobody_is_let_in(manager: Manager) -> None:
    await manager.log_in()
    left = manager.workers()
    os.kill(manager.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while any(Path(f"/proc/{worker}/exe").exists() for worker in left):
            answer = b""
            with contextlib.suppress(OSError):
                answer = await manager.ask()
            assert answer != KNOWN
            assert not answer or answer.startswith(b"action=DEFER_IF_PERMIT")
