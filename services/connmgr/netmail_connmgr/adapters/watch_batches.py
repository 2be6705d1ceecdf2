"""Packed logins in messages of bounded size."""

from collections.abc import Container, Iterator, Sequence

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.packed import Origins, key_end, place_of, times_of

from netmail_connmgr.domain.changes import Change

__all__ = ["BATCH", "BATCH_OCTETS", "Batcher"]

BATCH = 1000
"""Records in one message."""
BATCH_OCTETS = 1024 * 1024
"""Octets of one message, about."""


class Batcher:
    """Gathers what a stream sends; knows which origins its watcher knows.

    Args:
        origins: of the records.
        held: places whose logins are sent; None: every place.
    """

    def __init__(self, origins: Origins, held: Container[bytes] | None) -> None:
        self._origins = origins
        self._held = held
        self._told = 0
        self._revision = 0
        self._clear()

    def new_origins(self) -> list[pb.LoginOrigin]:
        """The origins that the watcher does not know yet."""
        new = self._origins.after(self._told)
        self._told = self._origins.newest
        return [
            pb.LoginOrigin(
                id=number, messaging_server=one.messaging_server, domains=sorted(one.domains)
            )
            for number, one in new
        ]

    def snapshot(self, records: Sequence[bytes], now: float) -> Iterator[pb.WatchLoginsResponse]:
        """At most BATCH records of a snapshot, without those that are over."""
        live = [one for one in records if one and times_of(one, key_end(one))[0] > now]
        if len(live) > 1 and sum(map(len, live)) > BATCH_OCTETS:
            half = len(live) // 2
            yield from self.snapshot(live[:half], now)
            yield from self.snapshot(live[half:], now)
        elif live:
            changes = pb.LoginChanges(records=live, origins=self.new_origins())
            yield pb.WatchLoginsResponse(changes=changes)

    def add(self, change: Change) -> Iterator[pb.WatchLoginsResponse]:
        """Takes what a change did to logins; gives what is full."""
        for key in change.removed:
            if self._wants(key):
                if self._records or self._is_full(key):
                    yield from self._up_to(change.revision - 1)
                self._removed.append(key)
                self._octets += len(key)
        if change.record and self._wants(change.record):
            if self._is_full(change.record):
                yield from self._up_to(change.revision - 1)
            self._records.append(change.record)
            self._octets += len(change.record)
        self._revision = change.revision

    def flush(self) -> Iterator[pb.WatchLoginsResponse]:
        """Gives what was gathered."""
        yield from self._up_to(self._revision)

    def _up_to(self, revision: int) -> Iterator[pb.WatchLoginsResponse]:
        """One message; a change that goes on behind it counts as not sent yet."""
        if self._records or self._removed:
            changes = pb.LoginChanges(
                removed=self._removed, records=self._records, origins=self.new_origins()
            )
            self._clear()
            yield pb.WatchLoginsResponse(changes=changes, revision=revision)

    def _wants(self, record: bytes) -> bool:
        return self._held is None or place_of(record) in self._held

    def _is_full(self, record: bytes) -> bool:
        count = len(self._records) + len(self._removed)
        return count == BATCH or (count > 0 and self._octets + len(record) > BATCH_OCTETS)

    def _clear(self) -> None:
        self._removed: list[bytes] = []
        self._records: list[bytes] = []
        self._octets = 0
