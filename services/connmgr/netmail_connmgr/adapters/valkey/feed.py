"""A watcher's position in the changes of a mirror."""

from typing import Protocol

from netmail_connmgr.adapters.valkey.mirror import Mirror
from netmail_connmgr.domain.changes import Change, MissedChanges
from netmail_connmgr.domain.store import Snapshot

__all__ = ["Mirrored", "ValkeyFeed"]


class Mirrored(Protocol):
    """A store with a mirror."""

    mirror: Mirror

    def now(self) -> float:
        """Seconds on the clock of the logins' times."""

    async def sync(self) -> None:
        """Everything that the table had when this was called is in the mirror afterwards."""


class ValkeyFeed:
    """A position in the mirror's log, as long as it is this log.

    Args:
        revision: where the watcher was, in this store's instance; None: nowhere.
    """

    def __init__(self, store: Mirrored, revision: int | None, *, revocations_only: bool) -> None:
        self._store = store
        self._log = store.mirror.log
        self._revocations_only = revocations_only
        self.resumed = revision is not None and self._is_kept(revision)
        self.position = revision if revision is not None and self.resumed else 0

    async def snapshot(self, *, logins: bool) -> Snapshot:
        """The table to begin with, with its logins or without; moves the position.

        Raises: StoreUnavailable.
        """
        await self._store.sync()
        mirror = self._store.mirror
        self._log = mirror.log
        self.position = self._log.revision
        now = self._store.now()
        return Snapshot(
            now=now,
            revision=self.position,
            revocations=mirror.revocations(now),
            records=mirror.records() if logins else (),
        )

    async def take(self, limit: int) -> list[Change]:
        """Changes behind the position, at most LIMIT; moves it.

        Empty only if the store itself, asked since the call, had no more.

        Raises: MissedChanges; StoreUnavailable.
        """
        changes = self._known(limit)
        if not changes:
            await self._store.sync()
            changes = self._known(limit)
        return changes

    def _known(self, limit: int) -> list[Change]:
        log = self._log
        if log is not self._store.mirror.log:
            raise MissedChanges
        changes = log.after(self.position, limit, revocations_only=self._revocations_only)
        self.position = changes[-1].revision if len(changes) == limit else log.revision
        return changes

    def _is_kept(self, revision: int) -> bool:
        if revision < self._store.mirror.first:
            return False
        try:
            self._log.after(revision, 1, revocations_only=self._revocations_only)
        except MissedChanges:
            return False
        return True
