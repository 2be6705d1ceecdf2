"""The logins of a replica: those that may grant, packed, on the clock of the table."""

import functools
from collections.abc import Iterable

from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_common.connmgr.model import Login
from netmail_common.connmgr.packed import LoginPacker, Origin, grants
from netmail_common.connmgr.records import LoginRecords

__all__ = ["ReplicaTable"]

_UNPACKED = 1024
"""Logins that were asked for lately, kept as they are used: a message asks several times."""


class ReplicaTable:
    """Logins by place and user. Every method that reads records may raise BadRecord."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return len(self._records)

    def learn(self, origins: Iterable[pb.LoginOrigin]) -> None:
        """Takes origins that records will name."""
        for one in origins:
            origin = Origin(one.messaging_server, frozenset(one.domains))
            self._packer.origins.learn(one.id, origin)

    def put(self, record: bytes) -> None:
        """Takes a login in the place of the user's earlier one; not where it never grants."""
        if grants(record):
            self._records.put(record)

    def remove(self, key: bytes) -> None:
        """Ends a login, if it is here."""
        slot = self._records.find(key)
        if slot:
            self._records.remove(slot)

    def remove_place(self, place: bytes) -> None:
        """Ends the logins of a place."""
        for slot in self._records.at(place):
            self._records.remove(slot)

    def at(self, place: bytes, now: float, limit: int) -> list[Login] | None:
        """The live logins of a place at a time on the table's clock; None: more than LIMIT."""
        slots = self._records.at(place)
        if len(slots) > limit:
            return None
        logins = [self._unpack(self._records[slot]) for slot in slots]
        return [login for login in logins if login.expires > now]

    def drop_expired(self, now: float, limit: int) -> None:
        """Cleans up at most LIMIT logins that are over."""
        over, _ = self._records.expired(now, limit)
        for slot in over:
            self._records.remove(slot)

    def clear(self, expected: int = 0) -> None:
        """Forgets everything; so many logins will come, about."""
        self._records = LoginRecords(expected)
        self._packer = LoginPacker()
        self._unpack = functools.lru_cache(maxsize=_UNPACKED)(self._packer.unpack)
