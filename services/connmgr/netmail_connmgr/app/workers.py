"""Worker processes: they serve the front ends and ask the process that owns the table."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence

from netmail_common.command_line import AgentArguments
from netmail_common.config import ConfigError, FixedKeys, Installation
from netmail_common.config._base import HostPort, parse_host_port
from netmail_common.config_reload import following_config
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import agent_identity
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.networks import AddressRules
from netmail_common.roles import Role
from netmail_common.workers import ChildProcess

from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.remote_desk import RemoteDesk
from netmail_connmgr.app.front_ends import front_ends

__all__ = ["owner_target", "run_worker", "worker_command", "worker_processes"]

_OWNER = "NETMAIL_CONNMGR_OWNER"
"""Environment: host:port of the process that owns the table."""
_DRAIN_TIMEOUT = 10.0


def worker_command(arguments: AgentArguments) -> list[str]:
    """The command line of a worker, but for its index."""
    state = [] if arguments.state is None else ["--state", str(arguments.state)]
    return [
        *(sys.executable, "-m", "netmail_connmgr", "--config", str(arguments.config_file)),
        *(*state, "--name", arguments.name, "--worker"),
    ]


def owner_target(listen: str, port: int) -> str:
    """Where the owner is reached on its own machine.

    Args:
        listen: as configured.
        port: that it got.
    """
    host = parse_host_port(listen).host
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return str(HostPort(anywhere.get(host, host), port))


@contextlib.asynccontextmanager
async def worker_processes(count: int, command: Sequence[str], owner: str) -> AsyncIterator[None]:
    """Keeps COUNT workers running until the block ends; they are ready when it begins.

    Raises: StartFailed.
    """
    workers = [
        ChildProcess(
            f"connmgr front ends {index}", [*command, str(index)], environment={_OWNER: owner}
        )
        for index in range(count)
    ]
    runs = [asyncio.create_task(worker.run()) for worker in workers]
    ready = asyncio.create_task(_all_ready(workers))
    try:
        await asyncio.wait([ready, *runs], return_when=asyncio.FIRST_COMPLETED)
        for run in runs:
            if run.done():
                run.result()
        yield
    finally:
        ready.cancel()
        await asyncio.gather(*(worker.stop(_DRAIN_TIMEOUT) for worker in workers))
        await asyncio.gather(ready, *runs, return_exceptions=True)


async def run_worker(
    arguments: AgentArguments, installation: Installation, worker: int, lifecycle: Lifecycle
) -> None:
    """Serves the front ends until the drain.

    Raises: ConfigError, OSError.
    """
    name = arguments.name
    try:
        config = installation.connection_manager(name)
    except KeyError:
        raise ConfigError(f"no connection manager is named {name!r}") from None
    channel = Channel(
        os.environ.get(_OWNER) or config.target,
        agent_identity(installation, Role.CONNMGR),
        installation=installation.installation,
        expected_role=Role.CONNMGR,
    )
    health = Health()
    desk = RemoteDesk(channel)

    def setup(installation: Installation) -> FrontEndSetup:
        rules = AddressRules.of_installation(installation, name)
        return FrontEndSetup(installation, name, rules, desk, worker)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(channel.close)
        watching = asyncio.create_task(desk.watch_stalls())
        stack.callback(watching.cancel)
        # The owner has the port itself.
        await stack.enter_async_context(
            http_server(config.http.listen, health, port_offset=worker + 1)
        )
        served = await stack.enter_async_context(front_ends(setup(installation)))

        async def use(installation: Installation) -> None:
            await served.use(setup(installation))

        fixed = FixedKeys.of_connection_manager(name)
        await stack.enter_async_context(following_config(arguments, installation, fixed, use))
        health.set_ready(True)
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()
        health.set_ready(False)


async def _all_ready(workers: Sequence[ChildProcess]) -> None:
    for worker in workers:
        await worker.ready.wait()
