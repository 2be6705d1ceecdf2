"""python -m netmail_nmap.restore: makes a copy of a store the store.

The copy is read from standard input (`--sha256`), as `netmail restore` hands it over, or from a
backup's file (`--archive`), where only the agent is installed.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from netmail_common.backup_archive import Archive, ArchiveError
from netmail_common.command_line import agent_parser, read_arguments
from netmail_common.config import Installation
from netmail_common.lifecycle import EXIT_CONFIG

from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql import Place, restore_postgresql
from netmail_nmap.adapters.restore import Restored, RestoreRefused, restore_store
from netmail_nmap.adapters.sql import database_path
from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["main"]


def main() -> int:
    """Prints what is in the store now as JSON, or why it was not restored; the exit code."""
    parser = agent_parser("netmail-nmap-restore", "--server")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--sha256", metavar="HEX")
    source.add_argument("--archive", type=Path, metavar="FILE")
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--hold-queue", action="store_true")
    arguments, installation = read_arguments(parser)
    options = parser.parse_args()
    try:
        with _copy(options.archive, options.sha256, arguments.name) as (copy, sha256):
            done = _restore(
                installation,
                arguments.name,
                copy,
                sha256,
                replace=options.replace,
                hold_queue=options.hold_queue,
            )
    except (KeyError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    except (RestoreRefused, StoreUnavailable, ArchiveError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    counts = {"users": done.users, "messages": done.messages, "queued": done.queued}
    sys.stdout.write(json.dumps({**counts, "kept": done.kept}) + "\n")
    return 0


def _restore(
    installation: Installation,
    name: str,
    copy: BinaryIO,
    sha256: str,
    *,
    replace: bool,
    hold_queue: bool,
) -> Restored:
    """Raises: KeyError, ValueError for a store that is none; those of restore_store."""
    store, url = installation.messaging_server(name).nmap.store, installation.store_url(name)
    if not store.shared:
        return restore_store(
            database_path(url), copy, sha256=sha256, replace=replace, hold_queue=hold_queue
        )
    return restore_postgresql(
        Place.to_listen(store) or Place.from_config(store, url),
        store.copies or installation.state_dir,
        copy,
        sha256=sha256,
        replace=replace,
        hold_queue=hold_queue,
        objects=BodyObjects.from_config(store.objects),
    )


@contextlib.contextmanager
def _copy(path: Path | None, sha256: str | None, name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The copy and its checksum. Raises: ArchiveError, RestoreRefused."""
    if path is None:
        yield sys.stdin.buffer, sha256 or ""
        return
    archive = Archive.open(path)
    for store in archive.stores:
        if store.server == name:
            pieces = _Pieces(archive.pieces(store))
            yield io.BufferedReader(pieces), store.sha256
            return
    raise RestoreRefused(f"{path} has no store of {name}")


class _Pieces(io.RawIOBase):
    """Pieces of octets, one behind the other, as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next octets; 0: the end."""
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


if __name__ == "__main__":
    sys.exit(main())
