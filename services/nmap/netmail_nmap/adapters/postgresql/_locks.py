"""POP3's exclusive lock on a mailbox, across the processes that have the database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from netmail_common.background import in_background
from netmail_common.logging import get_logger

from netmail_nmap.adapters.sql import Transaction, WriteQueue
from netmail_nmap.domain.errors import StoreUnavailable

_HELD_MS = 20_000
"""A lock whose process has died ends after so long."""
_RENEWAL = 5.0
"""Seconds."""
# The database's clock: the agents' may differ.
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT"
_ACQUIRE = f"""
INSERT INTO mailbox_locks (user_id, name, holder, held_until)
VALUES ($1, $2, $3, {_NOW} + {_HELD_MS})
ON CONFLICT (user_id, name) DO UPDATE
SET holder = excluded.holder, held_until = excluded.held_until
WHERE mailbox_locks.held_until < {_NOW} OR mailbox_locks.holder = excluded.holder
RETURNING user_id"""  # noqa: S608 - numbers of our own
_RENEW = f"""
UPDATE mailbox_locks SET held_until = {_NOW} + {_HELD_MS}
FROM unnest($2::BIGINT[], $3::TEXT[]) AS held (user_id, name)
WHERE holder = $1 AND mailbox_locks.user_id = held.user_id AND mailbox_locks.name = held.name
"""  # noqa: S608 - numbers of our own
_RELEASE = "DELETE FROM mailbox_locks WHERE user_id = $1 AND name = $2 AND holder = $3"

_log = get_logger(__name__)


class SharedLocks:
    """Implements `Locks`.

    Args:
        writer: of the store.
        holder: this process.
    """

    def __init__(self, writer: WriteQueue, holder: str) -> None:
        self._writer = writer
        self._holder = holder
        self._held: set[tuple[int, str]] = set()

    @contextlib.asynccontextmanager
    async def lock(self, user_id: int, name: str) -> AsyncIterator[bool]:
        """Holds the lock while the block runs; gives False at once if it is taken.

        Raises: StoreUnavailable.
        """
        key = (user_id, name)
        if key in self._held:
            yield False
            return
        self._held.add(key)
        try:
            if not await self._writer.run(lambda transaction: self._acquire(transaction, key)):
                yield False
                return
            try:
                yield True
            finally:
                await asyncio.shield(self._release(key))
        finally:
            self._held.discard(key)

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Keeps the locks while the block runs."""
        return in_background(self._renew(), "store-locks")

    async def renew(self) -> None:
        """Keeps what is held for another while. Raises: StoreUnavailable."""
        users, names = zip(*self._held, strict=True)
        await self._writer.run(
            lambda transaction: transaction.driver.execute(
                _RENEW, self._holder, list(users), list(names)
            )
        )

    def _acquire(self, transaction: Transaction, key: tuple[int, str]) -> bool:
        return bool(transaction.driver.execute(_ACQUIRE, *key, self._holder))

    async def _release(self, key: tuple[int, str]) -> None:
        try:
            await self._writer.run(
                lambda transaction: transaction.driver.execute(_RELEASE, *key, self._holder)
            )
        except StoreUnavailable:
            _log.warning("a mailbox stays locked for a while")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWAL)
            if not self._held:
                continue
            try:
                await self.renew()
            except StoreUnavailable:
                _log.warning("locks of mailboxes were not renewed")
