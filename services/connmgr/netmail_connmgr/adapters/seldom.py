"""What strangers or faults cause is said once in a while, however often it happens."""

import time
from collections.abc import Callable

__all__ = ["Seldom"]


class Seldom:
    """Says whether a log line is due.

    Args:
        interval: seconds between two.
    """

    def __init__(self, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = clock()

    def __call__(self) -> bool:
        """True at most once in an interval."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True
