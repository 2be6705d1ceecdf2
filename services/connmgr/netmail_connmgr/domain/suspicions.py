"""Whom agents must ask about before they let a login in: those against whom logins have failed.

Agents hear of them by their stream, so that any other login costs them no question.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from netmail_common.connmgr.model import UserKey

from netmail_connmgr.domain.changes import RevisionLog

__all__ = ["Suspect", "SuspicionBook", "SuspicionFeed", "SuspicionReader", "SuspicionStep"]

Suspect = UserKey | bytes
"""A user; or a network, by its key (Located.key)."""

MAX_TOLD = 50_000
"""Suspects that a stream is told; with more it is told to ask about everybody."""
MAX_KEPT = 1_000_000
STEP = 1000
"""Suspects in one message."""


@dataclass(frozen=True, slots=True)
class SuspicionStep:
    """What a watcher is told next.

    Attributes:
        complete: with this everybody who is suspected was told since the stream began.
        everybody: they are too many to be told.
    """

    added: tuple[Suspect, ...] = ()
    removed: tuple[Suspect, ...] = ()
    complete: bool = False
    everybody: bool = False


class SuspicionReader(Protocol):
    """A watcher's position: first come all suspects, then the changes."""

    def take(self) -> SuspicionStep | None:
        """The next step; None: nothing new.

        Raises: MissedChanges, when the watcher was too slow.
        """


class SuspicionFeed(Protocol):
    """Tells watchers who is suspected."""

    def watch(self, wake: asyncio.Event) -> AbstractContextManager[SuspicionReader]:
        """Begins to watch; WAKE is set when there may be something new."""


class SuspicionBook:
    """The suspects of this moment; a SuspicionFeed.

    Args:
        clock: seconds, never going back.
        max_told: suspects that watchers are told.
    """

    def __init__(self, clock: Callable[[], float], *, max_told: int = MAX_TOLD) -> None:
        self._clock = clock
        self._max_told = max_told
        self._until: dict[Suspect, float] = {}
        self._revision = 0
        self._changes = RevisionLog[tuple[Suspect, bool]](2 * max_told)
        self._watchers: set[asyncio.Event] = set()
        self.everybody = False
        """Whether there are too many to tell."""

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, who: Suspect) -> bool:
        return who in self._until

    def suspect(self, who: Suspect, seconds: float) -> bool:
        """Suspects somebody for so long from now, or longer if he was; whether that is new."""
        until = self._clock() + seconds
        known = self._until.get(who)
        if known is not None:
            self._until[who] = max(known, until)
            return False
        if len(self._until) >= MAX_KEPT:
            self._remove(next(iter(self._until)))
        self._until[who] = until
        self._changed(who, added=True)
        return True

    def acquit(self, who: Suspect) -> None:
        """Suspects somebody no more."""
        if who in self._until:
            self._remove(who)

    def drop_expired(self) -> None:
        """Forgets whose time is over; to be called now and then."""
        now = self._clock()
        for who in [who for who, until in self._until.items() if until <= now]:
            self._remove(who)

    @contextlib.contextmanager
    def watch(self, wake: asyncio.Event) -> Iterator["BookReader"]:
        """Begins to watch; WAKE is set when there may be something new."""
        self._watchers.add(wake)
        try:
            yield BookReader(self)
        finally:
            self._watchers.discard(wake)

    def listing(self) -> tuple[int, tuple[Suspect, ...]]:
        """The revision, and everybody who is suspected."""
        return self._revision, tuple(self._until)

    def after(self, revision: int) -> tuple[int, dict[Suspect, bool]]:
        """Who was added (True) or removed since, at most STEP; and the revision of that.

        Raises: MissedChanges.
        """
        changes = self._changes.after(revision, STEP)
        return revision + len(changes), dict(changes)

    def _remove(self, who: Suspect) -> None:
        del self._until[who]
        self._changed(who, added=False)

    def _changed(self, who: Suspect, *, added: bool) -> None:
        self._revision += 1
        self._changes.append(self._revision, (who, added))
        # It does not begin and end with each one who comes and goes.
        bound = self._max_told // 2 if self.everybody else self._max_told
        self.everybody = len(self._until) > bound
        for wake in self._watchers:
            wake.set()


class BookReader:
    """A position in a SuspicionBook."""

    def __init__(self, book: SuspicionBook) -> None:
        self._book = book
        self._told_everybody = False
        self._position: int | None = None
        self._listing: tuple[Suspect, ...] | None = None

    def take(self) -> SuspicionStep | None:
        """The next step; None: nothing new.

        Raises: MissedChanges.
        """
        if self._book.everybody:
            if self._told_everybody:
                return None
            self._told_everybody, self._position, self._listing = True, None, None
            return SuspicionStep(complete=True, everybody=True)
        self._told_everybody = False
        if self._position is None:
            self._position, self._listing = self._book.listing()
        if self._listing is not None:
            return self._list(self._listing)
        self._position, changes = self._book.after(self._position)
        if not changes:
            return None
        return SuspicionStep(
            added=tuple(who for who, added in changes.items() if added),
            removed=tuple(who for who, added in changes.items() if not added),
        )

    def _list(self, listing: tuple[Suspect, ...]) -> SuspicionStep:
        now, rest = listing[:STEP], listing[STEP:]
        self._listing = rest or None
        return SuspicionStep(added=now, complete=not rest)
