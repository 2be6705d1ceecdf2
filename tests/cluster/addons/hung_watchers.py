"""Runs in a pod of an SMTP or POP/IMAP agent: watches the login table, and then reads no more.

Arguments: how many watchers, and how many calls of a thousand logins each are made until they read
again. Prints how each was answered then.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.config import load_config
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.grpc_security import agent_identity
from netmail_common.roles import Role

CONFIG = Path("/etc/netmail/config/netmail.yaml")
_LOGINS = 1000


def login(number: int, server: str) -> pb.LoginRegistration:
    """Of a session of its own, from an address that is set aside for benchmarks (RFC 2544)."""
    return pb.LoginRegistration(
        user=pb.UserKey(name=f"nobody{number}", context="users"),
        addresses=[f"nobody{number}@example.com"],
        client_address=bytes((198, 18, *divmod(number, 256))),
        protocol=pb.PROTOCOL_IMAP,
        messaging_server=server,
        agent="hung",
        session_id=uuid4().hex,
        credential_epoch=1,
    )


async def watching(channel: Channel) -> Any:
    """A stream that has the whole table."""
    stub: Any = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
    call = stub.WatchLogins()
    start = pb.WatchStart(mode=pb.WATCH_MODE_FULL)
    await call.write(pb.WatchLoginsRequest(start=start))
    while not (await call.read()).HasField("snapshot_end"):
        pass
    return call


async def end_of(call: Any) -> str:
    """Reads on; why it ends."""
    try:
        while await call.read():
            pass
    except grpc.aio.AioRpcError as error:
        return error_reason(error) or error.code().name
    return "ended"


async def main(watchers: int, calls: int) -> None:
    """They hang while the logins come."""
    installation = load_config(CONFIG)
    (manager,), (server,) = installation.connection_managers, installation.messaging_servers
    channel = Channel(
        manager.target,
        agent_identity(installation, Role.POP_IMAP),
        installation=installation.installation,
        expected_role=Role.CONNMGR,
    )
    hung = [await watching(channel) for _ in range(watchers)]
    client = ConnectionManagerClient(channel, timeout=30)
    for _ in range(calls):
        await client.register([login(number, server.name) for number in range(_LOGINS)])
    sys.stdout.write(json.dumps([await end_of(call) for call in hung]) + "\n")
    await channel.close()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
