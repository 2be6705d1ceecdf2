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

    Args:
        expected: slots that there will be, about: they come faster when there is room for them.
    """

    def __init__(self, expected: int = 0) -> None:
        self._half = max(_FIRST, 1 << (expected - 1).bit_length() if expected > 0 else 0)
        """Chains when the round of splitting began; it ends when they are twice as many."""
        self._heads = array("I", bytes(4 * self._half))
        self._next = array("I", (0,))
        self._previous = array("I", (0,))
        self._hashes = array("I", (0,))
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
        following = self._next
        if slot >= len(following):
            more = bytes(4 * (slot + 1 - len(following)))
            for numbers in (following, self._previous, self._hashes):
                numbers.frombytes(more)
        self._hashes[slot] = hashed = hash(key) & _HASH
        chain = self._chain(hashed)
        following[slot] = first = self._heads[chain]
        self._previous[slot] = 0
        if first:
            self._previous[first] = slot
        self._heads[chain] = slot
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

    def _split(self) -> None:
        """Adds a chain, and moves to it what belongs there of the one that it halves."""
        heads, following, previous, bit = self._heads, self._next, self._previous, self._half
        old, new = len(heads) - bit, len(heads)
        slot, heads[old] = heads[old], 0
        heads.append(0)
        last = {old: 0, new: 0}
        while slot:
            chain = new if self._hashes[slot] & bit else old
            before = previous[slot] = last[chain]
            if before:
                following[before] = slot
            else:
                heads[chain] = slot
            last[chain] = slot
            after, following[slot] = following[slot], 0
            slot = after
        if len(heads) == 2 * bit:
            self._half *= 2
