"""Runs in an agent's pod, from standard input: calls methods as that agent, says what came back.

Arguments: role, seconds for a call, JSON list of [method, target's agent], JSON list of further
headers. Prints JSON: by method the status, the message and the reason of ErrorInfo.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
from netmail_common.config import load_config
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.grpc_security import agent_identity
from netmail_common.roles import Role

CONFIG = Path("/etc/netmail/config/netmail.yaml")


async def call(channel: Channel, method: str, seconds: float, headers: Any) -> list[str]:
    """Sends an empty request; status, message and reason of the answer."""
    raw: Any = channel.raw  # its stubs want what gRPC does not
    ask = raw.stream_unary(method)
    try:
        await ask(iter([b""]), timeout=seconds, metadata=headers, wait_for_ready=False)
    except grpc.aio.AioRpcError as error:
        return [error.code().name, error.details() or "", error_reason(error) or ""]
    except asyncio.CancelledError:
        return ["CANCELLED", "", ""]
    return ["OK", "", ""]


async def main(role: Role, seconds: float, methods: list[list[str]], headers: Any) -> None:
    """Calls one after the other."""
    installation = load_config(CONFIG)
    identity = agent_identity(installation, role)
    (manager,), (server,) = installation.connection_managers, installation.messaging_servers
    targets = {"connmgr": manager.target, "nmap": server.nmap.target}
    channels = {
        agent: Channel(
            target, identity, installation=installation.installation, expected_role=Role(agent)
        )
        for agent, target in targets.items()
    }
    found = {}
    for method, agent in methods:
        found[method] = await call(channels[agent], method, seconds, headers)
    for channel in channels.values():
        await channel.close()
    sys.stdout.write(json.dumps(found) + "\n")


asyncio.run(
    main(Role(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4]))
)
