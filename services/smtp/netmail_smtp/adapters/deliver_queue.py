"""The leased side of the queue: lease, read, report (netmail.nmap.v1.QueueService)."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import grpc
from netmail.nmap.v1 import queue_pb2
from netmail_common.gather import Gatherer
from netmail_common.grpc_client import error_reason
from netmail_common.logging import get_logger
from netmail_common.nmap import QueueClients

from netmail_smtp.domain.deliver_outcome import Delivered, Outcome

log = get_logger(__name__)

_TIMEOUT = 30.0
_READ_TIMEOUT = 3600.0
_REPORT_RETRY = (0.1, 2.0)
_REPORTS_AT_ONCE = 256


class QueueUnreachable(Exception):
    """The NMAP agent does not answer."""


class MessageUnreadable(Exception):
    """A leased message's octets cannot be had now."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One leased item and the time until which it is ours."""

    item: queue_pb2.LeasedItem
    expires: float
    """By the monotonic clock; earlier than the NMAP agent's own."""


class LeasedQueue:
    """The queue of one NMAP agent, for one worker."""

    def __init__(
        self,
        clients: QueueClients,
        server: str,
        *,
        worker: str,
        lease_seconds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a client.

        Args:
            clients: stubs by Messaging Server.
            server: whose queue.
            worker: this process's name for operators.
            lease_seconds: how long a lease lasts.
            clock: monotonic.
        """
        self._clients = clients
        self._server = server
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._reports: Gatherer[queue_pb2.ItemReport, queue_pb2.ReportResult] = Gatherer(
            self._report_all,
            max_items=_REPORTS_AT_ONCE,
            max_bytes=1024 * 1024,
            size_of=lambda report: report.ByteSize(),
        )

    async def lease(
        self, limit: int, *, of_each: int, wait: int, busy: Sequence[str]
    ) -> list[Lease]:
        """Leases items, waiting WAIT seconds for one.

        Args:
            limit: how many at most.
            of_each: of one destination at most.
            wait: seconds.
            busy: destinations that nothing is wanted of.

        Raises: QueueUnreachable.
        """
        asked = self._clock()
        request = queue_pb2.LeaseRequest(
            limit=limit,
            lease_seconds=self._lease_seconds,
            wait_seconds=wait,
            worker=self._worker,
            busy_destinations=busy,
            limit_per_destination=of_each,
        )
        try:
            response = await self._clients.for_server(self._server).Lease(
                request, timeout=_TIMEOUT + wait
            )
        except grpc.aio.AioRpcError as error:
            raise QueueUnreachable(_words(error)) from error
        return [Lease(item, asked + self._lease_seconds) for item in response.items]

    async def read(self, lease: Lease) -> AsyncGenerator[bytes, None]:
        """The message's octets in pieces, all of them.

        Raises: MessageUnreadable, also when there are not as many as there should be.
        """
        item = lease.item
        request = queue_pb2.ReadMessageRequest(lease_id=item.lease_id, fence=item.fence)
        call = self._clients.for_server(self._server).ReadMessage(request, timeout=_READ_TIMEOUT)
        size = 0
        try:
            async for response in call:
                size += len(response.data)
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise MessageUnreadable(_words(error)) from error
        finally:
            call.cancel()
        if size != item.size:
            raise MessageUnreadable(f"{size} octets of {item.size}")

    async def report(self, lease: Lease, outcomes: dict[str, Outcome]) -> None:
        """Reports outcomes until they are taken or the lease is over; none: gives it back untried.

        An outcome that cannot be reported means another delivery: at least once, never not at all.
        """
        item = lease.item
        report = queue_pb2.ItemReport(
            lease_id=item.lease_id,
            fence=item.fence,
            untried=not outcomes,
            recipients=[_recipient_report(*outcome) for outcome in outcomes.items()],
        )
        pause, longest = _REPORT_RETRY
        while True:
            try:
                result = await self._reports(report)
            except QueueUnreachable as error:
                if self._clock() + pause > lease.expires:
                    log.error(  # noqa: TRY400 - the cause is in the text
                        "report lost, the message will be delivered again",
                        message_id=item.envelope.message_id,
                        destination=item.destination,
                        error=str(error),
                    )
                    return
                await asyncio.sleep(pause)
                pause = min(longest, 2 * pause)
            else:
                if not result.accepted:
                    log.warning(
                        "lease was lost",
                        message_id=item.envelope.message_id,
                        destination=item.destination,
                    )
                return

    async def _report_all(
        self, reports: list[queue_pb2.ItemReport]
    ) -> list[queue_pb2.ReportResult]:
        try:
            response = await self._clients.for_server(self._server).Report(
                queue_pb2.ReportRequest(items=reports), timeout=_TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            raise QueueUnreachable(_words(error)) from error
        return list(response.results)


def _recipient_report(address: str, outcome: Outcome) -> queue_pb2.RecipientReport:
    report = queue_pb2.RecipientReport(
        address=address,
        status=outcome.status,
        diagnostic=outcome.diagnostic,
        remote_mta=outcome.remote_mta,
    )
    if isinstance(outcome, Delivered):
        report.outcome = queue_pb2.DELIVERY_OUTCOME_DELIVERED
        report.dsn_passed_on = outcome.dsn_passed_on
        report.final = outcome.final
    elif outcome.retryable:
        report.outcome = queue_pb2.DELIVERY_OUTCOME_DEFERRED
    else:
        report.outcome = queue_pb2.DELIVERY_OUTCOME_FAILED
    return report


def _words(error: grpc.aio.AioRpcError) -> str:
    return error_reason(error) or error.code().name
