"""One Connection Manager, cm1, that one Messaging Server asks: settings, process, clients."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from netmail_common.certificates import Identity
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role


def manager_config(certificates: Path, **manager: Any) -> dict[str, Any]:
    """Its state is beside the certificates, in a folder of the test run.

    So it is rarely the first there; it does not wait for the logins of those before.
    """
    return {
        "state_dir": str(certificates.parent / "state"),
        "grpc": {"certificates": str(certificates)},
        "connection_managers": [
            {
                "name": "cm1",
                "listen": ["127.0.0.1:0"],
                "http": {"listen": "127.0.0.1:0"},
                "settle_time": 0,
                **manager,
            }
        ],
        "messaging_servers": [
            {
                "name": "mail1",
                "host_name": "mail.example.org",
                "domains": ["example.org"],
                "connection_manager": "cm1",
                "contexts": [{"name": "users.demo"}],
                "nmap": {"listen": ["127.0.0.1:0"]},
            }
        ],
    }


@contextlib.asynccontextmanager
async def manager_process(
    config: dict[str, Any],
    folder: Path,
    *,
    stderr: int = asyncio.subprocess.DEVNULL,
    exit_codes: tuple[int, ...] = (0,),
) -> AsyncIterator[Process]:
    """It runs as a command, with its state in FOLDER, and is ready.

    In the end it is asked to end, unless the block has killed it (EXIT_CODES says so).
    """
    file = folder / "netmail.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    ready_read, ready_write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "netmail_connmgr"),
        *("--config", str(file), "--state", str(folder), "--name", "cm1"),
        pass_fds=[ready_write],
        env={**os.environ, "NETMAIL_READY_FD": str(ready_write)},
        stderr=stderr,
    )
    os.close(ready_write)
    try:
        assert await asyncio.to_thread(os.read, ready_read, 100) == b"ready\n"
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) in exit_codes
    finally:
        os.close(ready_read)
        if process.returncode is None:
            process.kill()
            await process.wait()


def worker_pids(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def channel_to(port: int, identity: Identity) -> Channel:
    """To the Connection Manager that listens on a port of this machine."""
    return Channel(
        f"127.0.0.1:{port}", identity, installation="netmail", expected_role=Role.CONNMGR
    )


def client_of(port: int, identity: Identity) -> tuple[Channel, ConnectionManagerClient]:
    """A client of the Connection Manager that listens on a port of this machine."""
    channel = channel_to(port, identity)
    return channel, ConnectionManagerClient(channel)


def listening_port(pid: int) -> int:
    """The port of a process that listens on one."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    tables = [
        Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")
    ]
    for line in "".join(tables).splitlines():
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].partition(":")[2], 16)
    raise AssertionError("it listens on no port")
