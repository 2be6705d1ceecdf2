"""Notes on disk: from where users have logged in must outlive the process that counts."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from netmail_common.gather import Gatherer
from netmail_common.logging import get_logger

__all__ = ["NoteJournal"]

log = get_logger(__name__)

_KEY = re.compile("[0-9a-f]{24}")
_MAX_LINES = 10_000
_MAX_OCTETS = 1024 * 1024


class NoteJournal:
    """An append-only file of notes, each with its end. Belongs to one event loop and one process.

    When it is opened, and when it has grown, it is written anew without what is over. Ends are
    kept by the wall clock, since other clocks begin anew with the machine: nobody may relay for a
    note. Keys are 24 hexadecimal digits.

    Args:
        path: of the file.
        wall: seconds since 1970.

    Raises: OSError.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        path.parent.mkdir(parents=True, exist_ok=True)
        self._notes = _read(path, wall())
        self._file = _write_anew(path, self._notes)
        self._lock = asyncio.Lock()
        self.lines = len(self._notes)
        """Lines in the file, those that count no more included."""
        self._append = Gatherer[bytes, None](self._write, _MAX_LINES, _MAX_OCTETS, len)
        self._failed = False

    def notes(self) -> Iterator[tuple[str, float]]:
        """The notes that it was opened with, once, each with the seconds left to it."""
        now = self._wall()
        notes, self._notes = self._notes, {}
        for key, until in notes.items():
            yield key, until - now

    async def append(self, keys: Sequence[str], seconds: float) -> None:
        """Writes notes; 0 seconds: they are forgotten. An error is logged, and nothing else."""
        until = int(self._wall() + seconds)
        await self._append("".join(f"{until} {key}\n" for key in keys).encode())

    async def write_anew(self, notes: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Replaces the file by NOTES, each with the seconds left to it, as they are then.

        An error is logged, and the old file is gone on with.
        """
        async with self._lock:
            now = self._wall()
            left = {key: now + seconds for key, seconds in notes()}
            try:
                file = await asyncio.to_thread(_write_anew, self._path, left)
            except OSError as error:
                log.warning("known addresses not written anew", error=str(error.strerror))
            else:
                os.close(self._file)
                self._file = file
            self.lines = len(left)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    async def _write(self, lines: list[bytes]) -> list[None]:
        data = b"".join(lines)
        self.lines += data.count(b"\n")
        try:
            async with self._lock:
                await asyncio.to_thread(_write_all, self._file, data)
        except OSError as error:
            if not self._failed:
                log.warning("known addresses not written", error=str(error.strerror))
            self._failed = True
        else:
            self._failed = False
        return [None] * len(lines)


def _read(path: Path, now: float) -> dict[str, float]:
    """The notes that are not over; what is no line of ours is left out."""
    notes: dict[str, float] = {}
    try:
        lines = path.read_text("ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return notes
    for line in lines:
        until, _, key = line.partition(" ")
        if not until.isdecimal() or _KEY.fullmatch(key) is None:
            continue
        if float(until) > now:
            notes[key] = float(until)
        else:
            notes.pop(key, None)
    return notes


def _write_anew(path: Path, notes: dict[str, float]) -> int:
    """Replaces the file; gives it open for appending."""
    new = path.with_name(f"{path.name}.new")
    file = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    _write_all(file, "".join(f"{int(until)} {key}\n" for key, until in notes.items()).encode())
    os.fsync(file)
    new.replace(path)
    return file


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
