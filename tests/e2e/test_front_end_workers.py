"""Front ends in worker processes: they ask the one process that owns the table."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from netmail_common.connmgr import UserKey
from netmail_common.roles import Role

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.legacy_udp.agents import agent
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH
from tests.connmgr.one_manager import (
    client_of,
    listening_port,
    manager_config,
    manager_process,
    worker_pids,
)
from tests.support.installation import free_port

CLIENT = "203.0.113.1"
_STOPPED = 0.8
"""Seconds before and after a revocation: a process that stands still for less is only busy."""


@contextlib.asynccontextmanager
async def workers(
    folder: Path, certificates: Path, count: int, *, exit_code: int = 0
) -> AsyncIterator[tuple[int, int]]:
    """A Connection Manager with so many workers, as a command: its process and its UDP port.

    It is asked to end, unless the block has killed it (EXIT_CODE says how).
    """
    (folder / "hash").write_text(ACCESS_HASH.hex(), encoding="ascii")
    port = free_port()
    config = manager_config(
        certificates,
        listen=[f"127.0.0.1:{free_port()}"],
        http={},
        loopback_grants=True,
        front_end_workers=count,
        legacy_udp={
            "listen": [f"127.0.0.1:{port}"],
            "allowed_sources": ["127.0.0.1/32"],
            "access_hash_file": str(folder / "hash"),
            "plain": True,
        },
    )
    async with manager_process(config, folder, exit_codes=(exit_code,)) as process:
        yield process.pid, port


async def test_an_agent_may_land_on_another_worker_at_each_request(
    tmp_path: Path, certificates: Path
) -> None:
    async with workers(tmp_path, certificates, 2) as (pid, port):
        assert len(worker_pids(pid)) == 2
        async with agent(port) as pop:
            assert (await pop.authenticated(CLIENT, "alice")).result == 0
        # Each request from a new socket, as the library does it: the kernel spreads them.
        for _ in range(40):
            async with agent(port) as smtp:
                smtp.password = pop.password
                answer = await smtp.ask_once(1, "RELAY", CLIENT)
                assert (answer.result, answer.text) == (3, "alice")


async def test_a_worker_that_is_killed_comes_back_and_the_table_stays(
    tmp_path: Path, certificates: Path
) -> None:
    async with workers(tmp_path, certificates, 1) as (pid, port), agent(port) as host:
        await host.authenticated(CLIENT, "alice")
        (worker,) = worker_pids(pid)
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(TimeoutError, OSError):
                    await host.send(host.request(1, "RELAY", CLIENT))
                    reply = await host.reply(0.5)
                    break
        assert reply[:1] == b"\3"


async def test_a_login_that_lay_in_a_stopped_worker_does_not_outlive_a_revocation(
    tmp_path: Path, certificates: Path, identity_for: IdentityFor
) -> None:
    async with workers(tmp_path, certificates, 1) as (pid, port), agent(port) as host:
        await host.authenticated(CLIENT, "alice")
        channel, admin = client_of(listening_port(pid), identity_for(Role.ADMIN))
        (worker,) = worker_pids(pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            await host.send(host.request(2, "AUTHENTICATED", CLIENT, b"alice\0"))
            await asyncio.sleep(_STOPPED)
            assert await admin.revoke(user=UserKey("alice", "users.demo")) == 1
            await asyncio.sleep(_STOPPED)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert int.from_bytes((await host.reply())[:4], "little") == 102
        assert (await host.relay(CLIENT)).result == 1
        async with asyncio.timeout(30):  # what is read soon after a stall counts as old, too
            while (await host.authenticated(CLIENT, "alice")).result != 0:
                pass
        assert (await host.relay(CLIENT)).text == "alice"
        await channel.close()


async def test_workers_end_with_the_owner_and_answer_nothing_without_it(
    tmp_path: Path, certificates: Path
) -> None:
    killed = -signal.SIGKILL
    async with (
        workers(tmp_path, certificates, 2, exit_code=killed) as (pid, port),
        agent(port) as host,
    ):
        await host.authenticated(CLIENT, "alice")
        left = worker_pids(pid)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while any(Path(f"/proc/{worker}/exe").exists() for worker in left):
                reply = b""
                with contextlib.suppress(TimeoutError, OSError):
                    await host.send(host.request(1, "RELAY", CLIENT))
                    reply = await host.reply(0.2)
                assert reply[:1] != b"\3"
