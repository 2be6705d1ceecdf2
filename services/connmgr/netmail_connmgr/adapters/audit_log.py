"""The audit log on disk: a file of lines a day, only ever appended to."""

import asyncio
import contextlib
import os
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics
from netmail_connmgr.domain.audit import AuditQuestion

__all__ = ["AuditLog", "AuditPage"]

log = get_logger(__name__)

_MAX_WAITING = 50_000
"""Lines that wait for the disk; more are lost, and counted."""
_EVERY = 0.2
"""Seconds between two writes."""
_SWEEP_EVERY = 3600.0
_COMPLAIN_EVERY = 60.0
_BLOCK = 1 << 20
_PAGE = 500
_FILE_MODE = 0o600

AuditPage = list[tuple[dict[str, Any], str]]
"""Records, each with its line."""


class AuditLog:
    """Belongs to one event loop. Several processes may append to the same files.

    Args:
        folder: of the files; it is made if it is not there.
        name: of the Connection Manager: the files are NAME.YYYY-MM-DD.jsonl, by UTC.
        retention: seconds after its day that a file is kept.
        wall: seconds since 1970.

    Raises: OSError, when nothing can be written there.
    """

    def __init__(
        self, folder: Path, name: str, *, retention: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._prefix = quote(name, safe="")
        self._retention = retention
        self._wall = wall
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._whole = False
        self._complained = float("-inf")
        folder.mkdir(parents=True, exist_ok=True)
        self._append(self._path(self._today()), b"")

    def write(self, line: bytes) -> None:
        """Takes a line; it is on its way to the file within a moment."""
        if len(self._waiting) >= _MAX_WAITING:
            metrics.AUDIT_LOST.inc()
            return
        self._waiting.append(line)
        self._wake.set()

    async def run(self) -> None:
        """Writes, and removes what is old, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            while True:
                await self._wake.wait()
                await asyncio.sleep(_EVERY)
                await self.flush()

    async def flush(self) -> None:
        """Writes what waits."""
        async with self._writing:
            self._wake.clear()
            if not self._waiting:
                return
            lines = list(self._waiting)
            self._waiting.clear()
            try:
                await asyncio.to_thread(self._append, self._path(self._today()), b"".join(lines))
            except OSError as error:
                metrics.AUDIT_LOST.inc(len(lines))
                self._complain(error)

    async def read(self, question: AuditQuestion, limit: int) -> AsyncGenerator[AuditPage, None]:
        """What was written, oldest first, in pages.

        Args:
            question: what is wanted.
            limit: only the newest that many; 0: all.

        Raises: OSError.
        """
        await self.flush()
        newest: deque[tuple[dict[str, Any], str]] = deque(maxlen=limit or None)
        for path in self._files(datetime.fromtimestamp(question.since, UTC).date()):
            try:
                opened = _Pages(path, question)
            except FileNotFoundError:
                continue  # it was moved away, or its time was over
            with contextlib.closing(opened) as pages:
                while (page := await asyncio.to_thread(pages.next_page)) is not None:
                    if not limit:
                        yield page
                    newest.extend(page if limit else ())
        kept = list(newest)
        for start in range(0, len(kept), _PAGE):
            yield kept[start : start + _PAGE]

    def _append(self, path: Path, data: bytes) -> None:
        """Raises: OSError."""
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            if not self._whole and _ends_in_half_a_line(file):
                data = b"\n" + data
            self._whole = False
            while data:
                data = data[os.write(file, data) :]
            self._whole = True
        finally:
            os.close(file)

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._remove_old)
            except OSError as error:
                self._complain(error)
            await asyncio.sleep(_SWEEP_EVERY)

    def _remove_old(self) -> None:
        oldest = self._today() - timedelta(seconds=self._retention)
        for path in self._files(date.min):
            if self._day(path) < oldest:
                with contextlib.suppress(OSError):
                    path.unlink()
                    log.info("audit log removed", file=path.name)

    def _files(self, since: date) -> list[Path]:
        """The files of that day and later, oldest first."""
        found = [path for path in self._folder.iterdir() if self._day(path) >= since]
        return sorted((path for path in found if self._day(path) > date.min), key=self._day)

    def _day(self, path: Path) -> date:
        """The day of a file; date.min for what is none of ours."""
        match = re.fullmatch(re.escape(self._prefix) + r"\.(\d{4}-\d\d-\d\d)\.jsonl", path.name)
        with contextlib.suppress(ValueError):
            return date.fromisoformat(match[1]) if match else date.min
        return date.min

    def _path(self, day: date) -> Path:
        return self._folder / f"{self._prefix}.{day.isoformat()}.jsonl"

    def _today(self) -> date:
        return datetime.fromtimestamp(self._wall(), UTC).date()

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_EVERY:
            self._complained = now
            log.error("audit log not written", folder=str(self._folder), error=error.strerror)


class _Pages:
    """What a file has of what is wanted, a page at a time; to be read in a thread."""

    def __init__(self, path: Path, question: AuditQuestion) -> None:
        self._question = question
        self._needles = question.needles()
        self._file: BinaryIO = path.open("rb")

    def next_page(self) -> AuditPage | None:
        """The next records, at most a page, maybe none of a block of lines; None: no more.

        Raises: OSError.
        """
        lines = self._file.readlines(_BLOCK)
        if not lines:
            return None
        worth_reading = [line for line in lines if all(one in line for one in self._needles)]
        found = ((self._question.matching(line), line) for line in worth_reading)
        return [
            (record, line.decode().rstrip("\n")) for record, line in found if record is not None
        ]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _ends_in_half_a_line(file: int) -> bool:
    size = os.fstat(file).st_size
    return bool(size) and os.pread(file, 1, size - 1) != b"\n"
