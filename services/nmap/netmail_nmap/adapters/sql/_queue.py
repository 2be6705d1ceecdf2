"""The queue store: submissions, leases, reports, and what operators ask for."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from netmail_nmap.adapters.sql import _bodies, _delivery, _leases, _queue_admin, _reports
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._leases import Leaser, Wanted
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.adapters.sql._uploads import placed
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import (
    Body,
    DeliverResult,
    Envelope,
    Expansion,
    ItemReport,
    LeasedItem,
    QueuedMessage,
    QueueFilter,
    Submission,
    SubmitOutcome,
    SubmitResult,
)
from netmail_nmap.domain.errors import InsufficientStorage, LeaseLost, StoreUnavailable
from netmail_nmap.domain.outcomes import QueueSettings

_READ_PIECE = 512 * 1024
_LONGEST_SLEEP = 1.0
"""Seconds between looks while only busy destinations have something due."""

_Reports = tuple[Sequence[ItemReport], Mapping[str, Expansion]]


class SqlQueueStore:
    """See `netmail_nmap.domain.store.QueueStore`."""

    def __init__(self, core: Core, settings: QueueSettings) -> None:
        self._core = core
        self._settings = settings
        self._leaser = Leaser(core)
        self._grown = asyncio.Event()

    def use(self, settings: QueueSettings) -> None:
        """Goes on with other settings; what waits keeps the time that it was given."""
        self._settings = settings

    def wake(self) -> None:
        """The queue grew: those who wait for a lease look again."""
        self._grown.set()
        self._grown = asyncio.Event()

    # -- taking --------------------------------------------------------------------------------

    async def submit(self, submissions: Sequence[Submission]) -> list[SubmitResult]:
        """See the protocol."""
        try:
            return await self._core.writer.run_gathered(self._take, await self._placed(submissions))
        except InsufficientStorage:
            outcome = SubmitOutcome.INSUFFICIENT_STORAGE
        except StoreUnavailable:
            outcome = SubmitOutcome.TEMPORARY_FAILURE
        return [SubmitResult(outcome)] * len(submissions)

    async def _placed(self, submissions: Sequence[Submission]) -> Sequence[Submission]:
        """With large bodies where they belong. Raises: StoreUnavailable."""
        if self._core.objects is None:
            return submissions
        bodies = await asyncio.gather(
            *(
                placed(
                    self._core,
                    one.body,
                    one.envelope.return_path if any(e.users for e in one.expansions) else b"",
                )
                for one in submissions
            )
        )
        return [replace(one, body=body) for one, body in zip(submissions, bodies, strict=True)]

    def _take(
        self, transaction: Transaction, batches: Sequence[Sequence[Submission]]
    ) -> list[list[SubmitResult]]:
        """The submissions of several callers at once."""
        results = iter(
            _delivery.take(
                self._core,
                self._settings,
                transaction,
                [submission for batch in batches for submission in batch],
            )
        )
        return [[next(results) for _ in batch] for batch in batches]

    async def deliver(
        self, envelope: Envelope, body: Body, expansions: Sequence[Expansion]
    ) -> list[DeliverResult]:
        """See the protocol."""
        at_its_place = await placed(self._core, body, envelope.return_path)
        return await self._core.writer.run(
            lambda transaction: _delivery.deliver(
                self._core, self._settings, transaction, envelope, at_its_place, expansions
            )
        )

    # -- leases --------------------------------------------------------------------------------

    async def lease(
        self,
        *,
        limit: int,
        seconds: float,
        wait: float,
        worker: str,
        busy_destinations: Sequence[str] = (),
        limit_per_destination: int = 0,
    ) -> list[LeasedItem]:
        """See the protocol."""
        wanted = Wanted(limit, limit_per_destination or limit, tuple(busy_destinations))
        deadline = time.monotonic() + wait
        while True:
            grown = self._grown
            next_due = await self._core.readers.run(
                lambda snapshot: _leases.next_due(snapshot.driver)
            )
            now = self._core.now_ms()
            if next_due is not None and next_due <= now:
                items = await self._lease(wanted, seconds, worker)
                if items:
                    return items
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            if self._core.poll is not None:
                left = min(left, self._core.poll)
            if next_due is not None:
                left = min(left, (next_due - now) / 1000 if next_due > now else _LONGEST_SLEEP)
            try:
                async with asyncio.timeout(left):
                    await grown.wait()
            except TimeoutError:
                continue

    async def _lease(self, wanted: Wanted, seconds: float, worker: str) -> list[LeasedItem]:
        ids = await self._core.writer.run(
            lambda transaction: self._leaser.lease(transaction, wanted, seconds, worker)
        )
        if not ids:
            return []
        now = self._core.now_ms()
        return await self._core.readers.run(
            lambda snapshot: _leases.read_items(snapshot.driver, ids, now)
        )

    async def read_message(self, lease_id: int, fence: int) -> AsyncIterator[bytes]:
        """See the protocol."""

        def begin(snapshot: Snapshot) -> tuple[int, int, int]:
            body_id = _leases.leased_body(snapshot.driver, lease_id, fence)
            found = None if body_id is None else _bodies.read_header(snapshot.driver, body_id)
            if body_id is None or found is None:
                raise LeaseLost
            return body_id, found[1], found[2]

        body_id, position, total = await self._core.readers.run(begin)
        while position < total:
            stop = min(total, position + _READ_PIECE)
            data = await self._core.readers.run(
                functools.partial(_read_range, body_id, position, stop)
            )
            if len(data) != stop - position:
                raise LeaseLost
            yield data
            position = stop

    async def report_senders(self, reports: Sequence[ItemReport]) -> list[str]:
        """See the protocol."""
        return await self._core.readers.run(
            lambda snapshot: _reports.senders_of(snapshot.driver, reports)
        )

    async def report(
        self, reports: Sequence[ItemReport], senders: Mapping[str, Expansion]
    ) -> list[bool]:
        """See the protocol."""
        item: _Reports = (reports, senders)
        return cast("list[bool]", await self._core.writer.run_gathered(self._apply, item))

    def _apply(self, transaction: Transaction, batches: Sequence[_Reports]) -> list[list[bool]]:
        return _reports.apply(self._core, self._settings, transaction, batches)

    # -- operators -----------------------------------------------------------------------------

    async def list_queue(
        self, queue_filter: QueueFilter, *, page_size: int, after: int = 0
    ) -> tuple[list[QueuedMessage], int]:
        """See the protocol."""
        now = self._core.now_ms()
        return await self._core.readers.run(
            lambda snapshot: _queue_admin.list_messages(
                snapshot.connection, queue_filter, page_size, after, now
            )
        )

    async def get_message(self, message_id: str) -> tuple[QueuedMessage, bytes]:
        """See the protocol."""
        now = self._core.now_ms()
        return await self._core.readers.run(
            lambda snapshot: _queue_admin.get_message(snapshot.connection, message_id, now)
        )

    async def retry(self, queue_filter: QueueFilter) -> int:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _queue_admin.make_due(self._core, transaction, queue_filter)
        )

    async def hold(self, queue_filter: QueueFilter) -> int:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _queue_admin.set_held(
                self._core, transaction, queue_filter, held=True
            )
        )

    async def release(self, queue_filter: QueueFilter) -> int:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _queue_admin.set_held(
                self._core, transaction, queue_filter, held=False
            )
        )

    async def bounced_senders(self, queue_filter: QueueFilter) -> list[str]:
        """See the protocol."""
        return await self._core.readers.run(
            lambda snapshot: _queue_admin.bounced_senders(snapshot.connection, queue_filter)
        )

    async def remove(
        self, queue_filter: QueueFilter, *, bounce: bool, senders: Mapping[str, Expansion]
    ) -> int:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _queue_admin.remove(
                self._core,
                self._settings,
                transaction,
                queue_filter,
                bounce=bounce,
                senders=senders,
            )
        )


def _read_range(body_id: int, start: int, end: int, snapshot: Snapshot) -> bytes:
    return b"".join(_bodies.read_range(snapshot.driver, body_id, start, end))
