"""How an agent's process starts, says that it is ready, and drains."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from netmail_common.config import ConfigError
from netmail_common.logging import get_logger

__all__ = [
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_OK",
    "LIFELINE_FD",
    "READY_FD",
    "Lifecycle",
    "run_agent",
]

READY_FD = "NETMAIL_READY_FD"
"""Environment: a file descriptor that gets `ready` and a newline when every listener accepts."""

LIFELINE_FD = "NETMAIL_LIFELINE_FD"
"""Environment: a pipe that ends with the parent process; the child then drains."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG."""

log = get_logger(__name__)


class Lifecycle:
    """Start, readiness and the one drain of a process."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self._ready_fd = _take_fd(READY_FD)
        self._lifeline = _take_fd(LIFELINE_FD)

    async def wait_for_drain(self) -> None:
        """Returns when the process was asked to end."""
        await self.draining.wait()

    def drain(self) -> None:
        """Asks the process to end; asking again changes nothing."""
        if not self.draining.is_set():
            self.draining.set()
            log.info("draining")

    def announce_ready(self) -> None:
        """Tells the parent process that every listener accepts; telling again changes nothing."""
        if self._ready_fd is None:
            return
        with contextlib.suppress(OSError):  # the parent may be gone
            os.write(self._ready_fd, b"ready\n")
        os.close(self._ready_fd)
        self._ready_fd = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drains on SIGTERM, SIGINT and the end of the parent process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain)
        if self._lifeline is not None:
            loop.add_reader(self._lifeline, self._parent_ended)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ignores further signals: what is left is the end of the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        if self._lifeline is not None:
            loop.remove_reader(self._lifeline)

    def _parent_ended(self) -> None:
        if self._lifeline is not None:
            asyncio.get_running_loop().remove_reader(self._lifeline)
            os.close(self._lifeline)
            self._lifeline = None
        self.drain()


def _take_fd(name: str) -> int | None:
    """The file descriptor in variable NAME, which is removed: our own children have others."""
    text = os.environ.pop(name, "")
    if not text.isdigit():
        return None
    fd = int(text)
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return None
    return fd


def _allow_descriptors() -> None:
    """Raises the soft limit of open files, often 1024, to the hard one: each client is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _take_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what nobody waited for, as asyncio does, but for look-ups of names.

    uvloop cannot cancel one: whoever gave it up was told, and what it ends with is nobody's.
    """
    error = context.get("exception")
    if isinstance(error, socket.gaierror):
        log.debug("look-up of a name failed after it was given up", error=str(error))
    else:
        loop.default_exception_handler(context)


def run_agent(main: Callable[[Lifecycle], Awaitable[None]]) -> int:
    """Runs MAIN under uvloop until it returns; the exit code of the process.

    MAIN serves until `lifecycle.draining` is set, then finishes what is under way and returns.
    A second signal during the drain changes nothing.
    """

    async def attached() -> int:
        lifecycle = Lifecycle()
        loop = asyncio.get_running_loop()
        lifecycle.attach(loop)
        loop.set_exception_handler(_take_error)
        try:
            await main(lifecycle)
        except ConfigError as error:
            log.error("configuration is not usable", error=str(error))  # noqa: TRY400 - no traceback
            return EXIT_CONFIG
        except OSError as error:
            log.error("cannot run", error=str(error))  # noqa: TRY400 - no traceback
            return EXIT_FAILED
        except Exception:
            log.exception("ended by an error")
            return EXIT_FAILED
        finally:
            lifecycle.detach(loop)
        return EXIT_OK

    _allow_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(attached())
