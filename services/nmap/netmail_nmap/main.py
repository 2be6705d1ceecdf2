"""Command line: python -m netmail_nmap --config FILE --state DIR --server NAME."""

import sys

from netmail_common.command_line import AgentArguments, agent_parser, run_from_command_line
from netmail_common.config import Installation
from netmail_common.lifecycle import Lifecycle

from netmail_nmap.app import run


async def _main(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    await run(arguments, installation, lifecycle)


def main() -> None:
    """Runs the agent; ends the process."""
    sys.exit(run_from_command_line("nmap", agent_parser("netmail-nmap", "--server"), _main))
