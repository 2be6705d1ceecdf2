"""What the processes of one database tell each other: LISTEN and NOTIFY, with polling behind it.

Changes of mailboxes and of the queue are told after their commit, gathered: NOTIFY in the
transaction itself would let one commit at a time through. Who misses one finds it by polling.
Changes of users are rare and must not be missed: they are told in their transaction. A heartbeat
that has come back proves that everything told before it has come too.

The connection for it is also the one that notices first when the database is another server: a
standby has taken over, and connections to the old primary may wait for answers for a long time.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
from netmail_common.background import in_background
from netmail_common.logging import get_logger

from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import ERRORS, Driver
from netmail_nmap.adapters.sql import (
    DirectoryChanged,
    DirectoryVersion,
    Event,
    QueueGrew,
    UserEnded,
)
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.mail import MailboxChange

_CHANNEL = "netmail"
_CLOSING = 2.0
"""Seconds."""
_HEARTBEAT = 1.0
"""Seconds."""
FRESH = 3.0
"""Seconds for which a heartbeat that came back proves something, from its sending."""
_POLL = 1.0
"""Seconds between looks at mailboxes while nothing is heard..."""
_SLOW_POLL = 10.0
"""...and while all is well: a process may have died between a commit and its notice."""
_MAX_CHANGES = 150
"""Of one notice: PostgreSQL takes 8,000 octets."""
_LOOK_BACK_MS = 60_000
"""How far the agents' clocks may differ."""

_NOTIFY = "SELECT pg_notify($1, $2)"
# The notice may get lost in a crash: polling is behind it.
_NOTIFY_SOON = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"
_MODSEQS = "SELECT id, highest_modseq FROM mailboxes WHERE id = ANY($1::BIGINT[])"
_SERVER = "SELECT pg_postmaster_start_time()"
_ENDED = "SELECT id, credential_epoch FROM users WHERE credential_epoch >= $1"

_log = get_logger(__name__)


