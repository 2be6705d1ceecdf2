"""`smtp serve`: receives mail, in as many worker processes as there are cores."""

import asyncio
import gc
import sys

from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    FixedKeys,
    Installation,
    MessagingServerConfig,
)
from netmail_common.config_reload import following_config
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.workers import run_workers

from netmail_smtp.adapters.services import SessionRegistry
from netmail_smtp.app.receiver import check_config, serving

__all__ = ["serve"]

log = get_logger(__name__)


async def serve(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    """Receives mail until the lifecycle drains.

    Raises: ConfigError, OSError when it cannot start.
    """
    own = installation.messaging_server(arguments.name)
    if not own.smtp.listeners:
        raise ConfigError(f"messaging server {own.name!r} has no smtp.listeners")
    check_config(installation, own)
    workers = own.smtp.workers
    if arguments.worker is not None or workers == 1:
        await _serve_here(arguments, installation, own, lifecycle)
        return
    command = [sys.executable, "-m", "netmail_smtp", "serve", *arguments.argv()]
    await run_workers(
        workers,
        lambda index: [*command, "--worker", str(index)],
        lifecycle,
        name=f"smtp {own.name}",
        drain_timeout=own.smtp.drain_timeout + 5.0,
    )


async def _serve_here(
    arguments: AgentArguments,
    installation: Installation,
    own: MessagingServerConfig,
    lifecycle: Lifecycle,
) -> None:
    health = Health()
    alone = own.smtp.workers == 1
    fixed = FixedKeys.of_agent(installation, own.name, "smtp")
    async with (
        http_server(own.smtp.http.listen, health, port_offset=arguments.worker or 0),
        serving(installation, own.name, reuse_port=not alone) as receiver,
        following_config(arguments, installation, fixed, receiver.use),
    ):
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        health.set_ready(True)
        lifecycle.announce_ready()
        log.info("receiving", messaging_server=own.name, ports=[h.ports for h in receiver.handles])
        await lifecycle.wait_for_drain()
        health.set_ready(False)
        receiver.stop_accepting()
        await _drain(receiver.sessions, own.smtp.drain_timeout)


async def _drain(sessions: SessionRegistry, seconds: float) -> None:
    """Lets transactions that are under way end; the rest is told to come again."""
    sessions.drain()
    try:
        async with asyncio.timeout(seconds):
            await sessions.wait_empty()
    except TimeoutError:
        log.warning("sessions ended by the drain's end", sessions=len(sessions))
