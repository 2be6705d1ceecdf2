"""QueueService: taking messages, leases and reports of `deliver`, what operators ask for."""
# ruff: noqa: ARG002 - gRPC hands every method a context

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any, Protocol

from netmail.nmap.v1 import queue_pb2 as pb
from netmail.nmap.v1 import queue_pb2_grpc
from netmail_common.logging import get_logger
from netmail_common.metrics import counter

from netmail_nmap.adapters.grpc_convert import envelope_from, envelope_to
from netmail_nmap.adapters.grpc_streams import answer_in_turn
from netmail_nmap.adapters.grpc_uploads import (
    abandoned_unless_done,
    answered_after_all,
    give_up,
    receive,
)
from netmail_nmap.domain.delivery import (
    DEFAULT_NOTIFY,
    DeliveryOutcome,
    Envelope,
    Expansion,
    ItemReport,
    LeasedItem,
    QueuedMessage,
    QueueFilter,
    QueueState,
    RecipientReport,
    RecipientResolver,
    Submission,
    SubmitOutcome,
    SubmitResult,
)
from netmail_nmap.domain.errors import (
    InsufficientStorage,
    InvalidRequest,
    MessageTooBig,
    NmapError,
    StoreUnavailable,
)
from netmail_nmap.domain.store import MailStore, QueueStore

MAX_LEASE = 1_000
"""Items of one Lease."""
_MAX_LEASE_OCTETS = 8 * 1024 * 1024
_MAX_WAIT = 60
_WAIT_STEP = 1.0
"""Seconds after which a waiting Lease looks whether the agent drains."""
_PAGE = 100
_MAX_PAGE = 1_000
_MAX_STREAMED = 1024 * 1024 * 1024

_log = get_logger(__name__)
_submitted = counter("nmap_submissions", "Messages submitted", ("outcome",))
_delivered = counter("nmap_local_deliveries", "Copies put into mailboxes")
_queued = counter("nmap_queued_recipients", "Recipients put into the queue")
_reported = counter("nmap_reports", "Recipients reported by deliver", ("outcome",))

_OUTCOMES = {
    SubmitOutcome.ACCEPTED: pb.SUBMIT_OUTCOME_ACCEPTED,
    SubmitOutcome.TEMPORARY_FAILURE: pb.SUBMIT_OUTCOME_TEMPORARY_FAILURE,
    SubmitOutcome.INSUFFICIENT_STORAGE: pb.SUBMIT_OUTCOME_INSUFFICIENT_STORAGE,
    SubmitOutcome.INVALID: pb.SUBMIT_OUTCOME_INVALID,
}
_DELIVERY = {
    pb.DELIVERY_OUTCOME_DELIVERED: DeliveryOutcome.DELIVERED,
    pb.DELIVERY_OUTCOME_DEFERRED: DeliveryOutcome.DEFERRED,
    pb.DELIVERY_OUTCOME_FAILED: DeliveryOutcome.FAILED,
}
_DELIVERY_TO = {outcome: number for number, outcome in _DELIVERY.items()}
_STATES = {
    QueueState.READY: pb.QUEUE_STATE_READY,
    QueueState.LEASED: pb.QUEUE_STATE_LEASED,
    QueueState.DEFERRED: pb.QUEUE_STATE_DEFERRED,
    QueueState.HELD: pb.QUEUE_STATE_HELD,
}


class _Store(Protocol):
    @property
    def mail(self) -> MailStore: ...

    @property
    def queue(self) -> QueueStore: ...


