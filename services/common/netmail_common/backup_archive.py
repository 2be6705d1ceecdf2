"""The file that `netmail backup` writes: a tar archive of stores, with a manifest as its end.

An archive without its manifest was cut off. Names in it are never used as paths.
"""

import hashlib
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

__all__ = ["FORMAT", "PART", "Archive", "ArchiveError", "ArchiveWriter", "StoreEntry"]

FORMAT = 1
"""Version of the archive's form."""
PART = ".part"
"""Ends the name of a file that is not finished."""
_MANIFEST = "manifest.json"
_BLOCK = 512
_PIECE = 1024 * 1024
_MAX_MANIFEST = 1024 * 1024


class ArchiveError(Exception):
    """The file is no backup, or a damaged one; the text is for people."""


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One Messaging Server's store in an archive."""

    server: str
    engine: str
    schema: str
    store_id: str
    size: int
    """Octets."""
    sha256: str
    """Hexadecimal digits."""

    @property
    def member(self) -> str:
        """Its name in the archive."""
        return f"{self.server}.db"


class ArchiveWriter:
    """Writes an archive.

    A file is written beside its place; it gets its name when it is whole and on the disk.

    Args:
        path: a new file; None: standard output.
        installation: whose stores they are.

    Raises: FileExistsError; OSError, as its methods do.
    """

    def __init__(self, path: Path | None, installation: str) -> None:
        self._path = path
        self._file: BinaryIO = sys.stdout.buffer if path is None else _new_file(path)
        self._installation = installation
        self._entries: list[StoreEntry] = []
        self._in_member = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._path is not None:
            self._file.close()
            _part(self._path).unlink(missing_ok=True)

    def begin(self, entry: StoreEntry) -> None:
        """A store follows: `write` its octets, then `end` it."""
        self._header(entry.member, entry.size)
        self._entries.append(entry)

    def write(self, data: bytes) -> None:
        """The next octets of the store."""
        self._file.write(data)
        self._in_member += len(data)

    def end(self) -> None:
        """The store's octets are all there."""
        self._file.write(bytes(-self._in_member % _BLOCK))

    def finish(self) -> None:
        """Writes the manifest; now it is a backup."""
        manifest = {
            "format": FORMAT,
            "installation": self._installation,
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "stores": [asdict(entry) for entry in self._entries],
        }
        text = json.dumps(manifest, indent=2).encode()
        self._header(_MANIFEST, len(text))
        self._file.write(text)
        self._file.write(bytes(-len(text) % _BLOCK + 2 * _BLOCK))
        self._file.flush()
        if self._path is None:
            return
        os.fsync(self._file.fileno())
        _part(self._path).rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _header(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(time.time())
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))
        self._in_member = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose every octet was checked."""

    path: Path
    installation: str
    made_at: str
    stores: tuple[StoreEntry, ...]

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Reads all of it. Raises: ArchiveError."""
        found: dict[str, tuple[int, str]] = {}
        manifest = b""
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    if content is None:
                        raise ArchiveError(f"{path}: {member.name} is not a file")
                    if member.name == _MANIFEST:
                        manifest = content.read(_MAX_MANIFEST)
                    else:
                        found[member.name] = _measured(iter(lambda c=content: c.read(_PIECE), b""))  # type: ignore[misc]
        except (tarfile.TarError, OSError) as error:
            raise ArchiveError(f"{path} is not a backup, or it is damaged: {error}") from error
        if not manifest:
            raise ArchiveError(f"{path} was cut off: its manifest is missing")
        archive_read = cls(path, *_parsed(path, manifest))
        for entry in archive_read.stores:
            if found.get(entry.member) != (entry.size, entry.sha256):
                raise ArchiveError(f"{path} is damaged: {entry.member} is not what was written")
        return archive_read

    def pieces(self, entry: StoreEntry) -> Iterable[bytes]:
        """The octets of a store. Raises: ArchiveError."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                content = archive.extractfile(entry.member)
                while content is not None and (piece := content.read(_PIECE)):
                    yield piece
        except (tarfile.TarError, OSError, KeyError) as error:
            raise ArchiveError(f"{self.path} cannot be read: {error}") from error


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _new_file(path: Path) -> BinaryIO:
    if path.exists():
        raise FileExistsError(path)
    part = _part(path)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(part, flags, 0o600), "wb")


def _measured(pieces: Iterable[bytes]) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _parsed(path: Path, manifest: bytes) -> tuple[str, str, tuple[StoreEntry, ...]]:
    try:
        data = json.loads(manifest)
        version = data["format"]
        if version != FORMAT:
            raise ArchiveError(f"{path} has form {version}, this NetMail reads form {FORMAT}")
        stores = tuple(StoreEntry(**store) for store in data["stores"])
        return str(data["installation"]), str(data["made_at"]), stores
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"{path} is damaged: its manifest makes no sense") from error
