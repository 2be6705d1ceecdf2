"""Keeps the mirror of a partition up with the store."""

import asyncio
import random
from collections.abc import Callable

from netmail_common.gather import Gatherer
from netmail_common.logging import get_logger

from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.mirror import Mirror
from netmail_connmgr.adapters.valkey.partition import At, MissedEntries, Partition
from netmail_connmgr.adapters.valkey.waiting import WaitingRegistrations
from netmail_connmgr.domain.store import StoreFull, StoreUnavailable

__all__ = ["Follower"]

IDLE = 1.0
"""Seconds to wait for a change; then the partition is cleaned up a little."""
_ENTRIES = 1000
_PAGE = 500
_CLEAN_UP = 64
_REGISTRATIONS = 100
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_RECENT = 60.0
"""Seconds; a revocation that is younger may be lost with a server."""

log = get_logger(__name__)


class Follower:
    """Reads a partition, follows its log, and gives back what a failover has lost.

    Attributes:
        partition: which one.
        seeded: the partition has the revocations that this process knows; only then may anybody
            register.
        loaded: the mirror is whole.
        answering: the partition did, when last asked by this.
        waiting: registrations of this partition that are to be made again.

    Args:
        number: of the partition.
        mirror: of the table.
        now: the store's clock.
        changed: called when there is something new for watchers.
        buffered: registrations that may wait.
    """

    def __init__(
        self,
        valkey: Valkey,
        partition: Partition,
        number: int,
        *,
        mirror: Mirror,
        now: Callable[[], float],
        changed: Callable[[], None],
        buffered: int,
    ) -> None:
        self.partition = partition
        self.seeded = False
        self.loaded = False
        self.answering = False
        self.waiting = WaitingRegistrations(buffered)
        self._valkey = valkey
        self._number = number
        self._mirror = mirror
        self._now = now
        self._changed = changed
        self._at = At()
        self._losses = valkey.losses
        self._hurry = asyncio.Event()
        self._syncs = Gatherer[None, None](self._catch_up, 100_000, 1, lambda _: 0)

    def check_seeded(self) -> None:
        """Raises: StoreUnavailable, while a revocation might be missing there."""
        if not self.seeded or not self.partition.instance:
            raise StoreUnavailable("the table is not attached")

    async def sync(self) -> None:
        """Everything that the partition had when this was called is in the mirror afterwards.

        Raises: StoreUnavailable.
        """
        if not self.loaded:
            raise StoreUnavailable("the table is being read")
        await self._syncs(None)

    async def follow(self) -> None:
        """Follows for ever, over losses of the store."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._come_up()
                await self.sync()
                self.answering = True
                await self._wait()
            except StoreUnavailable:
                pass
            except Exception:
                self.loaded = False
                log.exception("following the table failed", partition=self._number)
            else:
                pause = _FIRST_PAUSE
                continue
            self.answering = False
            self._changed()  # who watches is told by asking
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(2 * pause, _LONGEST_PAUSE)

    def hurry(self) -> None:
        """Whatever it waits for may never come: the primary is another one."""
        self._hurry.set()

    async def _wait(self) -> None:
        """Waits for a change, or to be hurried; not for ever.

        Raises: StoreUnavailable.
        """
        change = asyncio.create_task(self.partition.wait(self._at, IDLE))
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((change, hurry), return_when=asyncio.FIRST_COMPLETED)
            if change.done():
                change.result()
        finally:
            self._hurry.clear()
            for task in (change, hurry):
                task.cancel()
            await asyncio.gather(change, hurry, return_exceptions=True)

    async def _come_up(self) -> None:
        """Whatever is to be done before the partition can be followed.

        Raises: StoreUnavailable.
        """
        if not self.partition.instance:
            self.seeded = False
            self._begin(another=await self.partition.attach())
        if not self.seeded:
            await self._revoke_again(0.0)
            self.seeded = True
        if not self.loaded or self.partition.leapt:
            await self._load()
        if self._losses != self._valkey.losses or len(self.waiting):
            losses = self._valkey.losses
            await self._revoke_again(self._now() - _RECENT)
            await self._register_again()
            self._losses = losses

    def _begin(self, *, another: bool) -> None:
        if another:
            self.loaded = False
            log.info("attached to the table", partition=self._number, table=self.partition.instance)

    async def _revoke_again(self, since: float) -> None:
        """Gives the partition the revocations since a time, should it have lost them."""
        for revocation in list(self._mirror.parts[self._number].revocations):
            if revocation.made >= since:
                try:
                    await self.partition.revoke(revocation, 0, again=True)
                except StoreFull:
                    raise StoreUnavailable("no room for revocations") from None

    async def _register_again(self) -> None:
        """Makes registrations that the store could not take, or may have lost."""
        items = self.waiting.take()
        while items:
            some = items[:_REGISTRATIONS]
            now = self._now()
            try:
                await self.partition.register([(one, now - since) for one, since in some], 0)
            except StoreUnavailable:
                self.waiting.put_back(items)
                raise
            items = items[_REGISTRATIONS:]

    async def _load(self) -> None:
        """Reads the whole partition, a page at a time, then what has changed meanwhile."""
        self.loaded = self.partition.leapt = False
        await self._mirror.clear(self._number)
        part = self._mirror.parts[self._number]
        position: At | None = None
        after = b""
        while position is None or after:
            at, logins, after = await self.partition.page(after, _PAGE)
            position = position or at
            for login in logins:
                part.put(login)
        cursor = b""
        while cursor != b"0":
            revocations, cursor = await self.partition.marks(cursor or b"0", _PAGE)
            for revocation in revocations:
                part.add_mark(revocation)
        self._at = position
        await self._read_log(told=False)
        self._mirror.begin_anew()
        self.loaded = True
        self._changed()
        log.info("table read", partition=self._number, logins=len(part))

    async def _catch_up(self, waiting: list[None]) -> list[None]:
        try:
            await self._read_log(told=True)
        except StoreUnavailable:
            self.hurry()
            raise
        if self.partition.leapt:
            self.loaded = False
            self.hurry()
            raise StoreUnavailable("the partition's clock was set")
        self._mirror.parts[self._number].drop_expired(self._now())
        return waiting

    async def _read_log(self, *, told: bool) -> None:
        more = True
        while more:
            try:
                at, entries, more = await self.partition.changes(self._at, _ENTRIES, _CLEAN_UP)
            except MissedEntries:
                self.loaded = False
                log.warning("changes of the table were missed", partition=self._number)
                raise StoreUnavailable("changes were missed") from None
            self._mirror.apply(self._number, entries, told=told)
            self._at = at
            if entries and told:
                self._changed()
