"""python -m netmail_nmap.restore: makes a copy of a store, read from standard input, the store."""

import json
import sys

from netmail_common.command_line import agent_parser, read_arguments
from netmail_common.lifecycle import EXIT_CONFIG

from netmail_nmap.adapters.restore import RestoreRefused, restore_store
from netmail_nmap.adapters.sql import database_path
from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["main"]


def main() -> int:
    """Prints what is in the store now as JSON, or why it was not restored; the exit code."""
    parser = agent_parser("netmail-nmap-restore", "--server")
    parser.add_argument("--sha256", required=True, metavar="HEX")
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--hold-queue", action="store_true")
    arguments, installation = read_arguments(parser)
    options = parser.parse_args()
    try:
        path = database_path(installation.store_url(arguments.name))
    except (KeyError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    try:
        done = restore_store(
            path,
            sys.stdin.buffer,
            sha256=options.sha256,
            replace=options.replace,
            hold_queue=options.hold_queue,
        )
    except (RestoreRefused, StoreUnavailable, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    kept = None if done.kept is None else str(done.kept)
    counts = {"users": done.users, "messages": done.messages, "queued": done.queued}
    sys.stdout.write(json.dumps({**counts, "kept": kept}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
