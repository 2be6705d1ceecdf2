"""Command line: python -m netmail_connmgr --config FILE --state DIR --name NAME."""

import sys

from netmail_common.command_line import agent_parser, run_from_command_line

from netmail_connmgr.app.manager import run


def main() -> None:
    """Runs the agent; ends the process."""
    sys.exit(run_from_command_line("connmgr", agent_parser("netmail-connmgr", "--name"), run))
