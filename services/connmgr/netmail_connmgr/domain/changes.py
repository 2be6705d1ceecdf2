"""The table's recent changes for its watchers: bounded, numbered, without a queue for each."""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from netmail_common.connmgr.model import Revocation

__all__ = ["Change", "ChangeLog", "MissedChanges", "RevisionLog"]

T = TypeVar("T")


class MissedChanges(Exception):
    """What followed the revision is not kept any more: the watcher needs a snapshot."""


class Change(NamedTuple):
    """One step of the table.

    Attributes:
        revision: of the table after it; grows by one with each change.
        record: a login as it is now, packed; empty for a revocation.
        removed: logins that ended before their time, by their keys (packed.login_key).
        revocation: what ended them, if it was one.
    """

    revision: int
    record: bytes = b""
    removed: tuple[bytes, ...] = ()
    revocation: Revocation | None = None


class RevisionLog(Generic[T]):
    """The last CAPACITY entries, each with its revision; revisions grow."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ring: list[tuple[int, T]] = []
        self._start = 0
        self._lost = 0
        """Revision of the last entry that was dropped."""

    def append(self, revision: int, entry: T) -> None:
        """Adds an entry; the oldest goes when there is no room."""
        if len(self._ring) < self._capacity:
            self._ring.append((revision, entry))
            return
        self._lost = self._ring[self._start][0]
        self._ring[self._start] = (revision, entry)
        self._start = (self._start + 1) % self._capacity

    def after(self, revision: int, limit: int) -> list[T]:
        """Entries that follow REVISION, oldest first, at most LIMIT.

        Raises: MissedChanges.
        """
        if revision < self._lost:
            raise MissedChanges
        low, high = 0, len(self._ring)
        while low < high:
            middle = (low + high) // 2
            if self._at(middle)[0] <= revision:
                low = middle + 1
            else:
                high = middle
        return [self._at(index)[1] for index in range(low, min(low + limit, len(self._ring)))]

    def _at(self, index: int) -> tuple[int, T]:
        return self._ring[(self._start + index) % len(self._ring)]


class ChangeLog:
    """Changes of a table, and its revocations once more by themselves.

    Revocations are rare; beside thousands of registrations they would be dropped with these.
    """

    def __init__(self, capacity: int = 65_536, revocation_capacity: int = 16_384) -> None:
        self.revision = 0
        self._kept: deque[bytes | Change] = deque(maxlen=capacity)
        """One for each revision: its record if a login is new or was renewed, as nearly always."""
        self._revocations = RevisionLog[Change](revocation_capacity)

    def changed(self, record: bytes, removed: tuple[bytes, ...] = ()) -> None:
        """A login is new or was renewed; others may have gone for it."""
        self.revision += 1
        self._kept.append(Change(self.revision, record, removed) if removed else record)

    def revoked(self, revocation: Revocation, removed: tuple[bytes, ...]) -> None:
        """A revocation ended logins."""
        self.revision += 1
        change = Change(self.revision, removed=removed, revocation=revocation)
        self._kept.append(change)
        self._revocations.append(self.revision, change)

    def after(self, revision: int, limit: int, *, revocations_only: bool) -> list[Change]:
        """Changes that follow REVISION, oldest first, at most LIMIT.

        Raises: MissedChanges, also for a revision that is still to come.
        """
        if revision > self.revision:
            raise MissedChanges
        if revocations_only:
            return self._revocations.after(revision, limit)
        if revision < self.revision - len(self._kept):
            raise MissedChanges
        last = min(revision + limit, self.revision)
        return [self._change(number) for number in range(revision + 1, last + 1)]

    def _change(self, revision: int) -> Change:
        """What led to a revision that is kept."""
        entry = self._kept[revision - self.revision - 1]
        return entry if isinstance(entry, Change) else Change(revision, entry)
