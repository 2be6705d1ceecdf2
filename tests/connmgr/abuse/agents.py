"""A real Connection Manager, and agents' gates on streams of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.config import Installation, RatesConfig, parse_config
from netmail_common.connmgr import ConnectionManagerClient, WatchMode
from netmail_common.connmgr.gate import Door, Gate, Visitor
from netmail_common.grpc_client import Channel
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.one_manager import channel_to, manager_config


def settings(certificates: Path, state: Path, **manager: Any) -> Installation:
    return parse_config({**manager_config(certificates, **manager), "state_dir": str(state)})


class CountingClient(ConnectionManagerClient):
    """Counts what it asks."""

    calls = 0

    async def check_connection(self, check: pb.ConnectionCheck) -> pb.ConnectionDecision:
        self.calls += 1
        return await super().check_connection(check)

    async def report_event(self, event: pb.Event) -> pb.EventResult:
        self.calls += 1
        return await super().report_event(event)


@dataclass
class Agent:
    """A gate, and the stream that feeds it."""

    gate: Gate
    client: CountingClient


@dataclass
class Manager:
    """A running Connection Manager."""

    port: int
    identity_for: IdentityFor
    rates: RatesConfig
    stack: contextlib.AsyncExitStack
    stop: Callable[[], Awaitable[None]]
    admin: "connmgr_pb2_grpc.ConnectionManagerServiceAsyncStub" = field(init=False)

    async def agent(self, role: Role = Role.POP_IMAP) -> Agent:
        """Joins, and has heard of every suspect."""
        client = self.client(role)
        rules = NetworkMap(AddressRules())
        gate = Gate(client, rules, messaging_server="mail1", agent="test", rates=self.rates)
        self.stack.push_async_callback(gate.close)
        ready = asyncio.Event()

        async def follow() -> None:
            async for event in client.watch(WatchMode.REVOCATIONS):
                gate.take(event)
                if getattr(event, "complete", False):
                    ready.set()

        task = asyncio.create_task(follow())
        self.stack.callback(task.cancel)
        async with asyncio.timeout(20):
            await ready.wait()
        return Agent(gate, client)

    def client(self, role: Role) -> CountingClient:
        return CountingClient(self.channel(role), timeout=2.0)

    def channel(self, role: Role) -> Channel:
        channel = channel_to(self.port, self.identity_for(role))
        self.stack.push_async_callback(channel.close)
        return channel


@contextlib.asynccontextmanager
async def managing(installation: Installation, identity_for: IdentityFor) -> AsyncIterator[Manager]:
    async with contextlib.AsyncExitStack() as own, contextlib.AsyncExitStack() as stack:
        running = await own.enter_async_context(connection_manager(installation, "cm1"))
        rates = installation.connection_manager("cm1").rates
        manager = Manager(running.ports[0], identity_for, rates, stack, own.aclose)
        channel = manager.channel(Role.ADMIN)
        manager.admin = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
        yield manager


def visitor(address: str, door: Door = Door.IMAP) -> Visitor:
    return Visitor(ip_address(address), door, door.name.lower())
