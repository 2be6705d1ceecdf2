"""Tells sessions of changes in their mailboxes, within this process."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from netmail_nmap.domain.mail import MailboxChange


class ChangeHub:
    """Passes each commit's changes on to those who watch the mailbox."""

    def __init__(self) -> None:
        self._watches: defaultdict[int, set[SqlWatch]] = defaultdict(set)

    def publish(self, change: MailboxChange) -> None:
        """Tells everyone who watches it."""
        for watch in self._watches.get(change.mailbox_id, ()):
            watch.tell(change)

    def watched(self) -> list[int]:
        """Mailboxes that anybody watches."""
        return list(self._watches)

    def subscribe(self, watch: "SqlWatch", mailbox_id: int) -> None:
        """From now on WATCH hears of this mailbox."""
        self._watches[mailbox_id].add(watch)

    def unsubscribe(self, watch: "SqlWatch", mailbox_id: int) -> None:
        """No longer."""
        watches = self._watches.get(mailbox_id)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._watches[mailbox_id]


class SqlWatch:
    """See `netmail_nmap.domain.store.Watch`. Memory is bounded by the mailboxes watched."""

    def __init__(
        self,
        hub: ChangeHub,
        current: Callable[[Sequence[int]], Awaitable[Sequence[MailboxChange]]],
    ) -> None:
        self._hub = hub
        self._current = current
        self._watched: dict[int, int] = {}
        """With the modseq that was told last."""
        self._pending: dict[int, MailboxChange] = {}
        self._changed = asyncio.Event()

    async def add(self, mailbox_ids: Sequence[int]) -> None:
        """Watches these too; each is told once at once, with its modseq now."""
        for mailbox_id in mailbox_ids:
            self._watched[mailbox_id] = -1
            self._hub.subscribe(self, mailbox_id)
        for change in await self._current(mailbox_ids):
            self.tell(change)

    def remove(self, mailbox_ids: Sequence[int]) -> None:
        """Forgets these."""
        for mailbox_id in mailbox_ids:
            self._watched.pop(mailbox_id, None)
            self._pending.pop(mailbox_id, None)
            self._hub.unsubscribe(self, mailbox_id)

    async def changes(self) -> Sequence[MailboxChange]:
        """Waits for the next changes."""
        await self._changed.wait()
        self._changed.clear()
        changes = list(self._pending.values())
        self._pending.clear()
        return changes

    def tell(self, change: MailboxChange) -> None:
        """Keeps the newest change of each mailbox until it is asked for."""
        told = self._watched.get(change.mailbox_id)
        if told is None or (not change.gone and change.highest_modseq <= told):
            return
        self._watched[change.mailbox_id] = max(told, change.highest_modseq)
        known = self._pending.get(change.mailbox_id)
        if (
            known is None
            or change.gone
            or (not known.gone and known.highest_modseq <= change.highest_modseq)
        ):
            self._pending[change.mailbox_id] = change
            self._changed.set()

    def close(self) -> None:
        """Ends the watch."""
        self.remove(list(self._watched))
