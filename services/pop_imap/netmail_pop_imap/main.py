"""Command line: python -m netmail_pop_imap --config FILE --state DIR --server NAME."""

import sys

from netmail_common.command_line import AgentArguments, agent_parser, run_from_command_line
from netmail_common.config import ConfigError, Installation
from netmail_common.lifecycle import Lifecycle
from netmail_common.workers import run_workers

from netmail_pop_imap.app import run


async def _main(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    try:
        config = installation.messaging_server(arguments.name).pop_imap
    except KeyError:
        raise ConfigError(f"no messaging server is named {arguments.name!r}") from None
    if config.workers == 1 or arguments.worker is not None:
        await run(arguments, installation, lifecycle)
        return
    await run_workers(
        config.workers,
        lambda n: [
            *(sys.executable, "-m", "netmail_pop_imap"),
            *arguments.argv(),
            *("--worker", str(n)),
        ],
        lifecycle,
        name=f"pop_imap {arguments.name}",
        drain_timeout=config.drain_timeout + 5.0,
    )


def main() -> None:
    """Runs the agent; ends the process."""
    sys.exit(run_from_command_line("pop_imap", agent_parser("netmail-pop-imap", "--server"), _main))


if __name__ == "__main__":
    main()
