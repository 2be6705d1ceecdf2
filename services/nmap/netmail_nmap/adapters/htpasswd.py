"""Password files of the htpasswd backend: read at the start, and again whenever they change."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from netmail_common.config import ConfigError
from netmail_common.logging import get_logger

from netmail_nmap.domain.credentials import is_known_hash
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.password_file import PasswordFile, parse_password_file

_log = get_logger(__name__)
_POLL_SECONDS = 1.0
_Stamp = tuple[int, int, int]


class PasswordFileSource:
    """The file of one context; keeps the last good content when the file cannot be read."""

    def __init__(self, context: str, path: Path) -> None:
        self.context = context
        self._path = path
        self._stamp: _Stamp | None = None
        self.current = PasswordFile()
        self.version = 0
        """Grows with each reading."""

    async def load(self) -> None:
        """Reads the file for the first time.

        Raises: ConfigError when it cannot be read.
        """
        try:
            await asyncio.to_thread(self._reload)
        except OSError as error:
            raise ConfigError(
                f"context {self.context!r}: password file: {error.strerror}: {self._path}"
            ) from error

    async def watch(self, changed: Callable[["PasswordFileSource"], Awaitable[None]]) -> None:
        """Looks for changes until cancelled; CHANGED is awaited after each.

        A change that CHANGED fails to take in is offered again.
        """
        missing = False
        pending = False
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                pending = await asyncio.to_thread(self._reload) or pending
                missing = False
            except OSError as error:
                if not missing:
                    _log.error(
                        "password file unreadable, its last content stays in force",
                        context=self.context,
                        error=error.strerror,
                    )
                missing = True
                continue
            if pending:
                try:
                    await changed(self)
                    pending = False
                except StoreUnavailable:
                    _log.error("password file not taken in, trying again", context=self.context)

    def _reload(self) -> bool:
        """Whether the file has changed."""
        stamp = self._stat()
        if stamp == self._stamp:
            return False
        content = parse_password_file(self._path.read_bytes(), is_known_hash)
        for bad in content.bad_lines:
            _log.warning(
                "line of a password file skipped",
                context=self.context,
                line=bad.number,
                fault=bad.fault,
            )
        # Stamped as it was before the reading: a write in between is seen the next time.
        self._stamp = stamp
        self.current = content
        self.version += 1
        _log.info("password file read", context=self.context, users=len(content.users))
        return True

    def _stat(self) -> _Stamp:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
