"""Streams of the login table, message by message."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import WatchEvent, WatchMode
from netmail_common.connmgr.model import Login
from netmail_common.connmgr.packed import LoginPacker, Origin
from netmail_common.grpc_errors import error_reason
from netmail_common.roles import Role

from tests.connmgr.conftest import Server


class Watching:
    """A raw stream, message by message."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.packer = LoginPacker()

    async def read(self) -> pb.WatchLoginsResponse:
        message = await asyncio.wait_for(self.call.read(), 10)
        assert isinstance(message, pb.WatchLoginsResponse), "the stream ended"
        return message

    async def expect(self, kind: str) -> pb.WatchLoginsResponse:
        message = await self.read()
        assert message.WhichOneof("event") == kind, message
        return message

    async def logins(self) -> list[Login]:
        """The logins of the next message, which must be of changes."""
        changes = (await self.expect("changes")).changes
        return self.unpack(changes)

    def unpack(self, changes: pb.LoginChanges | pb.HeldNetworks) -> list[Login]:
        for one in changes.origins:
            origin = Origin(one.messaging_server, frozenset(one.domains))
            self.packer.origins.learn(one.id, origin)
        return [self.packer.unpack(record) for record in changes.records]

    async def hold(self, add: list[bytes] | None = None, remove: list[bytes] | None = None) -> None:
        wish = pb.HoldNetworks(add=add, remove=remove)
        await self.call.write(pb.WatchLoginsRequest(hold=wish))

    async def nonce(self, number: int) -> None:
        await self.call.write(pb.WatchLoginsRequest(nonce=number))


@asynccontextmanager
async def watching(
    server: Server,
    mode: WatchMode = WatchMode.FULL,
    *,
    instance_id: str = "",
    revision: int = 0,
    clock_id: str | None = None,
    role: Role = Role.SMTP,
) -> AsyncIterator[Watching]:
    call = server.stub(role).WatchLogins()  # type: ignore[call-arg]
    start = pb.WatchStart(
        mode=mode.value,
        instance_id=instance_id,
        revision=revision,
        clock_id=server.store.clock_id if clock_id is None else clock_id,
    )
    try:
        await call.write(pb.WatchLoginsRequest(start=start))
        yield Watching(call)
    finally:
        call.cancel()


async def register(server: Server, *items: pb.LoginRegistration) -> None:
    await server.client(Role.ADMIN).register(items)


async def events_until(
    events: AsyncIterator[WatchEvent], kind: Callable[[WatchEvent], bool]
) -> list[WatchEvent]:
    seen: list[WatchEvent] = []
    async with asyncio.timeout(15):
        async for event in events:
            seen.append(event)
            if kind(event):
                return seen
    raise AssertionError(seen)


def is_a(*kinds: type) -> Callable[[WatchEvent], bool]:
    return lambda event: isinstance(event, kinds)


async def until_error(stream: Watching) -> str | None:
    """Reads what lies in the buffers."""
    try:
        while True:
            await stream.read()
    except grpc.aio.AioRpcError as error:
        return error_reason(error)
