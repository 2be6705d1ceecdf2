"""Leases, delivers, reports: the loop of `smtp deliver`."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from netmail_common.logging import get_logger

from netmail_smtp.adapters import deliver_metrics as metrics
from netmail_smtp.adapters.deliver_handover import HandOver
from netmail_smtp.adapters.deliver_message import outgoing
from netmail_smtp.adapters.deliver_queue import (
    Lease,
    LeasedQueue,
    MessageUnreadable,
    QueueUnreachable,
)
from netmail_smtp.adapters.deliver_smtp import SmtpTransport
from netmail_smtp.domain.deliver_outcome import Attempt, Delivered, Outcome, temporary

log = get_logger(__name__)

_LEASE_AT_ONCE = 64
_LEASE_WAIT = 1
"""Seconds; a call that waits is not cut short at shutdown, or what it leases would be lost."""
_RETRY = (0.1, 5.0)
_EVENTS = {word: f"delivery {word}" for word in ("delivered", "deferred", "failed")}
_LAST_REPORTS = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once."""

    items: int
    per_destination: int
    drain: float
    """Seconds that deliveries may go on after the drain began."""
    lease_margin: float
    """Seconds before its lease's end at which a delivery is cut short."""


@dataclass(slots=True, eq=False)
class _Work:
    lease: Lease
    attempt: Attempt
    way: str
    reporting: bool = False


