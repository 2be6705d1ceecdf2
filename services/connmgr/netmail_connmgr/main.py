"""Command line: python -m netmail_connmgr --config FILE --state DIR --name NAME."""

import sys

from netmail_common.command_line import AgentArguments, agent_parser, run_from_command_line
from netmail_common.config import Installation
from netmail_common.lifecycle import Lifecycle

from netmail_connmgr.app.manager import run


async def _main(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    await run(installation, arguments.name, lifecycle)


def main() -> None:
    """Runs the agent; ends the process."""
    sys.exit(run_from_command_line("connmgr", agent_parser("netmail-connmgr", "--name"), _main))
