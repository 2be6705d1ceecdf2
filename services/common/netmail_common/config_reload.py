"""Takes a changed configuration file up while the process runs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from netmail_common.background import in_background
from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    FixedKeys,
    Installation,
    adopt,
    load_config,
    name_keys,
)
from netmail_common.logging import get_logger, set_log_level
from netmail_common.metrics import counter, gauge

__all__ = ["ConfigFollower", "Take", "following_config"]

POLL_EVERY = 1.0
"""Seconds between two looks at the file."""

log = get_logger(__name__)

_RELOADS = counter(
    "config_reloads",
    "Changes of the configuration file: taken (what can be), unusable, failed",
    ["outcome"],
)
_USABLE = gauge(
    "config_usable", "1: the configuration file is in force. 0: the last good one is instead"
)
_RESTART_NEEDED = gauge(
    "config_restart_needed", "Keys of the configuration file that need a restart of this process"
)
_TAKEN_AT = gauge(
    "config_taken_timestamp_seconds", "When the configuration in force was read, Unix time"
)

Take = Callable[[Installation], Awaitable[None]]
"""Goes on with a configuration, of which only what is reloaded has changed.

Raises: ConfigError before it has changed anything.
"""

_Stamp = tuple[int, int, int] | None


class ConfigFollower:
    """Looks at the configuration file, and has its changes taken.

    A file that is not usable changes nothing: the last good configuration stays in force.

    Args:
        path: the file; a symbolic link may be changed instead of it, as Kubernetes does.
        state: the state directory, if the command line names it.
        running: the configuration that the process has started with.
        fixed: what the process cannot change.
        take: goes on with a configuration.
    """

    def __init__(
        self,
        path: Path,
        state: Path | None,
        running: Installation,
        fixed: FixedKeys,
        take: Take,
    ) -> None:
        self.running = running
        """In force."""
        self._path = path
        self._state = state
        self._fixed = fixed
        self._take = take
        self._met: _Stamp = None
        self._seen: _Stamp = None
        self._waiting: tuple[tuple[str, ...], ...] = ()
        self._complaint = ""
        _USABLE.set(1)
        _RESTART_NEEDED.set(0)
        _TAKEN_AT.set(time.time())

    async def run(self) -> None:
        """Looks until cancelled; it may have changed while the process was starting."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_EVERY)

    async def look(self) -> None:
        """Has the file taken if it is another one, and the same as at the last look.

        Who writes it while it is read is not to be caught half-way.
        """
        stamp = await asyncio.to_thread(self._stamp)
        settled, self._met = stamp == self._met, stamp
        if not settled or (stamp is not None and stamp == self._seen):
            return
        try:
            read = await asyncio.to_thread(load_config, self._path, state=self._state)
            await self._follow(read)
        except ConfigError as error:
            self._seen = stamp
            self._complain("unusable", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process goes on
            # Not seen: the next look tries again, a store may be back by then.
            self._complain("failed", f"{type(error).__name__}: {error}")
        else:
            self._seen = stamp
            self._complaint = ""
            _USABLE.set(1)

    async def _follow(self, read: Installation) -> None:
        """Raises: ConfigError; whatever taking it raises."""
        adopted = adopt(self.running, read, self._fixed)
        if adopted.changed:
            await self._take(adopted.installation)
            set_log_level(adopted.installation.log.level)
            self.running = adopted.installation
            _RELOADS.labels("taken").inc()
            _TAKEN_AT.set(time.time())
            log.info("configuration reloaded", keys=name_keys(adopted.changed))
        if adopted.waiting != self._waiting:
            self._waiting = adopted.waiting
            _RESTART_NEEDED.set(len(self._waiting))
            if self._waiting:
                log.warning("configuration needs a restart", keys=name_keys(self._waiting))

    def _complain(self, outcome: str, error: str) -> None:
        """Once for each fault, however often it is met."""
        _USABLE.set(0)
        if error == self._complaint:
            return
        self._complaint = error
        _RELOADS.labels(outcome).inc()
        log.error("configuration not taken, the last good one stays", error=error)

    def _stamp(self) -> _Stamp:
        """What changes with the file; None: it is not there."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


@contextlib.asynccontextmanager
async def following_config(
    arguments: AgentArguments, installation: Installation, fixed: FixedKeys, take: Take
) -> AsyncIterator[None]:
    """Follows the configuration file of the command line while the block runs.

    Args:
        arguments: name the file.
        installation: that the process has started with.
        fixed: what it cannot change.
        take: goes on with a configuration.
    """
    follower = ConfigFollower(arguments.config_file, arguments.state, installation, fixed, take)
    async with in_background(follower.run(), "configuration"):
        yield
