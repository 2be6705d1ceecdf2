"""Consistent copies of a store, made while the agent runs, and read from it in pieces.

A copy is an SQLite database, whatever the store's engine.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from netmail_common.logging import get_logger

from netmail_nmap.domain.errors import (
    BackupGone,
    BackupUnderWay,
    InsufficientStorage,
    InvalidRequest,
    StoreUnavailable,
)

__all__ = ["CopyInfo", "MakeCopy", "Running", "StoreCopies", "copied_into", "copy_of_database"]

MAX_READ = 4 * 1024 * 1024
IDLE = 600.0
"""Seconds after which a copy that nobody asks for is given up."""
_RESERVE = 64 * 1024 * 1024
"""Octets of the disk that a copy leaves to the mail."""
_PIECE = 1024 * 1024

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CopyInfo:
    """A finished copy."""

    schema: str
    """Revision of the schema."""
    store_id: str
    size: int
    """Octets."""
    sha256: bytes


class Running(Protocol):
    """Work on a copy that can be told to end."""

    def interrupt(self) -> None:
        """From another thread: the work is to fail soon."""


MakeCopy = Callable[[Callable[[Running], None]], tuple[int, CopyInfo]]
"""Makes a copy, in a thread; gives an open descriptor of its file, which has no name any more.

It tells the function that it is given of what can be interrupted. Raises: InsufficientStorage,
StoreUnavailable.
"""


@dataclass(slots=True)
class _Copy:
    id: str
    task: "asyncio.Task[tuple[int, CopyInfo]]"
    """Gives the descriptor of the copy's file, which has no name any more."""
    giving_up: asyncio.TimerHandle | None = None


class StoreCopies:
    """Makes copies, one at a time; belongs to one event loop.

    Args:
        make: makes one.
        idle: seconds after which a copy that nobody asks for is given up.
    """

    def __init__(self, make: MakeCopy, *, idle: float = IDLE) -> None:
        self._make = make
        self._idle = idle
        self._copy: _Copy | None = None

    def begin(self) -> str:
        """Begins a copy; gives its id. Raises: BackupUnderWay."""
        if self._copy is not None:
            raise BackupUnderWay
        task = asyncio.create_task(_made(self._make), name="store-copy")
        self._copy = _Copy(secrets.token_hex(8), task)
        self._touch(self._copy)
        return self._copy.id

    async def wait(self, copy_id: str, seconds: float) -> CopyInfo | None:
        """The copy, None if it is not ready within SECONDS.

        Raises: BackupGone, InsufficientStorage, StoreUnavailable.
        """
        copy = self._find(copy_id)
        await asyncio.wait((copy.task,), timeout=seconds)
        if not copy.task.done():
            return None
        try:
            return copy.task.result()[1]
        except BaseException:
            self._copy = None
            raise

    async def read(self, copy_id: str, offset: int, length: int) -> bytes:
        """Octets of a copy that is ready. Raises: BackupGone, InvalidRequest, StoreUnavailable."""
        copy = self._find(copy_id)
        if not copy.task.done() or not 0 < length <= MAX_READ:
            raise InvalidRequest("the backup is not ready, or too much of it was asked for")
        descriptor, info = copy.task.result()
        if offset > info.size:
            raise InvalidRequest("the backup is not as long as that")
        own = os.dup(descriptor)  # the copy may end meanwhile
        try:
            return await asyncio.to_thread(os.pread, own, length, offset)
        except OSError as error:
            raise StoreUnavailable from error
        finally:
            os.close(own)

    async def end(self, copy_id: str) -> None:
        """The copy is not needed any more; does nothing if it is not there."""
        if self._copy is not None and self._copy.id == copy_id:
            await self.close()

    async def close(self) -> None:
        """Gives up what there is."""
        copy, self._copy = self._copy, None
        if copy is None:
            return
        if copy.giving_up is not None:
            copy.giving_up.cancel()
        copy.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
            descriptor, _ = await copy.task
            os.close(descriptor)

    def _find(self, copy_id: str) -> _Copy:
        if self._copy is None or self._copy.id != copy_id:
            raise BackupGone
        self._touch(self._copy)
        return self._copy

    def _touch(self, copy: _Copy) -> None:
        if copy.giving_up is not None:
            copy.giving_up.cancel()
        copy.giving_up = asyncio.get_running_loop().call_later(self._idle, self._give_up, copy.id)

    def _give_up(self, copy_id: str) -> None:
        if self._copy is None or self._copy.id != copy_id:
            return
        log.warning("a backup that nobody reads is given up")
        copy, self._copy = self._copy, None
        copy.task.add_done_callback(_closed)
        copy.task.cancel()


def _closed(task: "asyncio.Task[tuple[int, CopyInfo]]") -> None:
    if not task.cancelled() and task.exception() is None:
        os.close(task.result()[0])


async def _made(make: MakeCopy) -> tuple[int, CopyInfo]:
    running: list[Running] = []
    work = asyncio.ensure_future(asyncio.to_thread(make, running.append))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        for one in running:
            one.interrupt()
        with contextlib.suppress(StoreUnavailable):
            os.close((await work)[0])
        raise


def copy_of_database(path: Path) -> MakeCopy:
    """Of an SQLite store: what is committed when it begins, without what was removed.

    Args:
        path: the database, which this process may write to meanwhile.
    """
    target = path.with_name(path.name + ".copy")

    def write(running: Callable[[Running], None]) -> None:
        source = path.absolute().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(source, uri=True, timeout=30)) as connection:
            running(connection)
            connection.execute("VACUUM INTO ?", (str(target),))

    return lambda running: copied_into(target, lambda: path.stat().st_size, lambda: write(running))


def copied_into(
    target: Path, room: Callable[[], int], write: Callable[[], None]
) -> tuple[int, CopyInfo]:
    """Makes a copy by WRITE; gives an open descriptor.

    Args:
        target: where the copy is written; the name is gone when this returns, so that a crash
            leaves nothing behind but the one that was being written.
        room: octets that it may need.
        write: fills the file.

    Raises: InsufficientStorage, StoreUnavailable.
    """
    try:
        target.unlink(missing_ok=True)
        if shutil.disk_usage(target.parent).free < room() + _RESERVE:
            raise InsufficientStorage("there is no room for a copy of the store")
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.error("the store cannot be copied", error=error.strerror)  # noqa: TRY400
        raise StoreUnavailable from error
    try:
        write()
        store_id, schema = _identity(target)
        size, sha256 = _measured(descriptor)
    except (OSError, sqlite3.Error) as error:
        os.close(descriptor)
        name = getattr(error, "sqlite_errorname", "")
        log.error("the store was not copied", error=f"{type(error).__name__} {name}")  # noqa: TRY400
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise (InsufficientStorage() if full else StoreUnavailable()) from error
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        target.unlink(missing_ok=True)
    return descriptor, CopyInfo(schema, store_id, size, sha256)


def _identity(target: Path) -> tuple[str, str]:
    """Store id and schema of what was copied."""
    copied = target.absolute().as_uri() + "?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(copied, uri=True)) as connection:
        (store_id,) = connection.execute(
            "SELECT value FROM store_meta WHERE key = 'store_id'"
        ).fetchone()
        (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(store_id), str(schema)


def _measured(descriptor: int) -> tuple[int, bytes]:
    digest = hashlib.sha256()
    size = 0
    while piece := os.pread(descriptor, _PIECE, size):
        digest.update(piece)
        size += len(piece)
    return size, digest.digest()
