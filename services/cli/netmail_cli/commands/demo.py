"""`netmail demo`: the six stages, played against a running installation or one of its own."""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from netmail_common.config import ConfigError, load_config
from netmail_common.config._base import parse_host_port
from rich.console import Console
from rich.text import Text

from netmail_cli.context import StateOption
from netmail_cli.demo import DEMO_CONFIG
from netmail_cli.demo.dialogue import Differs
from netmail_cli.demo.stages import Stages
from netmail_cli.exit_codes import ExitCode
from netmail_cli.state import RunRecord

__all__ = ["demo"]

_STOP_WITHIN = 90


def demo(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The demonstration's configuration.")
    ] = DEMO_CONFIG,
    state: StateOption = None,
) -> None:
    """Plays the six stages; exit code 1 at the first thing that differs from the design.

    Uses the installation that runs on the configuration's ports; starts one of its own, in a
    temporary directory, if none does.
    """
    console = Console(highlight=False)
    try:
        with _running(config, state, console) as where:
            Stages(config, load_config(config, state=where), console).play()
    except Differs as difference:
        console.print(Text(f"\nDIFFERS: {difference}", style="bold red"), soft_wrap=True)
        raise typer.Exit(int(ExitCode.FAILED)) from None
    except ConfigError as error:
        sys.stderr.write(f"netmail: {error}\n")
        raise typer.Exit(int(ExitCode.CONFIG)) from None
    console.print(Text("\nEverything is as designed.", style="bold green"))


@contextlib.contextmanager
def _running(config: Path, state: Path | None, console: Console) -> Iterator[Path]:
    """The state directory of an installation that runs; ours ends with the block."""
    installation = load_config(config, state=state)
    first = installation.messaging_servers[0].smtp.listeners[0].listen[0]
    if _answers(first):
        if RunRecord.read(installation.state_dir) is None:
            raise ConfigError(
                f"an installation runs on {first}, but not in {installation.state_dir}: say --state"
            )
        yield installation.state_dir
        return
    with tempfile.TemporaryDirectory(prefix="netmail-demo-") as folder:
        console.print(f"Starting an installation in {folder} ...")
        with _own(config, Path(folder)):
            yield Path(folder)


@contextlib.contextmanager
def _own(config: Path, folder: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "netmail_cli", "run", "--config", str(config)]
    log_path = folder / "demo.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [*argv, "--state", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None  # noqa: S101 - PIPE was given
    try:
        for line in process.stdout:
            if line == "ready\n":
                break
        else:
            raise Differs(f"the installation did not start:\n{log_path.read_text()}")
        yield
        process.send_signal(signal.SIGTERM)
        code = process.wait(_STOP_WITHIN)
        if code != 0:
            raise Differs(f"netmail run ended with {code}, not 0")
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_WITHIN)
            process.kill()
        process.stdout.close()


def _answers(address: str) -> bool:
    target = parse_host_port(address)
    try:
        with socket.create_connection((target.host, target.port), 2):
            return True
    except OSError:
        return False
