"""Removes in the background what nobody needs any more: bodies, marks of what was accepted."""

import asyncio
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

        def operation(transaction: Transaction) -> int:
            looked_at = _bodies.sweep(transaction.driver, now, _BODIES_AT_ONCE, _OCTETS_AT_ONCE)
            return looked_at + _EXPIRE.run(transaction.driver, now=now, most=_MARKS_AT_ONCE)

        if not await self._core.readers.run(lambda snapshot: due(snapshot.driver)):
            return 0
        return await self._core.writer.run(operation)

    async def _run(self) -> None:
        pause = _INTERVAL
        while True:
            try:
                pause = _PAUSE if await self.sweep() else _INTERVAL
            except StoreUnavailable:
                _log.warning("a sweep of the store failed")
                pause = _INTERVAL
            await asyncio.sleep(pause)
