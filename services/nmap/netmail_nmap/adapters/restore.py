"""Puts a copy of a store in the place of a store that nobody uses."""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alembic.script import ScriptDirectory

from netmail_nmap import migrations
from netmail_nmap.adapters.sql import exclusive, make_engine, prepare
from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["RestoreRefused", "Restored", "prepared_copy", "restore_store"]

_PIECE = 1024 * 1024
_UIDS_LEFT_OUT = 1_000_000
_IDS_LEFT_OUT = 1 << 32
_EPOCHS_LEFT_OUT = 1 << 20
_NUMBERED = ("users", "bodies", "mailboxes", "queue_messages", "queue_items")
_NO_BODY = """
SELECT 1 FROM messages WHERE body_id NOT IN (SELECT id FROM bodies)
UNION ALL
SELECT 1 FROM queue_messages WHERE body_id NOT IN (SELECT id FROM bodies)
LIMIT 1"""
_NOT_WHOLE = """
SELECT 1 FROM bodies
WHERE id NOT IN (SELECT body_id FROM orphans)
AND size != length(header) + (
  SELECT coalesce(sum(length(data)), 0) FROM body_chunks
  WHERE body_chunks.id BETWEEN bodies.id << 16 AND (bodies.id << 16) + 65535)
LIMIT 1"""
_DAMAGES = (
    ("PRAGMA foreign_key_check", "rows refer to what is not there"),
    (_NO_BODY, "a message has no body"),
    (_NOT_WHOLE, "octets of a message are missing"),
)


class RestoreRefused(Exception):
    """Nothing was changed; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in the store now."""

    users: int
    messages: int
    queued: int
    """Queue items: messages for one domain."""
    kept: str | None
    """Where the store that was there before is kept."""


def restore_store(
    path: Path, source: BinaryIO, *, sha256: str, replace: bool, hold_queue: bool
) -> Restored:
    """Reads a copy, checks it, and makes it the store.

    Clients must not take new things for old ones: UIDs, modseqs and ids that may have been given
    out after the copy are never given again.

    Args:
        path: the database, which no agent has open.
        source: a copy as BackupService gives it.
        sha256: of the copy, in hexadecimal digits.
        replace: a store that is not empty may be put aside.
        hold_queue: what waits in the queue is not sent until an operator releases it.

    Raises: RestoreRefused, StoreUnavailable when an agent has the store, OSError.
    """
    staged = path.with_name(path.name + ".restore")
    with exclusive(path):
        if not replace and not _is_empty(path):
            raise RestoreRefused(f"{path} is not empty")
        with prepared_copy(staged, source, sha256=sha256, hold_queue=hold_queue) as counts:
            kept = _put_aside(path)
            staged.replace(path)
            _sync_folder(path.parent)
    return Restored(*counts, None if kept is None else str(kept))


@contextlib.contextmanager
def prepared_copy(
    staged: Path, source: BinaryIO, *, sha256: str, hold_queue: bool
) -> Iterator[tuple[int, int, int]]:
    """Receives a copy into the file STAGED, checked, brought up to date and ready to be the store.

    Gives the numbers of users, messages and queue items; the file is gone after the block.

    Raises: RestoreRefused, OSError.
    """
    try:
        _receive(staged, source, sha256)
        _check(staged)
        _adapt(staged, hold_queue=hold_queue)
        yield _counts(staged)
    finally:
        for name in _files(staged):
            name.unlink(missing_ok=True)


def _files(path: Path) -> Iterator[Path]:
    for suffix in ("", "-wal", "-shm", "-journal"):
        yield path.with_name(path.name + suffix)


def _is_empty(path: Path) -> bool:
    """Whether there is no store, or one without users and mail."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for table in ("users", "messages", "queue_messages"):
                if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608
                    return False
    except sqlite3.Error:
        return False  # whatever it is, it may be wanted
    return True


def _receive(staged: Path, source: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    for name in _files(staged):
        name.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := source.read(_PIECE):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        raise RestoreRefused("the copy is damaged: its checksum is wrong")


def _check(staged: Path) -> None:
    """Raises: RestoreRefused."""
    try:
        with contextlib.closing(sqlite3.connect(staged)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
            if found != ["ok"]:
                raise RestoreRefused(f"the copy is damaged: {found[0]}")
            for statement, words in _DAMAGES:
                if connection.execute(statement).fetchone() is not None:
                    raise RestoreRefused(f"the copy is damaged: {words}")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise RestoreRefused(f"the copy is not a store: {error}") from error
    scripts = ScriptDirectory.from_config(migrations.alembic_config())
    if row is None or row[0] not in {script.revision for script in scripts.walk_revisions()}:
        version = row[0] if row else "unknown"
        raise RestoreRefused(f"the copy is of a newer NetMail (schema {version})")


def _adapt(staged: Path, *, hold_queue: bool) -> None:
    """Brings the schema up to date and leaves out what may have been given after the copy."""
    engine = make_engine(staged)
    try:
        prepare(engine, staged)
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for statement in _adaptations(hold_queue=hold_queue):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        engine.dispose()
    descriptor = os.open(staged, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _adaptations(*, hold_queue: bool) -> Iterator[str]:
    yield (
        f"UPDATE mailboxes SET uid_next = min(uid_next + {_UIDS_LEFT_OUT}, 4294967295),"  # noqa: S608
        f" highest_modseq = highest_modseq + {_IDS_LEFT_OUT}"
    )
    # Flags may have changed since the copy: a client that asks what changed gets all of them.
    yield (
        "UPDATE messages SET modseq ="
        " (SELECT highest_modseq FROM mailboxes WHERE mailboxes.id = messages.mailbox_id)"
    )
    # Revocation marks of the Connection Manager may be newer than the copy.
    yield f"UPDATE users SET credential_epoch = credential_epoch + {_EPOCHS_LEFT_OUT}"  # noqa: S608
    for table in _NUMBERED:
        yield (
            "INSERT INTO sqlite_sequence (name, seq)"  # noqa: S608
            f" SELECT '{table}', 0 WHERE '{table}' NOT IN (SELECT name FROM sqlite_sequence)"
        )
        yield f"UPDATE sqlite_sequence SET seq = seq + {_IDS_LEFT_OUT} WHERE name = '{table}'"  # noqa: S608
    yield "UPDATE queue_items SET leased_until = 0, worker = ''"
    if hold_queue:
        yield "UPDATE queue_items SET held = 1"


def _counts(staged: Path) -> tuple[int, int, int]:
    with contextlib.closing(sqlite3.connect(staged)) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM messages),"
            " (SELECT count(*) FROM queue_items)"
        ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def _put_aside(path: Path) -> Path | None:
    """The log goes with its database: beside another one it would be taken for that one's."""
    kept = None
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for name in _files(path):
        if name.exists():
            aside = name.with_name(name.name.replace(path.name, f"{path.name}.before-{moment}", 1))
            if aside.exists():
                raise StoreUnavailable(f"{aside} exists")
            name.rename(aside)
            kept = kept or aside
    return kept


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
