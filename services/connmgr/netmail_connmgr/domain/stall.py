"""Knows when the process stood still: what it reads right afterwards is older than it says.

A registration that waits in a socket while the process is stopped still says "verified just now";
a revocation that was made meanwhile must win over it.
"""

__all__ = ["TICK", "StallGuard"]

TICK = 0.1
"""Seconds between two beats."""
_HICCUP = 0.5
"""Seconds without a beat that are no stall: a busy event loop."""
_SETTLE = 2.0
"""Seconds until everything that lay in sockets has been read."""


class StallGuard:
    """Told the time at every beat, it says how old what is read now may be.

    Args:
        now: seconds, on a clock that counts while the process is stopped.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._lost = 0.0
        self._until = now

    def beat(self, now: float) -> float:
        """The process runs; for how many seconds it did not until now, 0 if it did."""
        stall = self._stall(now)
        if stall:
            self._lost = max(stall, self._current(now))
            self._until = now + _SETTLE
        self._last = now
        return stall

    def lost(self, now: float) -> float:
        """Seconds that something read at this time may have waited unnoticed."""
        return max(self._stall(now), self._current(now))

    def _stall(self, now: float) -> float:
        gap = now - self._last - TICK
        return gap if gap > _HICCUP else 0.0

    def _current(self, now: float) -> float:
        return self._lost if now < self._until else 0.0
