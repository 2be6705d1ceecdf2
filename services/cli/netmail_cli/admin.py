"""gRPC channels of an administrator to the agents of an installation."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail.nmap.v1 import (
    backup_pb2_grpc,
    directory_pb2_grpc,
    mailbox_pb2_grpc,
    queue_pb2_grpc,
)
from netmail_common.config import Installation, MessagingServerConfig
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import agent_identity
from netmail_common.roles import Role

from netmail_cli.context import find_configuration

__all__ = ["Administrator", "administrator", "pages"]


class Page(Protocol):
    """An answer that comes a page at a time."""

    next_page_token: str


P = TypeVar("P", bound=Page)


async def pages(call: Callable[[str], Awaitable[P]]) -> AsyncIterator[P]:
    """Every page of a listing.

    Args:
        call: asks for the page of a token; the first one's is empty.
    """
    token = ""
    while True:
        page = await call(token)
        yield page
        token = page.next_page_token
        if not token:
            return


class Administrator:
    """Stubs to every agent, made when they are first needed."""

    def __init__(self, installation: Installation, stack: contextlib.AsyncExitStack) -> None:
        self.installation = installation
        self._identity = agent_identity(installation, Role.ADMIN)
        self._stack = stack
        self._channels: dict[str, Channel] = {}

    def directory(
        self, server: MessagingServerConfig
    ) -> "directory_pb2_grpc.DirectoryServiceAsyncStub":
        """The directory of a Messaging Server's NMAP agent."""
        channel = self._channel(server.nmap.target, Role.NMAP)
        return directory_pb2_grpc.DirectoryServiceStub(channel.raw)

    def queue(self, server: MessagingServerConfig) -> "queue_pb2_grpc.QueueServiceAsyncStub":
        """The queue of a Messaging Server's NMAP agent."""
        channel = self._channel(server.nmap.target, Role.NMAP)
        return queue_pb2_grpc.QueueServiceStub(channel.raw)

    def mailboxes(
        self, server: MessagingServerConfig
    ) -> "mailbox_pb2_grpc.MailboxServiceAsyncStub":
        """The mail store of a Messaging Server's NMAP agent."""
        channel = self._channel(server.nmap.target, Role.NMAP)
        return mailbox_pb2_grpc.MailboxServiceStub(channel.raw)

    async def backups(
        self, server: MessagingServerConfig
    ) -> "backup_pb2_grpc.BackupServiceAsyncStub":
        """Copies of a Messaging Server's store: always the same one of its NMAP agents has them."""
        channel = self._channel(await one_address(server.nmap.target), Role.NMAP)
        return backup_pb2_grpc.BackupServiceStub(channel.raw)

    def connection_manager(self, name: str) -> "connmgr_pb2_grpc.ConnectionManagerServiceAsyncStub":
        """A Connection Manager. Raises: KeyError."""
        target = self.installation.connection_manager(name).target
        channel = self._channel(target, Role.CONNMGR)
        return connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)

    def _channel(self, target: str, role: Role) -> Channel:
        if target not in self._channels:
            channel = Channel(
                target,
                self._identity,
                installation=self.installation.installation,
                expected_role=role,
            )
            self._stack.push_async_callback(channel.close)
            self._channels[target] = channel
        return self._channels[target]


async def one_address(target: str) -> str:
    """One of the addresses behind a name, for calls that belong together; else the target."""
    host, separator, port = target.removeprefix("dns:///").rpartition(":")
    if not separator or not port.isdigit() or "/" in host:
        return target  # another kind of target, which leads where it leads
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return target  # gRPC will say what is wrong with it
    family, _, _, _, address = found[0]
    return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"


@contextlib.asynccontextmanager
async def administrator(config: Path | None, state: Path | None) -> AsyncIterator[Administrator]:
    """Reads the configuration and our certificate. Raises: ConfigError."""
    _, installation = find_configuration(config, state)
    async with contextlib.AsyncExitStack() as stack:
        yield Administrator(installation, stack)
