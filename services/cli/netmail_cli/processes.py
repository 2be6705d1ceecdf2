"""The processes of an installation on one machine, and what keeps them running."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netmail_common.config import Installation
from netmail_common.lifecycle import Lifecycle
from netmail_common.workers import ChildProcess

__all__ = ["ProcessSpec", "Supervisor", "process_specs"]

_GRACE_MARGIN = 15


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run."""

    name: str
    """For people: "smtp serve mail1"."""
    argv: tuple[str, ...]
    stage: int
    """Lower ones are ready before higher ones start, and drain after them."""
    drain_timeout: int
    """Seconds that it takes to drain at most."""


def process_specs(installation: Installation, config_file: Path) -> list[ProcessSpec]:
    """Every process of the installation: storage and logins first, then who uses them."""
    common = ("--config", str(config_file), "--state", str(installation.state_dir))

    def spec(name: str, stage: int, drain: int, module: str, *arguments: str) -> ProcessSpec:
        argv = (sys.executable, "-m", module, *arguments)
        return ProcessSpec(name, argv, stage, drain)

    found = [
        spec(f"connmgr {c.name}", 0, 10, "netmail_connmgr", *common, "--name", c.name)
        for c in installation.connection_managers
    ]
    for server in installation.messaging_servers:
        one = (*common, "--server", server.name)
        found.append(
            spec(f"nmap {server.name}", 0, server.nmap.drain_timeout, "netmail_nmap", *one)
        )
        if server.smtp.listeners:
            drain = server.smtp.drain_timeout
            found.append(spec(f"smtp serve {server.name}", 2, drain, "netmail_smtp", "serve", *one))
        drain = server.deliver.drain_timeout
        found.append(spec(f"smtp deliver {server.name}", 1, drain, "netmail_smtp", "deliver", *one))
        if server.pop_imap.listeners:
            drain = server.pop_imap.drain_timeout
            found.append(spec(f"pop_imap {server.name}", 2, drain, "netmail_pop_imap", *one))
    found += [
        spec(f"sink {s.name}", 0, 5, "netmail_cli.sink", *common, "--name", s.name)
        for s in installation.sinks
    ]
    return found


class Supervisor:
    """Starts the processes stage by stage, restarts what dies, drains in the reverse order.

    Args:
        specs: what to run.
        died: called with the process's name, its exit code and the seconds until its restart.
    """

    def __init__(
        self, specs: Sequence[ProcessSpec], died: Callable[[str, int, float], None]
    ) -> None:
        self._stages = [
            [(spec, ChildProcess(spec.name, spec.argv, died)) for spec in specs if spec.stage == n]
            for n in sorted({spec.stage for spec in specs})
        ]
        self._runs: list[asyncio.Task[None]] = []

    async def run(self, lifecycle: Lifecycle, ready: Callable[[], None]) -> None:
        """Returns when everything has drained; calls READY once when every process is ready.

        Raises: StartFailed when a process ends before it was ready for the first time.
        """
        drain = asyncio.ensure_future(lifecycle.wait_for_drain())
        try:
            for stage in self._stages:
                await self._start(stage, drain)
            if not drain.done():
                ready()
                await self._watch({drain}, drain)
        finally:
            drain.cancel()
            await self._stop()

    async def _start(
        self, stage: list[tuple[ProcessSpec, ChildProcess]], drain: asyncio.Future[None]
    ) -> None:
        if drain.done():
            return
        self._runs += [asyncio.ensure_future(child.run()) for _, child in stage]
        waits = asyncio.get_running_loop().create_task(_all_ready([child for _, child in stage]))
        try:
            await self._watch({waits, drain}, drain)
        finally:
            waits.cancel()

    async def _watch(self, awaited: set[asyncio.Future[None]], drain: asyncio.Future[None]) -> None:
        """Until one of AWAITED is done. Raises: StartFailed of any process."""
        while not any(future.done() for future in awaited) and not drain.done():
            done, _ = await asyncio.wait(
                {*self._runs, *awaited}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done & set(self._runs):
                await task

    async def _stop(self) -> None:
        for stage in reversed(self._stages):
            await asyncio.gather(
                *(child.stop(spec.drain_timeout + _GRACE_MARGIN) for spec, child in stage)
            )
        for run in self._runs:
            with contextlib.suppress(OSError):
                await run


async def _all_ready(children: Sequence[ChildProcess]) -> None:
    for child in children:
        await child.ready.wait()
