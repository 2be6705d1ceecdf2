"""The login table in this process's memory: one process owns it, and forgets it when it ends.

Its revocations may be kept in a journal: those must outlive the process.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from netmail_common.connmgr.model import Login, Registration, Revocation
from netmail_common.logging import get_logger
from netmail_common.networks import network_of

from netmail_connmgr.adapters.mark_journal import MarkJournal
from netmail_connmgr.domain.changes import Change, ChangeLog, MissedChanges
from netmail_connmgr.domain.marks import TooManyMarks
from netmail_connmgr.domain.store import (
    BadPageToken,
    LoginFilter,
    LoginPage,
    Position,
    RevokeOrder,
    Snapshot,
    StoreFull,
    StoreUnavailable,
)
from netmail_connmgr.domain.table import Found, LoginTable, Registered, TableLimits

__all__ = ["MemoryStore", "boot_time"]

log = get_logger(__name__)


def boot_time() -> float:
    """Seconds since the machine started, time asleep included; it never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class MemoryStore:
    """LoginStore over a LoginTable. Belongs to one event loop.

    Args:
        limits: of the table.
        clock: seconds, never going back.
        changes: how much of the past is kept for watchers.
        journal: where revocations are kept; None: nowhere.
        settle: seconds in which those who know of logins that were here before tell them again.
    """

    def __init__(
        self,
        limits: TableLimits,
        *,
        clock: Callable[[], float] = boot_time,
        changes: ChangeLog | None = None,
        journal: MarkJournal | None = None,
        settle: float = 0.0,
    ) -> None:
        self.instance_id = secrets.token_hex(16)
        self.clock_id = self.instance_id
        self.login_lifetime = limits.login_lifetime
        self._table = LoginTable(limits, changes or ChangeLog())
        self.packer = self._table.packer
        self._clock = clock
        self._settled = clock() + settle
        self._watchers: set[asyncio.Event] = set()
        self._journal = journal
        for revocation in journal.revocations if journal is not None else ():
            self._table.marks.add(revocation)

    def now(self) -> float:
        """Seconds on the clock of the logins' times."""
        return self._clock()

    def settling(self) -> bool:
        """Whether logins that were here before may be missing still."""
        return self._clock() < self._settled

    def live_for(self, seconds: float) -> None:
        """Lets logins and renewals count so long from now on; what is in the table stays."""
        self.login_lifetime = seconds
        self._table.limits = replace(self._table.limits, login_lifetime=seconds)

    async def register(self, registrations: Sequence[Registration]) -> Sequence[Registered]:
        """Answers each by the result of the same index."""
        before = self._table.changes.revision
        now = self._clock()
        results = [self._table.register(registration, now) for registration in registrations]
        self._wake_after(before)
        return results

    async def find(self, places: Sequence[bytes]) -> Sequence[Found]:
        """Answers each by the result of the same index."""
        now = self._clock()
        return [self._table.find(place, now) for place in places]

    async def revoke(self, order: RevokeOrder) -> int:
        """Ends logins; how many. It is in the journal, if there is one, when this returns.

        Raises: StoreFull; StoreUnavailable: done, but not written.
        """
        before = self._table.changes.revision
        revocation = Revocation(
            made=self._clock(),
            user=order.user,
            network=order.network,
            credential_epoch=order.credential_epoch,
            client_address=order.client_address,
            prefix_length=order.prefix_length,
            reason=order.reason,
        )
        try:
            gone = self._table.revoke(revocation)
        except TooManyMarks:
            raise StoreFull("too many revocations in one day") from None
        self._wake_after(before)
        if self._journal is not None:
            try:
                await self._journal.append(revocation)
            except OSError as error:
                log.error("revocation not written", error=str(error))  # noqa: TRY400 - no traceback
                raise StoreUnavailable from None
        return len(gone)

    async def list_logins(self, which: LoginFilter, limit: int, token: str) -> LoginPage:
        """A page of live logins, in the order of their numbers in the table.

        Raises: BadPageToken.
        """
        now = self._clock()
        last = _parse_token(token)
        page: list[Login] = []
        for number in self._table.numbered(last, which.user, which.network):
            login = self._table.login(number)
            if login is None or login.expires <= now or not _matches(login, which):
                continue
            if len(page) == limit:
                return LoginPage(now, tuple(page), str(last))
            page.append(login)
            last = number
        return LoginPage(now, tuple(page), "")

    async def size(self) -> int:
        """How many logins it holds; what has just expired may count."""
        return len(self._table)

    def drop_expired(self) -> int:
        """Cleans up; to be called now and then, so that an idle table shrinks too."""
        return self._table.drop_expired(self._clock())

    @contextlib.asynccontextmanager
    async def watch(
        self, position: Position, *, revocations_only: bool, wake: asyncio.Event
    ) -> AsyncIterator["MemoryFeed"]:
        """Watches from a position on; WAKE is set when there may be something new."""
        known = position if position.instance_id == self.instance_id else None
        feed = MemoryFeed(self._table, self._clock, known, revocations_only=revocations_only)
        self._watchers.add(wake)
        try:
            yield feed
        finally:
            self._watchers.discard(wake)

    def _wake_after(self, revision: int) -> None:
        if self._table.changes.revision != revision:
            for wake in self._watchers:
                wake.set()


class MemoryFeed:
    """A position in the table's change log."""

    def __init__(
        self,
        table: LoginTable,
        clock: Callable[[], float],
        position: Position | None,
        *,
        revocations_only: bool,
    ) -> None:
        self._table = table
        self._clock = clock
        self._revocations_only = revocations_only
        self.position = position.revision if position is not None else 0
        self.resumed = position is not None and self._is_kept()

    async def snapshot(self, *, logins: bool) -> Snapshot:
        """The table to begin with, with its logins or without; moves the position."""
        now = self._clock()
        self.position = self._table.changes.revision
        return Snapshot(
            now=now,
            revision=self.position,
            revocations=tuple(self._table.marks.binding(now)),
            records=self._table.snapshot() if logins else (),
        )

    async def take(self, limit: int) -> list[Change]:
        """Changes behind the position, at most LIMIT; moves it. Empty: nothing new.

        Raises: MissedChanges.
        """
        changes = self._table.changes.after(
            self.position, limit, revocations_only=self._revocations_only
        )
        log = self._table.changes
        self.position = changes[-1].revision if len(changes) == limit else log.revision
        return changes

    def _is_kept(self) -> bool:
        try:
            self._table.changes.after(self.position, 1, revocations_only=self._revocations_only)
        except MissedChanges:
            return False
        return True


def _matches(login: Login, which: LoginFilter) -> bool:
    if which.user is not None and login.user != which.user:
        return False
    return which.network is None or network_of(login.place) == which.network


def _parse_token(token: str) -> int:
    if not token:
        return 0
    if re.fullmatch(r"[0-9]{1,10}", token) is None:
        raise BadPageToken
    return int(token)