class QueueService(queue_pb2_grpc.QueueServiceServicer):
    """Serves the queue of one store. Roles are checked before it.

    Args:
        store: the queue, and the mail store for uploads.
        resolver: tells where mail to an address goes.
        max_message_size: octets; the SMTP agent has its own limit, this one is the store's.
    """

    def __init__(
        self,
        store: _Store,
        resolver: RecipientResolver,
        *,
        max_message_size: int = _MAX_STREAMED,
    ) -> None:
        self._mail = store.mail
        self._queue = store.queue
        self._resolver = resolver
        self._max_message_size = max_message_size
        self._stop = asyncio.Event()

    def limit(self, max_message_size: int) -> None:
        """Takes messages of so many octets from now on."""
        self._max_message_size = max_message_size

    def drain(self) -> None:
        """Leases that wait are answered with nothing; streams end when what came is answered."""
        self._stop.set()

    # -- taking --------------------------------------------------------------------------------

    async def Submit(  # type: ignore[override] # writes instead of yielding
        self, request_iterator: AsyncIterable[pb.SubmitRequest], context: Any
    ) -> None:
        """Takes messages: those of a request in one commit; an invalid one spoils no other."""
        await answer_in_turn(request_iterator, self._submit_request, context.write, self._stop)

    async def _submit_request(self, request: pb.SubmitRequest) -> pb.SubmitResponse:
        results: list[SubmitResult | None] = []
        envelopes: list[tuple[Envelope, bytes]] = []
        for item in request.items:
            try:
                envelope = envelope_from(item.envelope)
            except InvalidRequest as error:
                _log.warning("submission refused", reason=error.message)
                results.append(SubmitResult(SubmitOutcome.INVALID))
            else:
                envelopes.append((envelope, item.data))
                results.append(None)
        taken = iter(await self._submit(envelopes))
        return pb.SubmitResponse(results=[_result_to(result or next(taken)) for result in results])

    async def _submit(self, messages: Sequence[tuple[Envelope, bytes]]) -> list[SubmitResult]:
        try:
            expansions, senders = await self._expand([envelope for envelope, _ in messages])
        except NmapError as error:
            _log.error("recipients cannot be looked up", reason=error.reason)
            return [SubmitResult(SubmitOutcome.TEMPORARY_FAILURE)] * len(messages)
        results = await self._queue.submit(
            [
                Submission(envelope, data, recipients, sender)
                for (envelope, data), recipients, sender in zip(
                    messages, expansions, senders, strict=True
                )
            ]
        )
        _count(results)
        return results

    async def SubmitStream(
        self, request_iterator: AsyncIterable[pb.SubmitStreamRequest], context: Any
    ) -> pb.SubmitStreamResponse:
        """Takes one message of any size; a stream without `end` stores nothing."""
        requests = aiter(request_iterator)
        async with answered_after_all(requests):
            envelope = envelope_from((await _begin(requests)).envelope)
            expansions, senders = await self._expand([envelope])
        upload = self._mail.upload(
            limit=self._max_message_size,
            local_prefix=envelope.return_path if any(e.users for e in expansions[0]) else b"",
        )
        async with abandoned_unless_done(upload):
            try:
                await receive(upload, requests)
                body = await upload.finish()
            except (MessageTooBig, StoreUnavailable) as error:
                result = SubmitResult(_outcome_of(error))
            else:
                submission = Submission(envelope, body, expansions[0], senders[0])
                (result,) = await self._queue.submit([submission])
            if result.outcome is not SubmitOutcome.ACCEPTED:
                await give_up(upload)
        _count([result])
        return pb.SubmitStreamResponse(result=_result_to(result))

    async def Deliver(
        self, request_iterator: AsyncIterable[pb.DeliverRequest], context: Any
    ) -> pb.DeliverResponse:
        """Takes a message that another NMAP agent hands over."""
        requests = aiter(request_iterator)
        async with answered_after_all(requests):
            envelope = envelope_from((await _begin(requests)).envelope)
            expansions = await self._resolver.expand(
                [recipient.address for recipient in envelope.recipients], handed_over=True
            )
        upload = self._mail.upload(limit=self._max_message_size, local_prefix=envelope.return_path)
        async with abandoned_unless_done(upload):
            await receive(upload, requests)
            results = await self._queue.deliver(envelope, await upload.finish(), expansions)
        return pb.DeliverResponse(
            results=[
                pb.DeliverResult(
                    address=result.address,
                    outcome=_DELIVERY_TO[result.outcome],
                    status=result.status,
                    diagnostic=result.diagnostic,
                )
                for result in results
            ]
        )

    async def _expand(
        self, envelopes: Sequence[Envelope]
    ) -> tuple[list[tuple[Expansion, ...]], list[Expansion | None]]:
        """Expansions for each envelope's recipients; the sender's where it will get a DSN."""
        addresses: dict[str, None] = {}
        for envelope in envelopes:
            addresses.update(dict.fromkeys([r.address for r in envelope.recipients]))
            if _wants_success(envelope):
                addresses[envelope.sender] = None
        found = await self._expanded(list(addresses))
        return (
            [tuple([found[r.address] for r in e.recipients]) for e in envelopes],
            [found[e.sender] if _wants_success(e) else None for e in envelopes],
        )

    async def _expanded(self, addresses: Sequence[str]) -> dict[str, Expansion]:
        if not addresses:
            return {}
        return dict(zip(addresses, await self._resolver.expand(addresses), strict=True))

    # -- leases --------------------------------------------------------------------------------

    async def Lease(self, request: pb.LeaseRequest, context: Any) -> pb.LeaseResponse:
        """Leases due items; waits for the first."""
        if not 0 < request.limit <= MAX_LEASE or request.lease_seconds < 1:
            raise InvalidRequest("the limit or the time of the lease makes no sense")
        end = time.monotonic() + min(request.wait_seconds, _MAX_WAIT)
        while True:
            left = max(0.0, end - time.monotonic())
            items = await self._queue.lease(
                limit=request.limit,
                seconds=request.lease_seconds,
                wait=0 if self._stop.is_set() else min(left, _WAIT_STEP),
                worker=request.worker,
                busy_destinations=tuple(request.busy_destinations),
                limit_per_destination=request.limit_per_destination,
            )
            if items or left <= 0 or self._stop.is_set():
                return pb.LeaseResponse(items=_leased_to(items))

    async def ReadMessage(
        self, request: pb.ReadMessageRequest, context: Any
    ) -> AsyncIterator[pb.ReadMessageResponse]:
        """The leased message's octets."""
        async for data in self._queue.read_message(request.lease_id, request.fence):
            yield pb.ReadMessageResponse(data=data)

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        """Takes outcomes, and writes the DSNs that follow from them in the same commit."""
        reports = [_report_from(item) for item in request.items]
        senders = await self._expanded(await self._queue.report_senders(reports))
        accepted = await self._queue.report(reports, senders)
        for report, held in zip(reports, accepted, strict=True):
            if not held:
                _log.warning("report of a lost lease", lease=report.lease_id)
                continue
            for recipient in report.recipients:
                _reported.labels(recipient.outcome.name.lower()).inc()
        return pb.ReportResponse(results=[pb.ReportResult(accepted=held) for held in accepted])

    # -- operators -----------------------------------------------------------------------------

    async def ListQueue(self, request: pb.ListQueueRequest, context: Any) -> pb.ListQueueResponse:
        """A page of the queue."""
        try:
            after = int(request.page_token or "0")
        except ValueError:
            raise InvalidRequest("the page token is not one of ours") from None
        filtered = request.filter
        messages, following = await self._queue.list_queue(
            QueueFilter(filtered.message_id, filtered.destination, filtered.sender),
            page_size=min(request.page_size or _PAGE, _MAX_PAGE),
            after=after,
        )
        return pb.ListQueueResponse(
            messages=[_queued_to(message) for message in messages],
            next_page_token=str(following) if following else "",
        )

    async def GetQueueMessage(
        self, request: pb.GetQueueMessageRequest, context: Any
    ) -> pb.GetQueueMessageResponse:
        """A message in the queue."""
        message, header = await self._queue.get_message(request.message_id)
        return pb.GetQueueMessageResponse(message=_queued_to(message), header=header)

    async def RetryQueue(
        self, request: pb.RetryQueueRequest, context: Any
    ) -> pb.RetryQueueResponse:
        """Makes items due now."""
        return pb.RetryQueueResponse(changed=await self._queue.retry(_filter_from(request.filter)))

    async def HoldQueue(self, request: pb.HoldQueueRequest, context: Any) -> pb.HoldQueueResponse:
        """Keeps items from being tried."""
        return pb.HoldQueueResponse(changed=await self._queue.hold(_filter_from(request.filter)))

    async def ReleaseQueue(
        self, request: pb.ReleaseQueueRequest, context: Any
    ) -> pb.ReleaseQueueResponse:
        """Ends a hold."""
        return pb.ReleaseQueueResponse(
            changed=await self._queue.release(_filter_from(request.filter))
        )

    async def RemoveQueue(
        self, request: pb.RemoveQueueRequest, context: Any
    ) -> pb.RemoveQueueResponse:
        """Removes items, with or without telling their senders."""
        wanted = _filter_from(request.filter)
        senders: dict[str, Expansion] = {}
        if request.bounce:
            senders = await self._expanded(await self._queue.bounced_senders(wanted))
        changed = await self._queue.remove(wanted, bounce=request.bounce, senders=senders)
        return pb.RemoveQueueResponse(changed=changed)


