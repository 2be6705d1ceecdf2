"""Health and metrics by HTTP, for probes and Prometheus."""

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from netmail_common.config._base import parse_host_port

__all__ = ["Health", "http_server"]

_PORT_TAKEN_FOR = 10.0
_PORT_RETRY = 0.1


class Health:
    """Whether this process lives and whether it wants work."""

    def __init__(self) -> None:
        self.live = True
        self._ready = False
        self._checks: dict[str, Callable[[], bool]] = {}
        self._watchers: list[Callable[[bool], None]] = []

    @property
    def ready(self) -> bool:
        """True when set ready and every check holds."""
        return self._ready and not self.failing()

    def set_ready(self, ready: bool) -> None:
        """Says whether this process wants work; tells those who watch."""
        self._ready = ready
        for watcher in self._watchers:
            watcher(ready)

    def add_check(self, name: str, check: Callable[[], bool]) -> None:
        """CHECK is asked at each probe; it must not block."""
        self._checks[name] = check

    def failing(self) -> list[str]:
        """Names of the checks that do not hold."""
        return [name for name, check in self._checks.items() if not check()]

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """WATCHER is called at each `set_ready`."""
        self._watchers.append(watcher)


@contextlib.asynccontextmanager
async def http_server(
    listen: str | None, health: Health, *, port_offset: int = 0
) -> AsyncIterator[int | None]:
    """Serves /healthz/live, /healthz/ready and /metrics; yields the port, None when off.

    Args:
        listen: host:port, or None for no server.
        health: what the probes answer.
        port_offset: a worker process adds its index to the port.

    Raises: OSError when the address is taken.
    """
    if listen is None:
        yield None
        return
    address = parse_host_port(listen)
    runner = web.AppRunner(_application(health), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        port = address.port + port_offset if address.port else 0
        await _start(runner, address.host, port)
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _start(runner: web.AppRunner, host: str, port: int) -> None:
    """Listens; a predecessor that was cut off and still drains may have the port for a moment."""
    end = time.monotonic() + _PORT_TAKEN_FOR
    while True:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
            await asyncio.sleep(_PORT_RETRY)
        else:
            return


def _application(health: Health) -> web.Application:
    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if health.live else web.Response(status=503)

    async def ready(_request: web.Request) -> web.Response:
        if health.ready:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="".join(f"{name}\n" for name in health.failing()))

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz/live", live)
    application.router.add_get("/healthz/ready", ready)
    application.router.add_get("/metrics", metrics)
    return application
