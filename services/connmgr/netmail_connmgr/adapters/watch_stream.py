"""The server's side of a WatchLogins stream."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import Login
from netmail_common.grpc_errors import RpcError
from netmail_common.networks import NetworkMap

from netmail_connmgr.adapters.convert import login_message, revocation_message
from netmail_connmgr.domain.changes import Change, MissedChanges
from netmail_connmgr.domain.store import Feed, LoginStore, Snapshot

__all__ = ["NonceReader", "WatchStream"]

BATCH = 500
"""Changes in one message."""
BATCH_OCTETS = 1024 * 1024
"""Octets of one message, about."""
SNAPSHOT_TIMEOUT = 60.0
"""Seconds that a watcher may take to read a snapshot: few are made at once, and others wait."""


class NonceReader:
    """Keeps the newest nonce that a watcher has sent; wakes the stream for it."""

    def __init__(self, requests: AsyncIterator[pb.WatchLoginsRequest], wake: asyncio.Event) -> None:
        self._requests = requests
        self._wake = wake
        self.nonce: int | None = None
        self.ended = False

    async def run(self) -> None:
        """Reads until the watcher has said its last."""
        try:
            async for request in self._requests:
                if request.WhichOneof("request") == "nonce":
                    self.nonce = request.nonce
                    self._wake.set()
        finally:
            self.end()

    def end(self) -> None:
        """Ends the stream after what is due."""
        self.ended = True
        self._wake.set()

    def take(self) -> int | None:
        """The nonce to return, once."""
        nonce, self.nonce = self.nonce, None
        return nonce


class WatchStream:
    """What a watcher is sent: hello, a snapshot unless it resumes, changes, heartbeats.

    Args:
        store: of the table.
        feed: the watcher's position in it.
        full: False: revocations only.
        snapshots: how many snapshots may be made at once.
        max_users: on one network, for the hello.
    """

    def __init__(
        self,
        store: LoginStore,
        feed: Feed,
        networks: NetworkMap,
        *,
        full: bool,
        snapshots: asyncio.Semaphore,
        max_users: int = 0,
    ) -> None:
        self._store = store
        self._feed = feed
        self._networks = networks
        self._full = full
        self._snapshots = snapshots
        self._max_users = max_users

    async def messages(
        self, reader: NonceReader, wake: asyncio.Event
    ) -> AsyncGenerator[pb.WatchLoginsResponse, None]:
        """Gives messages until the watcher goes.

        Raises: RpcError, ABORTED with WATCHER_TOO_SLOW.
        """
        yield pb.WatchLoginsResponse(
            hello=pb.WatchHello(
                instance_id=self._store.instance_id,
                login_lifetime_seconds=int(self._store.login_lifetime),
                resumed=self._feed.resumed,
                max_users_per_network=self._max_users,
            )
        )
        if not self._feed.resumed:
            # Revocations alone are few: nobody has to wait for them.
            async with self._snapshots if self._full else contextlib.nullcontext():
                snapshot = await self._feed.snapshot()
                for message in self._snapshot(snapshot):
                    if self._store.now() - snapshot.now > SNAPSHOT_TIMEOUT:
                        raise _too_slow("the snapshot took too long")
                    yield message
        while not reader.ended:
            wake.clear()
            # The nonce first: its heartbeat must follow whatever had happened when it came.
            nonce = reader.take()
            async for message in self._changes():
                yield message
            if nonce is not None:
                beat = pb.Heartbeat(nonce=nonce)
                yield pb.WatchLoginsResponse(heartbeat=beat, revision=self._feed.position)
            await wake.wait()

    def _snapshot(self, snapshot: Snapshot) -> Iterator[pb.WatchLoginsResponse]:
        for revocation in snapshot.revocations:
            now = self._store.now()
            yield pb.WatchLoginsResponse(revocation=revocation_message(revocation, now))
        yield from _batches((0, change) for change in self._live(snapshot.logins))
        yield pb.WatchLoginsResponse(snapshot_end=pb.SnapshotEnd(), revision=snapshot.revision)

    def _live(self, logins: Iterable[Login]) -> Iterator[pb.LoginChange]:
        for login in logins:
            now = self._store.now()
            if login.expires > now:
                yield from self._login_changes([login], now)

    async def _changes(self) -> AsyncIterator[pb.WatchLoginsResponse]:
        while True:
            try:
                changes = await self._feed.take(BATCH)
            except MissedChanges:
                raise _too_slow("changes were missed; start anew") from None
            if not changes:
                return
            for message in self._messages_for(changes):
                yield message

    def _messages_for(self, changes: Sequence[Change]) -> Iterator[pb.WatchLoginsResponse]:
        now = self._store.now()
        gathered: list[tuple[int, pb.LoginChange]] = []
        for change in changes:
            if change.revocation is not None:
                yield from _batches(gathered)
                gathered = []
                follows = self._full and change.removed
                yield pb.WatchLoginsResponse(
                    revocation=revocation_message(change.revocation, now),
                    # Whoever resumes between the two must get both.
                    revision=change.revision - 1 if follows else change.revision,
                )
            if self._full:
                revision = change.revision
                for one in self._login_changes(change.removed, now, removed=True):
                    gathered.append((revision, one))
                for one in self._login_changes([change.login] if change.login else [], now):
                    gathered.append((revision, one))
        yield from _batches(gathered)

    def _login_changes(
        self, logins: Iterable[Login], now: float, *, removed: bool = False
    ) -> Iterator[pb.LoginChange]:
        for login in logins:
            yield pb.LoginChange(login=login_message(login, self._networks, now), removed=removed)


def _too_slow(message: str) -> RpcError:
    return RpcError(grpc.StatusCode.ABORTED, "WATCHER_TOO_SLOW", message)


def _batches(
    changes: Iterable[tuple[int, pb.LoginChange]],
) -> Iterator[pb.WatchLoginsResponse]:
    """Messages of bounded size; each says up to which revision everything was sent."""
    batch: list[pb.LoginChange] = []
    octets = last = 0
    for revision, change in changes:
        size = change.ByteSize()
        if batch and (len(batch) == BATCH or octets + size > BATCH_OCTETS):
            # A revision that goes on in the next message was not sent yet.
            sent = max(last - 1, 0) if revision == last else last
            yield pb.WatchLoginsResponse(changes=pb.LoginChanges(changes=batch), revision=sent)
            batch, octets = [], 0
        batch.append(change)
        octets += size
        last = revision
    if batch:
        yield pb.WatchLoginsResponse(changes=pb.LoginChanges(changes=batch), revision=last)
