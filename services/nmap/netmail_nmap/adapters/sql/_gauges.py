"""Gauges of the queue and the database, looked at now and then."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import sqlalchemy as sa
from netmail_common.background import in_background
from netmail_common.metrics import gauge

from netmail_nmap.adapters.schema import queue_items
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.adapters.sql._statements import Driver, Statement
from netmail_nmap.domain.errors import StoreUnavailable

_INTERVAL = 15.0
"""Seconds between looks."""
_STATES = ("ready", "leased", "deferred", "held")

_items = gauge("nmap_queue_items", "Queue items (a message for one domain)", ("state",))
_oldest = gauge("nmap_queue_oldest_due_seconds", "How long the oldest due item has been due")
_size = gauge("nmap_store_bytes", "Octets of the database")

_COUNT = Statement(
    sa.select(
        sa.case(
            (queue_items.c.held == sa.true(), "held"),
            (queue_items.c.leased_until > sa.bindparam("now"), "leased"),
            (queue_items.c.due_at <= sa.bindparam("now"), "ready"),
            else_="deferred",
        ),
        sa.func.count(),
        sa.func.min(queue_items.c.due_at),
    ).group_by(sa.literal_column("1"))
)


class Gauges:
    """A task that sets the gauges again and again."""

    def __init__(self, core: Core, size: Callable[[Snapshot], int]) -> None:
        self._core = core
        self._octets = size

    def running(self) -> AbstractAsyncContextManager[None]:
        """Looks while the block runs."""
        return in_background(self._run(), "store-gauges")

    async def look(self) -> None:
        """Sets the gauges."""
        now = self._core.now_ms()
        found = await self._core.readers.run(lambda snapshot: _counts(snapshot.driver, now))
        for state in _STATES:
            _items.labels(state).set(found[state][0] if state in found else 0)
        _oldest.set((now - found["ready"][1]) / 1000 if "ready" in found else 0)
        _size.set(await self._core.readers.run(self._octets))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable, OSError):
                await self.look()
            await asyncio.sleep(_INTERVAL)


def _counts(driver: Driver, now_ms: int) -> dict[str, tuple[int, int]]:
    """By state: how many, and when the first of them is or was due (ms)."""
    rows = _COUNT.all(driver, now=now_ms)
    return {state: (count, due_at) for state, count, due_at in rows}
