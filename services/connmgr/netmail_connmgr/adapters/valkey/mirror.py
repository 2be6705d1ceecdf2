"""This process's copy of the table, for those who watch it."""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Sequence

from netmail_common.connmgr.model import Login, Revocation
from netmail_common.connmgr.packed import LoginPacker, key_end, login_key, origin_of
from netmail_common.connmgr.records import LoginRecords

from netmail_connmgr.adapters.valkey.partition import Entry
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.marks import MARK_LIFETIME

__all__ = ["Mirror", "PartitionMirror"]

_EXPIRED_AT_ONCE = 256
_CLEARED_AT_ONCE = 5000

_Subject = tuple[object, object, bool]


class PartitionMirror:
    """The logins of a partition, packed, and its revocations."""

    def __init__(self, packer: LoginPacker) -> None:
        self._packer = packer
        self._records = LoginRecords()
        self._marks: dict[_Subject, Revocation] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> list[bytes]:
        """All records; empty ones, and such that are over, may be among them."""
        return self._records.all()

    @property
    def revocations(self) -> Iterable[Revocation]:
        """Those that were made, each once."""
        return self._marks.values()

    def put(self, login: Login) -> bytes:
        """Keeps a login in the place of its earlier state; its record."""
        record = self._packer.pack(login)
        end = key_end(record)
        self._packer.origins.use(origin_of(record, end))
        self.remove(record[:end])
        self._records.add(record)
        return record

    def remove(self, key: bytes) -> None:
        """Forgets a login, by its key, if it is there."""
        slot = self._records.find(key)
        if slot:
            self._take_out(slot)

    def add_mark(self, revocation: Revocation) -> None:
        """Keeps a revocation."""
        subject = (revocation.user, revocation.network, bool(revocation.credential_epoch))
        self._marks.pop(subject, None)
        self._marks[subject] = revocation

    def drop_expired(self, now: float) -> None:
        """Cleans up what is over, a little at a time."""
        over, _ = self._records.expired(now, _EXPIRED_AT_ONCE)
        for slot in over:
            self._take_out(slot)
        while self._marks:
            subject = next(iter(self._marks))
            if self._marks[subject].made + MARK_LIFETIME > now:
                return
            del self._marks[subject]

    def clear(self) -> Iterator[None]:
        """Forgets the logins, some at each step. Revocations stay: they outlive the store."""
        gone, self._records = self._records, LoginRecords()
        for number, record in enumerate(gone.all()):
            if record:
                self._packer.origins.release(origin_of(record, key_end(record)))
            if number % _CLEARED_AT_ONCE == 0:
                yield

    def _take_out(self, slot: int) -> None:
        record = self._records.remove(slot)
        self._packer.origins.release(origin_of(record, key_end(record)))


class Mirror:
    """The partitions' mirrors and one log of what changes in them.

    A log's revisions begin at a number of its own: a position in another log, of another process
    or of a time before something was missed, is none in this one.

    Attributes:
        packer: of the records.
        log: of the changes; another one after changes were missed.
        first: the revision that it began with.
        clock_id: another one whenever times that were given out before are wrong.
    """

    def __init__(self, partitions: int) -> None:
        self.packer = LoginPacker()
        self.parts = [PartitionMirror(self.packer) for _ in range(partitions)]
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nobody may go on from the log as it was."""
        self.log = ChangeLog()
        self.first = self.log.revision = secrets.randbits(60)
        self.clock_id = secrets.token_hex(16)

    async def clear(self, number: int) -> None:
        """Forgets the logins of a partition, which are to be read anew."""
        self.begin_anew()
        for _ in self.parts[number].clear():
            await asyncio.sleep(0)

    def apply(self, number: int, entries: Sequence[Entry], *, told: bool) -> None:
        """Takes changes of a partition; TOLD: to be told to those who watch."""
        part = self.parts[number]
        for entry in entries:
            gone = tuple(login_key(place, user) for place, user in entry.gone)
            for key in gone:
                part.remove(key)
            record = part.put(entry.login) if entry.login is not None else b""
            if entry.revocation is not None:
                part.add_mark(entry.revocation)
            if not told:
                continue
            if entry.revocation is not None:
                self.log.revoked(entry.revocation, gone)
            elif record or gone:
                self.log.changed(record, gone)

    def records(self) -> list[bytes]:
        """The records of all logins; empty ones, and such that are over, may be among them."""
        return [record for part in self.parts for record in part.records]

    def revocations(self, now: float) -> tuple[Revocation, ...]:
        """All that still bind, oldest first; one that several partitions have counts once."""
        newest: dict[_Subject, Revocation] = {}
        for part in self.parts:
            for one in part.revocations:
                subject = (one.user, one.network, bool(one.credential_epoch))
                known = newest.get(subject)
                if known is None or known.made < one.made:
                    newest[subject] = one
        binding = [one for one in newest.values() if one.made + MARK_LIFETIME > now]
        return tuple(sorted(binding, key=lambda one: one.made))
