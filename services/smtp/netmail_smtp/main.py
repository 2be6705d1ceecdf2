"""Command line: `netmail-smtp serve|deliver --config FILE --server NAME`."""

import sys

from netmail_common.command_line import (
    AgentArguments,
    agent_parser,
    run_from_command_line,
)
from netmail_common.config import Installation
from netmail_common.lifecycle import Lifecycle


async def _run(arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle) -> None:
    # Each process loads its own half only: a third of its start, and memory in every worker.
    if arguments.command == "serve":
        from netmail_smtp.app.serve import serve  # noqa: PLC0415 - see above

        await serve(arguments, installation, lifecycle)
    else:
        from netmail_smtp.app.deliver import deliver  # noqa: PLC0415 - see above

        await deliver(arguments, installation, lifecycle)


def main() -> None:
    """Runs the SMTP Agent; exits with its code."""
    parser = agent_parser("netmail-smtp", "--server", commands=["serve", "deliver"])
    sys.exit(run_from_command_line("smtp", parser, _run))


if __name__ == "__main__":
    main()
