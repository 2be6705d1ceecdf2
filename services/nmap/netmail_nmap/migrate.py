"""Brings a PostgreSQL store up to date before the agents start.

python -m netmail_nmap.migrate --config FILE --server NAME; or --url-file FILE, where there is no
configuration yet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from netmail_common.command_line import agent_parser, read_arguments
from netmail_common.lifecycle import EXIT_CONFIG

from netmail_nmap.adapters.postgresql import Place, prepare
from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints why it could not be done; the exit code. Several at once wait for each other."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--url-file", type=Path, metavar="FILE")
    options, rest = parser.parse_known_args(argv)
    if options.url_file is not None:
        if rest:
            parser.error(f"--url-file stands alone, without {rest[0]}")
        # Behind pgbouncer or not.
        return _prepare(Place(pooled=True, url_file=options.url_file))
    arguments, installation = read_arguments(agent_parser("netmail-nmap-migrate", "--server"), rest)
    try:
        store = installation.messaging_server(arguments.name).nmap.store
    except KeyError:
        sys.stderr.write(f"no messaging server is named {arguments.name!r}\n")
        return EXIT_CONFIG
    if not store.shared:
        sys.stderr.write("nothing to do: the store is on SQLite, which its agent migrates\n")
        return 0
    return _prepare(Place.from_config(store, installation.store_url(arguments.name)))


def _prepare(place: Place) -> int:
    try:
        prepare(place)
    except StoreUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
