"""python -m netmail_nmap.migrate: brings a PostgreSQL store up to date before the agents start."""

import sys

from netmail_common.command_line import agent_parser, read_arguments
from netmail_common.lifecycle import EXIT_CONFIG

from netmail_nmap.adapters.postgresql import Place, prepare
from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["main"]


def main() -> int:
    """Prints why it could not be done; the exit code. Several at once wait for each other."""
    arguments, installation = read_arguments(agent_parser("netmail-nmap-migrate", "--server"))
    try:
        store = installation.messaging_server(arguments.name).nmap.store
    except KeyError:
        sys.stderr.write(f"no messaging server is named {arguments.name!r}\n")
        return EXIT_CONFIG
    if not store.shared:
        sys.stderr.write("nothing to do: the store is on SQLite, which its agent migrates\n")
        return 0
    url = installation.store_url(arguments.name)
    try:
        prepare(Place(url, store.password_file, pooled=store.pooled))
    except StoreUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