class Deliverer:
    """Works off one queue. Belongs to one event loop."""

    def __init__(
        self,
        queue: LeasedQueue,
        transport: SmtpTransport,
        hand_over: HandOver,
        *,
        holders: Mapping[str, str],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a worker.

        Args:
            queue: where the work is leased.
            transport: for the rest of the world.
            hand_over: for the installation's own domains.
            holders: Messaging Server by domain.
            limits: how much at once.
            clock: the monotonic clock of the leases.
        """
        self._queue = queue
        self._transport = transport
        self._hand_over = hand_over
        self._holders = holders
        self._limits = limits
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], _Work] = {}
        self._destinations: Counter[str] = Counter()
        self._room = asyncio.Event()
        self.queue_answers = True
        """The last call to the queue was answered."""

    def use(self, holders: Mapping[str, str]) -> None:
        """Hands over mail for these domains from now on."""
        self._holders = holders

    async def run(self, draining: asyncio.Event) -> None:
        """Delivers until DRAINING is set and what is under way is finished or given back."""
        leasing = asyncio.create_task(self._lease_on(draining))
        drain = asyncio.create_task(draining.wait())
        try:
            await asyncio.wait({leasing, drain}, return_when=asyncio.FIRST_COMPLETED)
            self._room.set()
            await leasing
        finally:
            drain.cancel()
            leasing.cancel()
            await self._drain()

    async def _lease_on(self, draining: asyncio.Event) -> None:
        pause, longest = _RETRY
        while not draining.is_set():
            free = self._limits.items - len(self._under_way)
            if free < self._limits.items // 4 or not free:
                # Some at once: a lease is a commit.
                self._room.clear()
                await self._room.wait()
                continue
            busy = self._busy()
            try:
                leases = await self._queue.lease(
                    min(free, _LEASE_AT_ONCE),
                    of_each=self._limits.per_destination,
                    wait=0 if busy else _LEASE_WAIT,
                    busy=busy,
                )
            except QueueUnreachable as error:
                if self.queue_answers:
                    log.warning("queue does not answer", error=str(error))
                self.queue_answers = False
                await self._pause(draining, pause)
                pause = min(longest, 2 * pause)
                continue
            if not self.queue_answers:
                log.info("queue answers again")
            self.queue_answers, pause = True, _RETRY[0]
            for lease in leases:
                self._start(lease)
            if busy and not leases:
                await self._wait_for(busy, draining)

    async def _wait_for(self, busy: list[str], draining: asyncio.Event) -> None:
        """Waits until one of BUSY has room again; a second at most, there may be other work."""
        deadline = self._clock() + _LEASE_WAIT
        while self._clock() < deadline and not draining.is_set():
            if not set(busy) <= set(self._busy()):
                return
            self._room.clear()
            await self._pause(self._room, deadline - self._clock())

    @staticmethod
    async def _pause(event: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def _busy(self) -> list[str]:
        # With what comes of one lease at most twice as many as may be sent at once: the next is at
        # hand when a connection comes free, and the rest is left to others.
        # Half as many when it is getting full: slow destinations must not take every place.
        crowded = 2 * len(self._under_way) >= self._limits.items
        per_destination = self._limits.per_destination
        limit = per_destination // 2 if crowded else per_destination
        return [name for name, count in self._destinations.items() if count > limit]

    def _start(self, lease: Lease) -> None:
        item = lease.item
        attempt = Attempt(tuple(dict.fromkeys(r.address for r in item.envelope.recipients)))
        way = "hand-over" if item.destination in self._holders else "smtp"
        work = _Work(lease, attempt, way)
        task = asyncio.get_running_loop().create_task(self._work(work))
        self._under_way[task] = work
        self._destinations[item.destination] += 1
        metrics.LEASED.inc()
        metrics.UNDER_WAY.set(len(self._under_way))
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        destination = self._under_way.pop(task).lease.item.destination
        self._destinations[destination] -= 1
        if not self._destinations[destination]:
            del self._destinations[destination]
        metrics.UNDER_WAY.set(len(self._under_way))
        self._room.set()

    async def _work(self, work: _Work) -> None:
        started = self._clock()
        attempt = work.attempt
        try:
            async with asyncio.timeout(
                max(0.0, work.lease.expires - self._limits.lease_margin - started)
            ):
                await self._deliver(work)
        except TimeoutError:
            if attempt.started:
                attempt.decide_rest(temporary("4.4.7", "the delivery took too long", attempt.host))
        except asyncio.CancelledError:
            if attempt.outcomes:
                attempt.decide_rest(temporary("4.3.2", "this host was shutting down"))
        except MessageUnreadable as error:
            attempt.decide_rest(temporary("4.3.0", f"the queue does not give it out: {error}"))
        except Exception:
            log.exception("delivery attempt failed", message_id=work.lease.item.envelope.message_id)
            attempt.decide_rest(temporary("4.3.0", "internal error"))
        work.reporting = True
        self._tell(work, self._clock() - started)
        await self._queue.report(work.lease, attempt.outcomes)

    async def _deliver(self, work: _Work) -> None:
        item = work.lease.item
        holder = self._holders.get(item.destination)
        if holder is None:
            message = await outgoing(item, lambda: self._queue.read(work.lease))
            await self._transport.deliver(message, work.attempt)
            return
        async with contextlib.aclosing(self._pieces(work.lease)) as pieces:
            await self._hand_over.deliver(holder, item.envelope, pieces, work.attempt)

    async def _pieces(self, lease: Lease) -> AsyncGenerator[bytes, None]:
        if lease.item.data_included:
            yield lease.item.data
            return
        async with contextlib.aclosing(self._queue.read(lease)) as pieces:
            async for piece in pieces:
                yield piece

    def _tell(self, work: _Work, seconds: float) -> None:
        """One log line for each thing that became of it; most often that is one."""
        item, attempt = work.lease.item, work.attempt
        metrics.ATTEMPTS.labels(work.way).observe(seconds)
        groups: Counter[Outcome] = Counter(attempt.outcomes.values())
        for outcome, count in groups.items():
            word = _word(outcome)
            metrics.RECIPIENTS.labels(word, work.way).inc(count)
            log.info(
                _EVENTS[word],
                message_id=item.envelope.message_id,
                domain=item.destination,
                recipients=count,
                host=attempt.host or outcome.remote_mta,
                tls=attempt.tls,
                status=outcome.status,
                why=outcome.diagnostic,
                attempt=item.attempt,
                seconds=round(seconds, 3),
            )
        if not groups:
            log.info(
                "delivery given back", message_id=item.envelope.message_id, domain=item.destination
            )

    async def _drain(self) -> None:
        for task, work in list(self._under_way.items()):
            if not (work.attempt.started or work.reporting):
                task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._limits.drain)
        for task, work in list(self._under_way.items()):
            if not work.reporting:
                task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_LAST_REPORTS)


def _word(outcome: Outcome) -> str:
    if isinstance(outcome, Delivered):
        return "delivered"
    return "deferred" if outcome.retryable else "failed"
