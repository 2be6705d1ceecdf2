"""Finds what is over without looking at what is not."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ExpiryWheel(Generic[K]):
    """Keys by the second in which they expire. Every operation touches one second's bucket."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[K, None]] = {}
        self._done = -1
        """Seconds up to this one hold nothing."""

    def add(self, key: K, expires: float) -> None:
        """Remembers when KEY expires."""
        second = int(expires)
        self._buckets.setdefault(second, {})[key] = None
        self._done = min(self._done, second - 1)

    def remove(self, key: K, expires: float) -> None:
        """Forgets KEY, which was added with this time."""
        second = int(expires)
        bucket = self._buckets[second]
        del bucket[key]
        if not bucket:
            del self._buckets[second]

    def due(self, now: float, limit: int) -> list[tuple[K, float]]:
        """Keys whose second is over, at most LIMIT, each with a time in its second.

        They stay until they are removed.
        """
        found: list[tuple[K, float]] = []
        for second in self._seconds_before(int(now)):
            for key in self._buckets[second]:
                if len(found) == limit:
                    return found
                found.append((key, float(second)))
        return found

    def _seconds_before(self, current: int) -> list[int]:
        if not self._buckets or self._done >= current - 1:
            return []
        if current - self._done > len(self._buckets):  # after a pause there are fewer buckets
            seconds = sorted(second for second in self._buckets if second < current)
        else:
            seconds = [s for s in range(self._done + 1, current) if s in self._buckets]
        self._done = seconds[0] - 1 if seconds else current - 1
        return seconds
