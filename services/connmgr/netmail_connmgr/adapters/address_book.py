"""The address map that the configuration asks for, read again when its file changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from netmail_common.config import ConfigError
from netmail_common.config.connmgr import AddressMapConfig
from netmail_common.logging import get_logger

from netmail_connmgr.domain.address_map import AddressMap, AddressMapError, parse_entries

__all__ = ["AddressBook"]

_LOOK_EVERY = 1.0

log = get_logger(__name__)

Stamp = tuple[int, int, int]


class AddressBook:
    """Has the newest good address map in `map`.

    Args:
        default_context: a user of this context counts as one without.

    Raises: ConfigError, when the file cannot be read or has a bad line.
    """

    def __init__(self, config: AddressMapConfig, *, default_context: str = "") -> None:
        self._config = config
        self._default_context = default_context
        self._taken: Stamp | None = None
        self._seen: Stamp | None = None
        if config.file is not None:
            self._taken = self._seen = _stamp(config.file)
        try:
            self.map = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(f"address_map.file: {config.file}: {_reason(error)}") from error

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Keeps the map up with its file until the block ends."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Looks at the file; a changed one is taken when two looks in a row find it the same.

        A file that is being written may look whole half-way. One with a bad line is not taken: the
        last good map stays.
        """
        path = self._config.file
        if path is None:
            return
        stamp = await asyncio.to_thread(_stamp, path)
        settled, self._seen = stamp == self._seen, stamp
        if not settled or stamp == self._taken:
            return
        self._taken = stamp
        try:
            self.map = await asyncio.to_thread(self._read)
        except (OSError, ValueError) as error:
            log.error(  # noqa: TRY400 - no traceback
                "address map not taken, the last good one stays",
                file=str(path),
                error=_reason(error),
            )
        else:
            log.info("address map reloaded", file=str(path), addresses=len(self.map))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await self.look()

    def _read(self) -> AddressMap:
        path = self._config.file
        text = "" if path is None else path.read_text(encoding="utf-8")
        return AddressMap(
            parse_entries(text),
            self._config.domains,
            separator=self._config.subaddress_separator,
            default_context=self._default_context,
        )


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _reason(error: OSError | ValueError) -> str:
    """What is wrong with the file, without repeating any of it."""
    if isinstance(error, AddressMapError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not UTF-8"
