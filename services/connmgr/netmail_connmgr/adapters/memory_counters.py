"""Counters in this process's memory; its notes may be kept on disk."""

import hashlib
from collections.abc import Callable, Sequence

from netmail_common.sliding_windows import SlidingWindows

from netmail_connmgr.adapters.note_journal import NoteJournal
from netmail_connmgr.domain.counters import Count, Counted

__all__ = ["MemoryCounters"]

MAX_NOTES = 2_000_000
_SPARE_LINES = 100_000
"""Lines of the journal that count no more, before it is written anew."""
_ABOUT = 0.1
"""Part of a note's time by which it may end early: it is not written anew for less."""


class MemoryCounters:
    """Counters of one process. Belongs to one event loop.

    A note takes 12 octets of its key and a time in whole seconds that its neighbours share.

    Args:
        clock: seconds, never going back.
        journal: where notes are kept; None: nowhere, they go with the process.
    """

    def __init__(self, clock: Callable[[], float], *, journal: NoteJournal | None = None) -> None:
        self._clock = clock
        self._windows = SlidingWindows()
        # The order of noting is that of ending, since most notes last equally long.
        self._notes: dict[bytes, int] = {}
        self._latest = 0
        self._journal = journal
        self._writing_anew = False
        if journal is not None:
            now = clock()
            for key, seconds in journal.notes():
                self._notes[bytes.fromhex(key)] = self._shared(now + seconds)

    def __len__(self) -> int:
        return len(self._windows) + len(self._notes)

    async def count(self, counts: Sequence[Count]) -> Sequence[Counted]:
        """Answers each by the result of the same index."""
        now = self._clock()
        return [self._count(count, now) for count in counts]

    async def note(self, keys: Sequence[str], seconds: float) -> None:
        """Remembers the keys for so long from now, or a tenth less."""
        until = self._shared(self._clock() + seconds)
        new = []
        for key in keys:
            short = _short(key)
            if self._notes.get(short, 0) >= until - seconds * _ABOUT:
                continue
            new.append(short)
            self._notes.pop(short, None)
            self._notes[short] = until
        while len(self._notes) > MAX_NOTES:
            del self._notes[next(iter(self._notes))]
        await self._write(new, seconds)

    async def noted(self, keys: Sequence[str]) -> Sequence[bool]:
        """Which of them are remembered."""
        now = self._clock()
        return [self._notes.get(_short(key), now) > now for key in keys]

    async def forget(self, keys: Sequence[str]) -> int:
        """Sets counters to zero and forgets notes; how many there were."""
        shorts = [_short(key) for key in keys]
        noted = [short for short in shorts if self._notes.pop(short, None) is not None]
        await self._write(noted, 0.0)
        return sum(self._windows.forget(key) for key in keys) + len(noted)

    def drop_expired(self) -> None:
        """Forgets notes whose time is over; to be called now and then."""
        now = self._clock()
        over = []
        for key, until in self._notes.items():
            if until > now:
                break
            over.append(key)
        for key in over:
            del self._notes[key]

    async def _write(self, notes: Sequence[bytes], seconds: float) -> None:
        journal = self._journal
        if journal is None or not notes:
            return
        await journal.append([note.hex() for note in notes], seconds)
        if journal.lines > 2 * len(self._notes) + _SPARE_LINES and not self._writing_anew:
            self._writing_anew = True
            try:
                await journal.write_anew(self._left)
            finally:
                self._writing_anew = False

    def _left(self) -> list[tuple[str, float]]:
        now = self._clock()
        return [(note.hex(), until - now) for note, until in self._notes.items() if until > now]

    def _count(self, count: Count, now: float) -> Counted:
        tally = self._windows.count(count.key, count.amount, count.window, now, limit=count.limit)
        return Counted(tally.total, tally.admitted, tally.wait)

    def _shared(self, until: float) -> int:
        """Whole seconds, the same object for what ends together."""
        if int(until) != self._latest:
            self._latest = int(until)
        return self._latest


def _short(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=12).digest()
