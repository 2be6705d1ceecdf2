"""What tests of the front ends share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from netmail_common.config import Installation, parse_config
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.roles import Role
from netmail_connmgr.app.manager import Running

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.one_manager import client_of, manager_config


def settings(certificates: Path, **manager: Any) -> Installation:
    """One Connection Manager, cm1, whose front ends may be asked from this machine."""
    manager = {"http": {"listen": None}, "loopback_grants": True} | manager
    return parse_config(manager_config(certificates, **manager))


@contextlib.asynccontextmanager
async def grpc_client(
    running: Running, identity_for: IdentityFor, role: Role = Role.ADMIN
) -> AsyncIterator[ConnectionManagerClient]:
    """A client of a Connection Manager's gRPC service."""
    channel, client = client_of(running.ports[0], identity_for(role))
    try:
        yield client
    finally:
        await channel.close()


class _Answer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if not self.answer.done():
            self.answer.set_result(data)


async def ask_udp(
    port: int, datagram: bytes, *, source: tuple[str, int] | None = None, patience: float = 20
) -> bytes | None:
    """The answer to a datagram; None: there was none in PATIENCE seconds."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        _Answer, remote_addr=("127.0.0.1", port), local_addr=source
    )
    try:
        transport.sendto(datagram)
        async with asyncio.timeout(patience):
            return await protocol.answer
    except TimeoutError:
        return None
    finally:
        transport.close()