async def _begin(requests: AsyncIterator[Any]) -> Any:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "envelope":
        raise InvalidRequest("the stream does not begin with an envelope")
    return first


def _outcome_of(error: NmapError) -> SubmitOutcome:
    match error:
        case InsufficientStorage():
            return SubmitOutcome.INSUFFICIENT_STORAGE
        case StoreUnavailable():
            return SubmitOutcome.TEMPORARY_FAILURE
        case _:
            return SubmitOutcome.INVALID


def _wants_success(envelope: Envelope) -> bool:
    for recipient in envelope.recipients:
        if recipient.notify is not DEFAULT_NOTIFY and recipient.notify.success:
            return envelope.sender != ""
    return False


def _count(results: Sequence[SubmitResult]) -> None:
    for outcome, number in Counter([result.outcome for result in results]).items():
        _submitted.labels(outcome.name.lower()).inc(number)
    _delivered.inc(sum([result.delivered for result in results]))
    _queued.inc(sum([result.queued for result in results]))


def _result_to(result: SubmitResult) -> pb.SubmitResult:
    return pb.SubmitResult(
        outcome=_OUTCOMES[result.outcome], delivered=result.delivered, queued=result.queued
    )


def _leased_to(items: Sequence[LeasedItem]) -> list[pb.LeasedItem]:
    """Messages come along until the response is full; the others are read by ReadMessage."""
    left = _MAX_LEASE_OCTETS
    leased = []
    for item in items:
        data = item.data if item.data is not None and len(item.data) <= left else None
        left -= len(data or b"")
        leased.append(
            pb.LeasedItem(
                lease_id=item.lease_id,
                fence=item.fence,
                envelope=envelope_to(item.envelope),
                destination=item.destination,
                attempt=item.attempt,
                size=item.size,
                age_seconds=item.age,
                data=data or b"",
                data_included=data is not None,
            )
        )
    return leased


