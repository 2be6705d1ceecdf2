"""Numbered slots by key, in a few octets each: an index that keeps neither keys nor objects.

Linear hashing (Litwin 1980): each new slot may split one chain, and no call ever looks at all.
"""

from array import array

__all__ = ["Chains"]

_FIRST = 8
_HASH = 0xFFFFFFFF


class Chains:
    """Slots that are found by a key. A slot is a number from 1 on, used once at a time.

    Slots of different keys may come together, once in 4,000,000,000: who cares compares what the
    slots stand for.
    """

    def __init__(self) -> None:
        self._heads = array("I", bytes(4 * _FIRST))
        self._next = array("I", (0,))
        self._previous = array("I", (0,))
        self._hashes = array("I", (0,))
        self._half = _FIRST
        """Chains when the round of splitting began; it ends when they are twice as many."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: bytes) -> list[int]:
        """The slots of a key, newest first."""
        wanted = hash(key) & _HASH
        hashes, following = self._hashes, self._next
        found = []
        slot = self._heads[self._chain(wanted)]
        while slot:
            if hashes[slot] == wanted:
                found.append(slot)
            slot = following[slot]
        return found

    def add(self, key: bytes, slot: int) -> None:
        """Files a slot that is in no chain."""
        if slot >= len(self._next):
            more = bytes(4 * (slot + 1 - len(self._next)))
            for numbers in (self._next, self._previous, self._hashes):
                numbers.frombytes(more)
        self._hashes[slot] = hashed = hash(key) & _HASH
        self._link(slot, self._chain(hashed))
        self._count += 1
        if self._count > len(self._heads):
            self._split()

    def remove(self, slot: int) -> None:
        """Takes a slot out of its chain."""
        after, before = self._next[slot], self._previous[slot]
        if before:
            self._next[before] = after
        else:
            self._heads[self._chain(self._hashes[slot])] = after
        if after:
            self._previous[after] = before
        self._count -= 1

    def _chain(self, hashed: int) -> int:
        chain = hashed & (2 * self._half - 1)
        return chain if chain < len(self._heads) else hashed & (self._half - 1)

    def _link(self, slot: int, chain: int) -> None:
        first = self._heads[chain]
        self._next[slot], self._previous[slot] = first, 0
        if first:
            self._previous[first] = slot
        self._heads[chain] = slot

    def _split(self) -> None:
        """Adds a chain and moves to it what belongs there, keeping the order."""
        old = len(self._heads) - self._half
        self._heads.append(0)
        if len(self._heads) == 2 * self._half:
            self._half *= 2
        slots = []
        slot, self._heads[old] = self._heads[old], 0
        while slot:
            slots.append(slot)
            slot = self._next[slot]
        for slot in reversed(slots):
            self._link(slot, self._chain(self._hashes[slot]))
