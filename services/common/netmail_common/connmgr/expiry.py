"""Finds what is over without looking at what is not."""

from array import array

__all__ = ["ExpiryWheel"]

_FEW = 64
"""Dead entries that a second may always have."""


class ExpiryWheel:
    """Numbered slots by the second in which something is to be done about them.

    A slot has at most one second at a time. What it was filed under before is a dead entry, passed
    over when its turn comes; a second of which most entries are dead is cleaned before.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._dead: dict[int, int] = {}
        self._due = array("I", (0,))
        self._done = -1
        """Seconds up to this one hold nothing."""

    def set(self, slot: int, expires: float) -> None:
        """Files a slot, in place of its earlier second."""
        second = int(expires)
        if slot >= len(self._due):
            self._due.frombytes(bytes(4 * (slot + 1 - len(self._due))))
        elif self._due[slot]:
            self.clear(slot)
        self._due[slot] = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = array("I")
            self._done = min(self._done, second - 1)
        bucket.append(slot)

    def clear(self, slot: int) -> None:
        """Forgets a slot."""
        second = self._due[slot]
        if not second:
            return
        self._due[slot] = 0
        dead = self._dead.get(second, 0) + 1
        self._dead[second] = dead
        if dead > _FEW and 2 * dead > len(self._buckets[second]):
            self._clean(second)

    def take(self, now: float, limit: int) -> tuple[list[int], int]:
        """Takes out slots whose second is over.

        Returns: the slots, and how many entries were looked at, at most LIMIT; fewer: there are no
            more.
        """
        slots: list[int] = []
        looked = 0
        for second in self._seconds_before(int(now)):
            bucket = self._buckets[second]
            while bucket:
                if looked == limit:
                    return slots, looked
                looked += 1
                slot = bucket.pop()
                if self._due[slot] == second:
                    self._due[slot] = 0
                    slots.append(slot)
            del self._buckets[second]
            self._dead.pop(second, None)
        return slots, looked

    def _clean(self, second: int) -> None:
        """Leaves out the dead entries of a second, and what is there twice."""
        live = {slot for slot in self._buckets[second] if self._due[slot] == second}
        self._buckets[second] = array("I", live)
        del self._dead[second]

    def _seconds_before(self, current: int) -> list[int]:
        if not self._buckets or self._done >= current - 1:
            return []
        if current - self._done > len(self._buckets):  # after a pause there are fewer buckets
            seconds = sorted(second for second in self._buckets if second < current)
        else:
            seconds = [s for s in range(self._done + 1, current) if s in self._buckets]
        self._done = seconds[0] - 1 if seconds else current - 1
        return seconds