def _report_from(item: pb.ItemReport) -> ItemReport:
    recipients = []
    for recipient in item.recipients:
        outcome = _DELIVERY.get(recipient.outcome)
        if outcome is None:
            raise InvalidRequest("a recipient is reported without an outcome")
        recipients.append(
            RecipientReport(
                recipient.address,
                outcome,
                recipient.status,
                recipient.diagnostic,
                recipient.remote_mta,
                dsn_passed_on=recipient.dsn_passed_on,
                final=recipient.final,
            )
        )
    return ItemReport(item.lease_id, item.fence, tuple(recipients), untried=item.untried)


def _filter_from(message: pb.QueueFilter) -> QueueFilter:
    """What an operator means; an empty filter must say `all`. Raises: InvalidRequest."""
    if not (message.message_id or message.destination or message.sender or message.all):
        raise InvalidRequest("an empty filter must say that it means all")
    return QueueFilter(message.message_id, message.destination, message.sender)


def _queued_to(message: QueuedMessage) -> pb.QueueMessage:
    return pb.QueueMessage(
        message_id=message.message_id,
        sender=message.sender,
        size=message.size,
        age_seconds=message.age,
        relayed_for=message.relayed_for,
        recipients=[
            pb.QueueRecipient(
                address=recipient.address,
                destination=recipient.destination,
                state=_STATES[recipient.state],
                attempts=recipient.attempts,
                due_in_seconds=recipient.due_in,
                last_status=recipient.last_status,
                last_diagnostic=recipient.last_diagnostic,
            )
            for recipient in message.recipients
        ],
    )