class Bulletin(DirectoryVersion):
    """Tells the other processes, and hears of them; is the version of the directory too.

    Args:
        place: of the database.
        own: the name of this process.
        publish: called with what others changed.
        watched: mailboxes that somebody here watches.
        moved: called when the database has become another server, or was started anew.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        place: Place,
        own: str,
        publish: Callable[[Sequence[Event]], None],
        watched: Callable[[], Sequence[int]],
        moved: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self._place = place
        self._own = own
        self._publish = publish
        self._watched = watched
        self._moved = moved
        self._clock = clock
        self._server: object = None
        """When it was started, which no two have in common."""
        self._proved = float("-inf")
        """When the last heartbeat that came back was sent."""
        self._epochs: dict[int, int] | None = None
        """Young credential epochs as they were looked at last."""
        self._looked_ms = 0
        self._to_tell: dict[int, MailboxChange] = {}
        self._queue_grew = False
        self._something = asyncio.Event()
        self._known: dict[int, int] = {}
        self._next_poll = 0.0

    @property
    def fresh(self) -> bool:
        """Whatever others told until `FRESH` seconds ago has been heard."""
        return time.monotonic() - self._proved < FRESH

    @property
    def value(self) -> int | None:
        """See `DirectoryVersion`."""
        return super().value if self.fresh else None

    # -- telling -------------------------------------------------------------------------------

    def announce(self, driver: Driver, events: Sequence[Event]) -> None:
        """Tells of users, in the transaction that changes them."""
        ended = [event.user_id for event in events if isinstance(event, UserEnded)]
        if ended or any(isinstance(event, DirectoryChanged) for event in events):
            driver.execute(_NOTIFY, _CHANNEL, self._notice(users=ended, directory=True))

    def tell(self, events: Sequence[Event]) -> None:
        """Tells of mailboxes and the queue, soon; called after the commit."""
        for event in events:
            if isinstance(event, MailboxChange):
                known = self._to_tell.get(event.mailbox_id)
                if known is None or event.gone or known.highest_modseq < event.highest_modseq:
                    self._to_tell[event.mailbox_id] = event
            elif isinstance(event, QueueGrew):
                self._queue_grew = True
        if self._to_tell or self._queue_grew:
            self._something.set()

    def _notice(self, **what: object) -> str:
        return json.dumps({"from": self._own, **what}, separators=(",", ":"))

    # -- hearing -------------------------------------------------------------------------------

    def running(self) -> AbstractAsyncContextManager[None]:
        """Tells and hears while the block runs."""
        return in_background(self._run(), "store-bulletin")

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._place.connect_to_listen()
                try:
                    await self._look_who_it_is(connection)
                    await self._talk(connection)
                finally:
                    with contextlib.suppress(*ERRORS):
                        await connection.close(timeout=_CLOSING)
            except (*ERRORS, StoreUnavailable) as error:
                _log.warning("the other agents are not heard", error=type(error).__name__)
            self._proved = float("-inf")
            await asyncio.sleep(_HEARTBEAT)

    async def _look_who_it_is(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        async with connection.transaction(readonly=True):
            server = await connection.fetchval(_SERVER)
        known, self._server = self._server, server
        if known is not None and known != server:
            _log.warning("the database is another server, or was started anew")
            self._moved()

    async def _talk(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        if not self._place.pooled:  # behind pgbouncer somebody else would hear it
            await connection.add_listener(_CHANNEL, self._hear)
        self.changed()
        await self._find_ended(connection)
        self._next_poll = 0.0
        beat = 0.0
        while True:
            now = time.monotonic()
            if now >= beat:
                beat = now + _HEARTBEAT
                await self._send(connection, self._notice(sent=now))
            if now >= self._next_poll:
                self._next_poll = now + (_SLOW_POLL if self.fresh else _POLL)
                await self._poll(connection)
                await self._find_ended(connection)
            await self._send_changes(connection)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, beat - time.monotonic())):
                    await self._something.wait()

    async def _send_changes(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._something.clear()
        grew, self._queue_grew = self._queue_grew, False
        changes, self._to_tell = list(self._to_tell.values()), {}
        for start in range(0, max(len(changes), int(grew)), _MAX_CHANGES):
            part = changes[start : start + _MAX_CHANGES]
            rows = [[change.mailbox_id, change.highest_modseq, int(change.gone)] for change in part]
            await self._send(connection, self._notice(mailboxes=rows, queue=grew))

    async def _send(self, connection: "asyncpg.Connection[asyncpg.Record]", notice: str) -> None:
        async with connection.transaction():
            await connection.execute(_NOTIFY_SOON, _CHANNEL, notice)

    def _hear(self, _connection: object, _pid: int, _channel: str, text: object) -> None:
        notice: dict[str, Any] = json.loads(str(text))
        if notice.get("from") == self._own:
            if "sent" in notice:
                self._proved = max(self._proved, notice["sent"])
            return
        events: list[Event] = [
            MailboxChange(mailbox, modseq, bool(gone))
            for mailbox, modseq, gone in notice.get("mailboxes", ())
        ]
        if notice.get("queue"):
            events.append(QueueGrew())
        events += [UserEnded(user) for user in notice.get("users", ())]
        if notice.get("directory"):
            self.changed()
        self._publish(events)

    async def _find_ended(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Finds whose sessions ended while nothing is heard, by their credential epochs."""
        now_ms = int(self._clock() * 1000)
        since = (self._looked_ms or now_ms) - _LOOK_BACK_MS
        async with connection.transaction(readonly=True):
            epochs = dict(await connection.fetch(_ENDED, since))
        if self._epochs is not None and not self.fresh:
            new = [user for user, epoch in epochs.items() if self._epochs.get(user) != epoch]
            self._publish([UserEnded(user) for user in new])
        self._looked_ms = now_ms
        # What is younger may not have been heard yet.
        sure = now_ms - int(2 * FRESH * 1000) if self.fresh else now_ms
        self._epochs = {user: epoch for user, epoch in epochs.items() if epoch <= sure}

    async def _poll(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Looks at the watched mailboxes: a watch passes over what it knows."""
        watched = self._watched()
        if not watched:
            return
        async with connection.transaction(readonly=True):
            rows = dict(await connection.fetch(_MODSEQS, watched))
        self._publish(
            [
                MailboxChange(mailbox, rows.get(mailbox, 0), gone=mailbox not in rows)
                for mailbox in watched
                if rows.get(mailbox) != self._known.get(mailbox)
            ]
        )
        self._known = rows
