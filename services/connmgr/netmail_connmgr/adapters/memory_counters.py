"""Counters in this process's memory; its notes may be kept on disk."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from netmail_common.sliding_windows import SlidingWindows

from netmail_connmgr.adapters.note_journal import NoteJournal
from netmail_connmgr.domain.counters import Count, Counted

__all__ = ["MemoryCounters"]

MAX_NOTES = 2_000_000


class MemoryCounters:
    """Counters of one process. Belongs to one event loop.

    Args:
        clock: seconds, never going back.
        journal: where notes are kept; None: nowhere, they go with the process.
    """

    def __init__(self, clock: Callable[[], float], *, journal: NoteJournal | None = None) -> None:
        self._clock = clock
        self._windows = SlidingWindows()
        self._notes: OrderedDict[str, float] = OrderedDict()
        self._journal = journal
        if journal is not None:
            now = clock()
            for key, seconds in journal.notes():
                self._notes[key] = now + seconds

    def __len__(self) -> int:
        return len(self._windows) + len(self._notes)

    async def count(self, counts: Sequence[Count]) -> Sequence[Counted]:
        """Answers each by the result of the same index."""
        now = self._clock()
        return [self._count(count, now) for count in counts]

    async def note(self, keys: Sequence[str], seconds: float) -> None:
        """Remembers the keys for so long from now."""
        until = self._clock() + seconds
        for key in keys:
            self._notes[key] = until
            self._notes.move_to_end(key)
        while len(self._notes) > MAX_NOTES:
            self._notes.popitem(last=False)
        if self._journal is not None:
            await self._journal.append(keys, seconds)

    async def noted(self, keys: Sequence[str]) -> Sequence[bool]:
        """Which of them are remembered."""
        now = self._clock()
        return [self._notes.get(key, now) > now for key in keys]

    async def forget(self, keys: Sequence[str]) -> int:
        """Sets counters to zero and forgets notes; how many there were."""
        noted = [key for key in keys if self._notes.pop(key, None) is not None]
        if noted and self._journal is not None:
            await self._journal.append(noted, 0.0)
        return sum(self._windows.forget(key) for key in keys) + len(noted)

    def drop_expired(self) -> None:
        """Forgets notes whose time is over; to be called now and then."""
        now = self._clock()
        for key in [key for key, until in self._notes.items() if until <= now]:
            del self._notes[key]

    def _count(self, count: Count, now: float) -> Counted:
        tally = self._windows.count(count.key, count.amount, count.window, now, limit=count.limit)
        return Counted(tally.total, tally.admitted, tally.wait)
