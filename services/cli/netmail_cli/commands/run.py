"""`netmail run`: every agent of an installation, each a process of its own, on this machine."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from netmail_common.config import ConfigError, Installation, load_config
from netmail_common.lifecycle import Lifecycle, run_agent
from netmail_common.logging import configure_logging, get_logger
from rich.console import Console

from netmail_cli.context import StateOption
from netmail_cli.exit_codes import ExitCode
from netmail_cli.processes import Supervisor, process_specs
from netmail_cli.state import RunRecord, StateLock, issue_certificates
from netmail_cli.table import print_services

__all__ = ["run"]

log = get_logger(__name__)

_RENEWAL_CHECK = 6 * 3600.0


def run(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="What to run.")],
    state: StateOption = None,
) -> None:
    """Runs an installation on this machine until Ctrl-C or SIGTERM.

    Prints one table of what runs where, then, when every listener accepts, the line `ready`.
    """
    try:
        installation = load_config(config, state=state)
        lock = StateLock(installation.state_dir)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"netmail: {error}\n")
        raise typer.Exit(int(ExitCode.CONFIG)) from None
    configure_logging(installation.log, service="run", instance=installation.installation)
    try:
        code = run_agent(lambda lifecycle: _run(installation, config.absolute(), lifecycle))
    finally:
        lock.release()
    raise typer.Exit(code)


async def _run(installation: Installation, config: Path, lifecycle: Lifecycle) -> None:
    issue_certificates(installation)
    RunRecord(str(config), os.getpid()).write(installation.state_dir)
    console = Console()

    def ready() -> None:
        print_services(installation, _shortest(Path(sys.argv[0])), console)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        lifecycle.announce_ready()

    def died(name: str, code: int, delay: float) -> None:
        log.error("agent died, restarting", process=name, exit_code=code, seconds=delay)

    supervisor = Supervisor(process_specs(installation, config), died)
    async with _renewing(installation):
        await supervisor.run(lifecycle, ready)
    log.info("stopped")


@contextlib.asynccontextmanager
async def _renewing(installation: Installation) -> AsyncIterator[None]:
    """Renews the local CA's certificates in time; the agents take new files by themselves."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(_RENEWAL_CHECK)
            try:
                issue_certificates(installation)
            except OSError as error:
                log.error("certificates not renewed", error=str(error))  # noqa: TRY400

    task = asyncio.ensure_future(renew())
    try:
        yield
    finally:
        task.cancel()


def _shortest(program: Path) -> str:
    """PROGRAM as a person in this directory would call it."""
    if program.name == "__main__.py" or shutil.which(program.name) == str(program):
        return "netmail"
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)
