"""The server's side of a WatchLogins stream."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import RpcError
from netmail_common.networks import NetworkMap

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.convert import revocation_message
from netmail_connmgr.adapters.suspicion_messages import suspicion_changes
from netmail_connmgr.adapters.watch_batches import BATCH, BATCH_OCTETS, Batcher
from netmail_connmgr.adapters.watch_requests import WatchRequests
from netmail_connmgr.domain.changes import Change, MissedChanges
from netmail_connmgr.domain.store import Feed, LoginStore, Snapshot
from netmail_connmgr.domain.suspicions import SuspicionFeed, SuspicionReader

__all__ = ["WatchStream", "WatchTerms", "too_slow"]

SNAPSHOT_TIMEOUT = 60.0
"""Seconds that a watcher may take to read a snapshot: few are made at once, and others wait."""
MAX_AT_PLACE = 1000
"""Logins from one network with which it is not held: a replica does not decide about it."""


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """What a watcher is told besides the table.

    Attributes:
        networks: for the networks that it wants to hold.
        max_users: on one network, for the hello.
        check_connections: for the hello.
        suspicions: whom to ask about; None: nobody is ever suspected.
    """

    networks: NetworkMap
    max_users: int = 0
    check_connections: bool = False
    suspicions: SuspicionFeed | None = None


class WatchStream:
    """What a watcher is sent: hello, a snapshot unless it resumes, changes, heartbeats.

    Args:
        store: of the table.
        feed: the watcher's position in it.
        mode: REVOCATIONS, FULL or HELD.
        snapshots: how many snapshots may be made at once.
        terms: the rest.
        pause: asked for the seconds in which changes gather for the next message.
    """

    def __init__(
        self,
        store: LoginStore,
        feed: Feed,
        *,
        mode: "pb.WatchMode.ValueType",
        snapshots: asyncio.Semaphore,
        terms: WatchTerms,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._store = store
        self._feed = feed
        self._mode = mode
        self._snapshots = snapshots
        self._terms = terms
        self._pause = pause
        self._held: set[bytes] = set()
        """Places whose changes are sent, with HELD."""
        self._batcher = Batcher(store.packer.origins, self._held if self._holds else None)

    @property
    def _holds(self) -> bool:
        return self._mode == pb.WATCH_MODE_HELD

    @property
    def _full(self) -> bool:
        return self._mode == pb.WATCH_MODE_FULL

    async def messages(
        self, requests: WatchRequests, wake: asyncio.Event
    ) -> AsyncGenerator[pb.WatchLoginsResponse, None]:
        """Gives messages until the watcher goes.

        Raises: RpcError, ABORTED with WATCHER_TOO_SLOW, or whatever is wrong with a request.
        """
        feed = self._terms.suspicions
        with feed.watch(wake) if feed is not None else contextlib.nullcontext() as suspicions:
            yield await self._hello()
            if not self._feed.resumed:
                # Revocations alone are few: nobody has to wait for them.
                async with self._snapshots if self._full else contextlib.nullcontext():
                    snapshot = await self._feed.snapshot(logins=self._full)
                    for message in self._snapshot(snapshot):
                        if self._store.now() - snapshot.now > SNAPSHOT_TIMEOUT:
                            raise too_slow("the snapshot took too long")
                        yield message
            while not requests.ended:
                wake.clear()
                # The nonce first: its heartbeat must follow whatever had happened when it came.
                nonce, holds = requests.take()
                async for message in self._changes():
                    yield message
                for message in _suspicions(suspicions, self._terms.networks):
                    yield message
                for hold in holds:
                    async for message in self._hold(hold):
                        yield message
                if nonce is not None:
                    yield await self._heartbeat(nonce)
                await wake.wait()
                await asyncio.sleep(self._pause())

    async def _hello(self) -> pb.WatchLoginsResponse:
        rules = self._terms.networks.rules
        hello = pb.WatchHello(
            instance_id=self._store.instance_id,
            login_lifetime_seconds=int(self._store.login_lifetime),
            resumed=self._feed.resumed,
            check_connections=self._terms.check_connections,
            max_users_per_network=self._terms.max_users,
            logins=await self._store.size(),
            clock_id=self._store.clock_id,
            table_time=self._store.now(),
            own_addresses=[one.packed for one in rules.own_addresses],
            cluster_networks=[str(one) for one in rules.cluster_networks],
        )
        return pb.WatchLoginsResponse(hello=hello)

    async def _heartbeat(self, nonce: int) -> pb.WatchLoginsResponse:
        position, logins = self._feed.position, await self._store.size()
        beat = pb.Heartbeat(nonce=nonce, table_time=self._store.now(), logins=logins)
        return pb.WatchLoginsResponse(heartbeat=beat, revision=position)

    def _snapshot(self, snapshot: Snapshot) -> Iterator[pb.WatchLoginsResponse]:
        for revocation in snapshot.revocations:
            now = self._store.now()
            yield pb.WatchLoginsResponse(revocation=revocation_message(revocation, now))
        for first in range(0, len(snapshot.records), BATCH):
            some = snapshot.records[first : first + BATCH]
            yield from self._batcher.snapshot(some, self._store.now())
        yield pb.WatchLoginsResponse(snapshot_end=pb.SnapshotEnd(), revision=snapshot.revision)

    async def _changes(self) -> AsyncIterator[pb.WatchLoginsResponse]:
        while True:
            try:
                changes = await self._feed.take(BATCH)
            except MissedChanges:
                raise too_slow("changes were missed; start anew") from None
            if not changes:
                return
            for message in self._messages_for(changes):
                yield message

    def _messages_for(self, changes: Sequence[Change]) -> Iterator[pb.WatchLoginsResponse]:
        now = self._store.now()
        with_records = self._full or self._holds
        for change in changes:
            if change.revocation is not None:
                yield from self._batcher.flush()
                follows = with_records and change.removed
                yield pb.WatchLoginsResponse(
                    revocation=revocation_message(change.revocation, now),
                    # Whoever resumes between the two must get both.
                    revision=change.revision - 1 if follows else change.revision,
                )
            if with_records:
                yield from self._batcher.add(change)
        yield from self._batcher.flush()

    async def _hold(self, hold: pb.HoldNetworks) -> AsyncIterator[pb.WatchLoginsResponse]:
        """Sends the logins of networks, whose changes follow from now on.

        Logins that are newer than the feed's position do no harm: the changes lead to them again.
        """
        places = [self._place(address) for address in hold.add]
        self._held.difference_update(self._place(address) for address in hold.remove)
        self._held.update(places)
        found = await self._store.find(places)
        answer = pb.HeldNetworks()
        octets = 0
        for address, place, at_place in zip(hold.add, places, found, strict=True):
            records = [self._store.packer.pack(login) for login in at_place.logins[:MAX_AT_PLACE]]
            size = sum(map(len, records))
            if len(at_place.logins) > MAX_AT_PLACE or size > BATCH_OCTETS:
                self._held.discard(place)
                answer.refused.append(address)
                continue
            if octets + size > BATCH_OCTETS:
                yield self._held_message(answer)
                answer, octets = pb.HeldNetworks(), 0
            answer.addresses.append(address)
            answer.records.extend(records)
            octets += size
        yield self._held_message(answer)

    def _held_message(self, answer: pb.HeldNetworks) -> pb.WatchLoginsResponse:
        answer.origins.extend(self._batcher.new_origins())
        return pb.WatchLoginsResponse(held=answer, revision=self._feed.position)

    def _place(self, address: bytes) -> bytes:
        try:
            return self._terms.networks.locate(address).place
        except ValueError:
            raise _bad_address() from None


def _suspicions(
    reader: SuspicionReader | None, networks: NetworkMap
) -> Iterator[pb.WatchLoginsResponse]:
    while reader is not None:
        try:
            step = reader.take()
        except MissedChanges:
            raise too_slow("suspicions were missed; start anew") from None
        if step is None:
            return
        message = suspicion_changes(step, networks.rules.ipv6_prefix)
        yield pb.WatchLoginsResponse(suspicions=message)


def too_slow(message: str) -> RpcError:
    """What ends the stream of a watcher that does not keep up; it is counted."""
    metrics.WATCHERS_CUT_OFF.inc()
    return RpcError(grpc.StatusCode.ABORTED, "WATCHER_TOO_SLOW", message)


def _bad_address() -> RpcError:
    return RpcError(
        grpc.StatusCode.INVALID_ARGUMENT, "BAD_ADDRESS", "an address has 4 or 16 octets"
    )
