"""A Connection Manager in a process of its own, and clients of one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import load_config
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role

from bench.processes import agent
from tests.support.installation import free_port

__all__ = ["INSTALLATION", "Manager", "connection_manager", "manager_client"]

INSTALLATION = "netmail"


@dataclass(frozen=True, slots=True)
class Manager:
    """A Connection Manager that runs.

    Attributes:
        port: of its gRPC service, mutual TLS.
        certificates: the folder with its own and an administrator's.
    """

    pid: int
    port: int
    certificates: Path


@contextmanager
def connection_manager(
    folder: Path, *, log: IO[bytes] | None = None, level: str = "warning", **settings: Any
) -> Iterator[Manager]:
    """cm1 with these settings of its own; one Messaging Server, `mail1`, names it.

    Args:
        folder: for its state.
        log: takes its log; None: whoever reads ours.
    """
    port = free_port()
    config = folder / "config.yaml"
    manager = {"name": "cm1", "listen": [f"127.0.0.1:{port}"], **settings}
    server = {
        "name": "mail1",
        "host_name": "mail1.example.org",
        "domains": ["example.org", "example.net"],
        "connection_manager": "cm1",
        "contexts": [{"name": "users.demo"}],
        "nmap": {"listen": [f"127.0.0.1:{free_port()}"]},
    }
    whole = {
        "log": {"level": level, "format": "json"},
        "connection_managers": [manager],
        "messaging_servers": [server],
    }
    config.write_text(yaml.safe_dump(whole), encoding="utf-8")
    installation = load_config(config, state=folder)
    authority = LocalAuthority.open_or_create(folder / "ca", installation.installation)
    for role in (Role.CONNMGR, Role.ADMIN):
        authority.issue(role, installation.certificates)
    options = ("--config", str(config), "--state", str(folder), "--name", "cm1")
    with agent("netmail_connmgr", *options, log=log) as process:
        yield Manager(process.pid, port, installation.certificates)


@asynccontextmanager
async def manager_client(
    certificates: Path, port: int, role: Role = Role.ADMIN
) -> AsyncIterator[ConnectionManagerClient]:
    """A client of the Connection Manager on a port of this machine, with a channel of its own."""
    channel = Channel(
        f"127.0.0.1:{port}",
        Identity.from_folder(certificates, role),
        installation=INSTALLATION,
        expected_role=Role.CONNMGR,
    )
    try:
        yield ConnectionManagerClient(channel)
    finally:
        await channel.close()
