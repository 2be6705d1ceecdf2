"""Revocations on disk, so that a Connection Manager that is killed still refuses what they ended.

The table is in memory and may be lost: agents register again. A revocation may not be lost, since
those agents may not have heard of it. Two files are enough: when the newer one covers a mark's
lifetime, nothing in the older one binds any more.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netmail_common.connmgr.model import Revocation, UserKey
from netmail_common.gather import Gatherer
from netmail_common.logging import get_logger

from netmail_connmgr.domain.marks import MARK_LIFETIME

__all__ = ["MarkJournal"]

log = get_logger(__name__)

_MAX_LINES = 1000
_MAX_OCTETS = 1024 * 1024


class MarkJournal:
    """An append-only file of revocations. Belongs to one event loop and one process.

    Times are kept by the wall clock, since the table's clock begins anew with the machine.

    Attributes:
        revocations: those that still bind, oldest first, as they were when it was opened.
        is_new: nobody has opened it before.

    Args:
        path: the newer file; the older one has the suffix `.old`.
        clock: the table's.
        wall: seconds since 1970.

    Raises: OSError.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float], wall: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.old")
        self._clock = clock
        self._wall = wall
        path.parent.mkdir(parents=True, exist_ok=True)
        self.is_new = not path.exists()
        newer = list(_read(path))
        self._begun = newer[0]["at"] if newer else wall()
        self.revocations = self._binding([*_read(self._older), *newer])
        self._file = _open(path)
        self._append = Gatherer[bytes, None](self._write, _MAX_LINES, _MAX_OCTETS, len)

    async def append(self, revocation: Revocation) -> None:
        """Writes a revocation; it is on the disk when this returns.

        Raises: OSError.
        """
        await self._append(self._line(revocation))

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    async def _write(self, lines: list[bytes]) -> list[None]:
        await asyncio.to_thread(self._write_now, b"".join(lines))
        return [None] * len(lines)

    def _write_now(self, data: bytes) -> None:
        if self._wall() - self._begun >= MARK_LIFETIME:
            self._rotate()
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _rotate(self) -> None:
        self._path.replace(self._older)
        file = _open(self._path)
        os.close(self._file)
        self._file, self._begun = file, self._wall()

    def _line(self, revocation: Revocation) -> bytes:
        user = revocation.user
        record = {
            "at": self._wall() - (self._clock() - revocation.made),
            "user": [user.name, user.context] if user is not None else None,
            "network": revocation.network.hex() if revocation.network is not None else None,
            "epoch": revocation.credential_epoch,
            "address": (revocation.client_address or b"").hex(),
            "prefix": revocation.prefix_length,
            "reason": revocation.reason,
        }
        return json.dumps(record).encode() + b"\n"

    def _binding(self, records: list[dict[str, Any]]) -> list[Revocation]:
        now, wall = self._clock(), self._wall()
        found = []
        for record in records:
            # A wall clock that was set back must not let in what a later mark would refuse.
            age = max(0.0, wall - record["at"])
            if age < MARK_LIFETIME:
                found.append(_revocation(record, now - age))
        return sorted(found, key=lambda revocation: revocation.made)


def _open(path: Path) -> int:
    """Opens for appending, behind a whole line, and makes the name last."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        os.write(file, b"\n")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; half a line was never acknowledged."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            record = json.loads(line)
            _revocation(record, float(record["at"]))
        except (ValueError, KeyError, TypeError):
            if line:
                log.warning("a line of the revocation journal is no revocation", file=str(path))
            continue
        yield record


def _revocation(record: dict[str, Any], made: float) -> Revocation:
    """Raises: ValueError, KeyError, TypeError."""
    user, network = record["user"], record["network"]
    return Revocation(
        made=made,
        user=UserKey(*user) if user is not None else None,
        network=bytes.fromhex(network) if network is not None else None,
        credential_epoch=int(record["epoch"]),
        client_address=bytes.fromhex(record["address"]) or None,
        prefix_length=int(record["prefix"]),
        reason=str(record["reason"]),
    )
