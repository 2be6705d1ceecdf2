"""Packed logins by place, with their ends: the heart of the table and of its replicas.

A login is one octet string in a numbered slot; everything else about it are a few numbers in
arrays. That is what keeps a million of them small.
"""

from array import array
from collections.abc import Iterator

from netmail_common.connmgr.chains import Chains
from netmail_common.connmgr.expiry import ExpiryWheel
from netmail_common.connmgr.packed import key_end, place_key, place_of, times_of

__all__ = ["LoginRecords"]


class LoginRecords:
    """Records of logins in slots. A login keeps its slot as long as it is here.

    Args:
        expected: how many there will be, about.
    """

    def __init__(self, expected: int = 0) -> None:
        self._records: list[bytes] = [b""]
        self._free = array("I")
        self._places = Chains(expected)
        self._wheel = ExpiryWheel()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, slot: int) -> bytes:
        """The record in a slot; empty for a free one."""
        return self._records[slot]

    def all(self) -> list[bytes]:
        """All records, of free slots empty ones; a copy."""
        return self._records.copy()

    def slots_after(self, slot: int) -> Iterator[int]:
        """The slots in use behind a slot, growing, found as they are asked for."""
        for one in range(slot + 1, len(self._records)):
            if self._records[one]:
                yield one

    def at(self, place: bytes) -> list[int]:
        """The slots of a place's logins."""
        key, records = place_key(place), self._records
        return [slot for slot in self._places.find(key) if records[slot].startswith(key)]

    def find(self, key: bytes) -> int:
        """The slot of a login, by its key; 0 if it is not here.

        Takes the longer the more logins the place has.
        """
        for slot in self._places.find(place_key(place_of(key))):
            if self._records[slot].startswith(key):
                return slot
        return 0

    def add(self, record: bytes) -> int:
        """Keeps a record of a login that is not here; its slot."""
        return self._add(record, record[: 2 + record[1]], key_end(record))

    def put(self, record: bytes) -> int:
        """Keeps a record, in the place of the login's earlier one; its slot.

        Takes the longer the more logins the place has.
        """
        end = key_end(record)
        place, key = record[: 2 + record[1]], record[:end]
        for slot in self._places.find(place):
            if self._records[slot].startswith(key):
                self._records[slot] = record
                return slot
        return self._add(record, place, end)

    def replace(self, slot: int, record: bytes) -> None:
        """Keeps another record of the same login, which ends no earlier."""
        self._records[slot] = record

    def remove(self, slot: int) -> bytes:
        """Takes a record out."""
        record, self._records[slot] = self._records[slot], b""
        self._places.remove(slot)
        self._wheel.clear(slot)
        self._free.append(slot)
        return record

    def expired(self, now: float, limit: int) -> tuple[list[int], int]:
        """Slots of logins that ended before this second, to be removed.

        Returns: the slots, and how many were looked at, at most LIMIT; fewer: there are no more.
        """
        due, looked = self._wheel.take(now, limit)
        over = []
        for slot in due:
            record = self._records[slot]
            expires, _ = times_of(record, key_end(record))
            if int(expires) < int(now):
                over.append(slot)
            else:
                self._wheel.set(slot, expires)
        return over, looked

    def _add(self, record: bytes, place: bytes, end: int) -> int:
        expires, _ = times_of(record, end)
        if self._free:
            slot = self._free.pop()
            self._records[slot] = record
        else:
            slot = len(self._records)
            self._records.append(record)
        self._places.add(place, slot)
        self._wheel.set(slot, expires)
        return slot
