"""POP3's exclusive lock on a mailbox (RFC 1939 4): held in this process, while a stream lives."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Locks(Protocol):
    """Who holds which mailbox."""

    def lock(self, user_id: int, name: str) -> AbstractAsyncContextManager[bool]:
        """Holds the lock while the block runs; gives False at once if it is taken."""


class MailboxLocks:
    """Who holds which mailbox, in a process that has the database alone."""

    def __init__(self) -> None:
        self._held: set[tuple[int, str]] = set()

    @contextlib.asynccontextmanager
    async def lock(self, user_id: int, name: str) -> AsyncIterator[bool]:
        """Holds the lock while the block runs; gives False at once if it is taken."""
        key = (user_id, name)
        if key in self._held:
            yield False
            return
        self._held.add(key)
        try:
            yield True
        finally:
            self._held.discard(key)
