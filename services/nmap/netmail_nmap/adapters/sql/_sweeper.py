"""Removes in the background what nobody needs any more: bodies, marks of what was accepted."""

import asyncio
import datetime as dt
import functools
import random
import time
from contextlib import AbstractAsyncContextManager

import sqlalchemy as sa
from netmail_common.background import in_background
from netmail_common.logging import get_logger

from netmail_nmap.adapters.schema import accepted
from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._statements import Driver, Statement
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.errors import StoreUnavailable

_BODIES_AT_ONCE = 200
_OCTETS_AT_ONCE = 32 * 1024 * 1024
_MARKS_AT_ONCE = 500
_INTERVAL = 5.0
"""Seconds between looks."""
_OBJECTS_INTERVAL = 86_400.0
"""The same for looks at everything in the object store."""
STRANGE_AGE = dt.timedelta(days=7)
"""Objects that the database does not know are left alone for so long."""
_PAUSE = 0.02
"""Seconds between the parts of one sweep: others write in between."""

_EXPIRED = (
    sa.select(accepted.c.message_id, accepted.c.recipient)
    .where(accepted.c.expires_at <= sa.bindparam("now"))
    .limit(sa.bindparam("most"))
    # Two processes sweep different ones.
    .with_for_update(skip_locked=True)
)
_EXPIRE = Statement(
    sa.delete(accepted).where(sa.tuple_(accepted.c.message_id, accepted.c.recipient).in_(_EXPIRED))
)

_NEXT_EXPIRY = Statement(sa.select(sa.func.min(accepted.c.expires_at)))

_log = get_logger(__name__)


class Sweeper:
    """A task that sweeps a little, again and again."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def running(self) -> AbstractAsyncContextManager[None]:
        """Sweeps while the block runs."""
        return in_background(self._run(), "store-sweeper")

    async def sweep(self) -> int:
        """One part of a sweep; gives how many rows it looked at."""
        now = self._core.now_ms()

        def due(driver: Driver) -> bool:
            first = [_bodies.next_due(driver), *(_NEXT_EXPIRY.first(driver) or ())]
            return any(moment is not None and moment <= now for moment in first)

        objects = self._core.objects

        def operation(transaction: Transaction) -> tuple[int, list[int]]:
            driver = transaction.driver
            expired = _EXPIRE.run(driver, now=now, most=_MARKS_AT_ONCE)
            if objects is not None and not driver.may_remove_objects():
                return expired, []  # somebody copies them
            swept = _bodies.sweep(
                driver, now, _BODIES_AT_ONCE, _OCTETS_AT_ONCE, with_objects=objects is not None
            )
            return swept.looked_at + expired, swept.elsewhere

        if not await self._core.readers.run(lambda snapshot: due(snapshot.driver)):
            return 0
        looked_at, elsewhere = await self._core.writer.run(operation)
        if objects is not None and elsewhere:
            for body_id in elsewhere:
                await asyncio.to_thread(objects.remove, body_id)
            await self._core.writer.run(
                lambda transaction: _bodies.unmark(transaction.driver, elsewhere)
            )
        return looked_at

    async def sweep_objects(self, age: dt.timedelta = STRANGE_AGE) -> int:
        """Marks bodies that only the object store knows; gives how many they were.

        A restored database does not know what came after its backup. What is young may be of a
        transaction that is not committed yet.

        Raises: StoreUnavailable.
        """
        objects = self._core.objects
        if objects is None:
            return 0
        pages = objects.bodies(age)
        found = 0
        while page := await asyncio.to_thread(next, pages, None):
            found += await self._core.writer.run(functools.partial(self._mark_unknown, page))
        return found

    def _mark_unknown(self, body_ids: set[int], transaction: Transaction) -> int:
        unknown = _bodies.unknown(transaction.driver, body_ids)
        _bodies.mark_orphans(transaction.driver, unknown, self._core.now_ms())
        return len(unknown)

    async def _run(self) -> None:
        pause = _INTERVAL
        # Agents that start together do not look together.
        next_look = time.monotonic() + random.uniform(0, _OBJECTS_INTERVAL)  # noqa: S311
        while True:
            try:
                pause = _PAUSE if await self.sweep() else _INTERVAL
                if time.monotonic() > next_look:
                    next_look = time.monotonic() + _OBJECTS_INTERVAL
                    await self.sweep_objects()
            except StoreUnavailable:
                _log.warning("a sweep of the store failed")
                pause = _INTERVAL
            await asyncio.sleep(pause)
