"""Child processes: started, restarted with back-off when they die, drained together."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from netmail_common.lifecycle import LIFELINE_FD, READY_FD, Lifecycle
from netmail_common.logging import get_logger

__all__ = ["ChildProcess", "StartFailed", "run_workers"]

log = get_logger(__name__)

_FIRST_DELAY = 0.2
_LAST_DELAY = 30.0
_HEALTHY_AFTER = 30.0

Notice = Callable[[str, int, float], None]


class StartFailed(OSError):
    """A child process ended before it was ready for the first time."""


class ChildProcess:
    """One child process that is kept running.

    Args:
        name: for people, "nmap mail1".
        argv: its command.
        died: called with name, exit code and the delay in seconds before the restart.
        environment: variables on top of ours.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        died: Notice | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._argv = list(argv)
        self._died = died or _log_death
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        """Keeps the process running until `stop`. Raises: StartFailed."""
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if not self._was_ready:
                raise StartFailed(f"{self.name} ended before it was ready, with exit code {code}")
            if time.monotonic() - started > _HEALTHY_AFTER:
                delay = _FIRST_DELAY
            self._died(self.name, code, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(2 * delay, _LAST_DELAY)

    async def stop(self, grace: float) -> None:
        """Asks the process to drain; after GRACE seconds it is killed."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            log.error("did not drain in time, killed", process=self.name)  # noqa: TRY400
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _run_once(self) -> int:
        self.ready.clear()
        ready_read, ready_write = os.pipe()
        lifeline_read, lifeline_write = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(ready_write, lifeline_read),
                start_new_session=True,  # Ctrl-C is for the parent, which drains in its own order
                env={
                    **os.environ,
                    **self._environment,
                    READY_FD: str(ready_write),
                    LIFELINE_FD: str(lifeline_read),
                },
            )
        except OSError:
            os.close(ready_read)
            os.close(lifeline_write)
            raise
        finally:
            os.close(ready_write)
            os.close(lifeline_read)
        loop = asyncio.get_running_loop()
        loop.add_reader(ready_read, self._on_ready, ready_read)
        try:
            if self._stopping.is_set():  # asked to stop while it was being started
                self._process.terminate()
            return await self._process.wait()
        finally:
            loop.remove_reader(ready_read)
            os.close(ready_read)
            os.close(lifeline_write)
            self.ready.clear()

    def _on_ready(self, fd: int) -> None:
        if os.read(fd, 64):
            self._was_ready = True
            self.ready.set()
        else:
            asyncio.get_running_loop().remove_reader(fd)


async def run_workers(
    count: int,
    argv_for_worker: Callable[[int], Sequence[str]],
    lifecycle: Lifecycle,
    *,
    name: str = "worker",
    drain_timeout: float = 35.0,
) -> None:
    """Runs COUNT worker processes until the drain; announces readiness when all are ready.

    Args:
        count: how many; 0: as many as this process may use cores.
        argv_for_worker: command of the worker with that index.
        lifecycle: ours; the workers are drained with it.
        name: for the log.
        drain_timeout: seconds that the workers get to drain.

    Raises: StartFailed when a worker ends before it was ready for the first time.
    """
    count = count or len(os.sched_getaffinity(0))
    workers = [ChildProcess(f"{name} {n}", argv_for_worker(n)) for n in range(count)]
    await keep_running(workers, lifecycle, lifecycle.announce_ready)
    await asyncio.gather(*(worker.stop(drain_timeout) for worker in workers))


async def keep_running(
    children: Sequence[ChildProcess], lifecycle: Lifecycle, all_ready: Callable[[], None]
) -> None:
    """Runs CHILDREN until the drain begins, calling ALL_READY once; they are left running then.

    Raises: StartFailed; the others are stopped before.
    """
    runs = [asyncio.ensure_future(child.run()) for child in children]
    ready = asyncio.ensure_future(_gather(child.ready.wait() for child in children))
    drain = asyncio.ensure_future(lifecycle.wait_for_drain())
    waiting: set[asyncio.Future[None]] = {*runs, ready, drain}
    try:
        while not drain.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for run in done & set(runs):
                run.result()
            if ready in done and not drain.done():
                all_ready()
    except OSError:
        await asyncio.gather(*(child.stop(10.0) for child in children))
        raise
    finally:
        ready.cancel()
        drain.cancel()


async def _gather(waits: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*waits)


def _log_death(name: str, code: int, delay: float) -> None:
    log.error("process died, restarting", process=name, exit_code=code, seconds=delay)
