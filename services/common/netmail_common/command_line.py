"""The command line that every agent has: --config FILE, --state DIR and which one it is."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netmail_common.config import ConfigError, Installation, load_config
from netmail_common.lifecycle import EXIT_CONFIG, Lifecycle, run_agent
from netmail_common.logging import configure_logging

__all__ = ["AgentArguments", "agent_parser", "read_arguments", "run_from_command_line"]


@dataclass(frozen=True, slots=True)
class AgentArguments:
    """What the command line of an agent says."""

    config_file: Path
    state: Path | None
    name: str
    """Of the Messaging Server, or of the Connection Manager."""
    worker: int | None
    """Index of this worker process; None in the process that starts them, or when there is one."""
    command: str | None
    """Subcommand, for agents that have them."""

    def argv(self) -> list[str]:
        """The options again, for a worker process."""
        state = [] if self.state is None else ["--state", str(self.state)]
        return ["--config", str(self.config_file), *state, "--server", self.name]


def agent_parser(
    prog: str, select: Literal["--server", "--name"], commands: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """The parser of an agent's command line."""
    parser = argparse.ArgumentParser(prog=prog)
    if commands:
        parser.add_argument("command", choices=commands)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    parser.add_argument("--state", type=Path, metavar="DIR")
    parser.add_argument(select, required=True, dest="name", metavar="NAME")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser


def read_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[AgentArguments, Installation]:
    """Parses the command line and reads the configuration.

    Raises: SystemExit when either is wrong.
    """
    options = parser.parse_args(argv)
    arguments = AgentArguments(
        options.config,
        options.state,
        options.name,
        options.worker,
        getattr(options, "command", None),
    )
    try:
        return arguments, load_config(arguments.config_file, state=arguments.state)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_CONFIG)


def run_from_command_line(
    service: str,
    parser: argparse.ArgumentParser,
    main: Callable[[AgentArguments, Installation, Lifecycle], Awaitable[None]],
    argv: Sequence[str] | None = None,
) -> int:
    """Reads the command line, sets up logging, runs MAIN; the exit code of the process."""
    arguments, installation = read_arguments(parser, argv)
    instance = (
        arguments.name if arguments.worker is None else f"{arguments.name}/{arguments.worker}"
    )
    configure_logging(installation.log, service=service, instance=instance)
    return run_agent(lambda lifecycle: main(arguments, installation, lifecycle))
