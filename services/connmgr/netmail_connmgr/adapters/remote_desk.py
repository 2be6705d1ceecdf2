"""The front desk from a worker process: what gathers goes to the table's owner in one call."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.connmgr.model import UserKey
from netmail_common.gather import Gatherer
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import desk_messages as messages
from netmail_connmgr.adapters.memory_store import boot_time
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import (
    Answer,
    Enquiry,
    FrontDeskUnavailable,
    RelayedMail,
)
from netmail_connmgr.domain.stall import TICK, StallGuard
from netmail_connmgr.domain.table import Registered

__all__ = ["RemoteDesk"]

_MAX_ITEMS = 500
"""Of one call; the service takes 1000."""
_TABLE_CALLS = 2
"""Calls about the table under way at once: what waits for them gathers."""
_CONNECTION_CALLS = 32
"""The same about connections: some wait for DNS, which must not hold up the others."""

log = get_logger(__name__)

Req = TypeVar("Req")
Res = TypeVar("Res")


class RemoteDesk:
    """FrontDesk over gRPC; belongs to its event loop. Every method may raise FrontDeskUnavailable.

    Args:
        channel: to the process that owns the table; the caller closes it.
        timeout: seconds for an answer, the waiting for earlier calls included.
        clock: seconds, counting while the process is stopped.
    """

    def __init__(
        self, channel: Channel, *, timeout: float = 5.0, clock: Callable[[], float] = boot_time
    ) -> None:
        self._stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
        self._timeout = timeout
        self._clock = clock
        self.guard = StallGuard(clock())
        self._registrations = _gatherer(self._send_registrations, _TABLE_CALLS)
        self._enquiries = _gatherer(self._send_enquiries, _TABLE_CALLS)
        self._connections = _gatherer(self._send_connections, _CONNECTION_CALLS)
        self._mails = _gatherer(self._send_mails, _TABLE_CALLS)

    async def watch_stalls(self) -> None:
        """Notices when the process stands still, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            stall = self.guard.beat(self._clock())
            if stall:
                log.warning("the process stood still", seconds=round(stall, 1))

    async def register(self, candidates: Sequence[Candidate]) -> Sequence[Registered]:
        """Registers logins; what is not admitted is answered by Outcome.INVALID."""
        now = self._clock()
        heard = now - self.guard.lost(now)
        return await self._within(self._registrations, [(one, heard) for one in candidates])

    async def enquire(self, enquiries: Sequence[Enquiry]) -> Sequence[Answer]:
        """Decides, and writes down what it decided.

        Raises: ValueError, for an address that is none.
        """
        for enquiry in enquiries:
            if len(enquiry.client_address) not in {4, 16}:
                raise ValueError("an address has 4 or 16 octets")
        return await self._within(self._enquiries, enquiries)

    async def check_connections(
        self, questions: Sequence[ConnectionQuestion]
    ) -> Sequence[ConnectionVerdict]:
        """Judges clients by the lists, DNSBL, reverse DNS and failed logins."""
        return await self._within(self._connections, questions)

    async def count_mail(self, mails: Sequence[RelayedMail]) -> Sequence[bool]:
        """Counts mail; whether it is within the rates of its sender: what is not is not counted."""
        return await self._within(self._mails, mails)

    async def login_failed(self, question: ConnectionQuestion) -> None:
        """Counts a failed login."""
        check = messages.connection_check(question)
        event = pb.Event(
            event_id=secrets.token_hex(16),
            client_address=check.client_address,
            service=check.service,
            messaging_server=check.messaging_server,
            listener=check.listener,
            agent=check.agent,
            user=check.user if question.user is not None else None,
            typed_name=check.typed_name,
            login_failed=pb.LoginFailed(),
        )
        await _call(
            self._stub.ReportEvent(pb.ReportEventRequest(items=[event]), timeout=self._timeout)
        )

    async def log_out(self, user: UserKey | None, client_address: bytes) -> None:
        """Ends the login of a user from an address; without a user everybody's from there."""
        request = pb.RevokeLoginsRequest(
            user=messages.user_message(user) if user is not None else None,
            client_address=client_address,
            reason="logged out",
        )
        await _call(self._stub.RevokeLogins(request, timeout=self._timeout))

    async def _send_registrations(
        self, batches: list[Sequence[tuple[Candidate, float]]]
    ) -> list[list[Registered]]:
        now = self._clock()
        items = [
            messages.registration(candidate, now - heard)
            for batch in batches
            for candidate, heard in batch
        ]
        request = pb.RegisterLoginRequest(items=items)
        response = await _call(self._stub.RegisterLogin(request, timeout=self._timeout))
        _check_number(response.results, batches)
        return _parted([_read(messages.registered, one) for one in response.results], batches)

    async def _send_enquiries(self, batches: list[Sequence[Enquiry]]) -> list[list[Answer]]:
        asked = [enquiry for batch in batches for enquiry in batch]
        request = pb.CheckSenderRequest(items=map(messages.sender_check, asked))
        response = await _call(self._stub.CheckSender(request, timeout=self._timeout))
        _check_number(response.results, batches)
        answers = [
            _read(messages.answer, result, enquiry.client_address)
            for enquiry, result in zip(asked, response.results, strict=True)
        ]
        return _parted(answers, batches)

    async def _send_connections(
        self, batches: list[Sequence[ConnectionQuestion]]
    ) -> list[list[ConnectionVerdict]]:
        items = [messages.connection_check(question) for batch in batches for question in batch]
        request = pb.CheckConnectionRequest(items=items)
        response = await _call(self._stub.CheckConnection(request, timeout=self._timeout))
        _check_number(response.results, batches)
        return _parted(
            [_read(messages.connection_verdict, one) for one in response.results], batches
        )

    async def _send_mails(self, batches: list[Sequence[RelayedMail]]) -> list[list[bool]]:
        events = [messages.mail_event(mail) for batch in batches for mail in batch]
        response = await _call(
            self._stub.ReportEvent(pb.ReportEventRequest(items=events), timeout=self._timeout)
        )
        _check_number(response.results, batches)
        return _parted([result.accepted for result in response.results], batches)

    async def _within(
        self, gatherer: Gatherer[Sequence[Req], list[Res]], items: Sequence[Req]
    ) -> list[Res]:
        """Sends the items with whatever else gathers; their answers, in order."""
        pieces = [items[start : start + _MAX_ITEMS] for start in range(0, len(items), _MAX_ITEMS)]
        try:
            async with asyncio.timeout(self._timeout):
                answers = await asyncio.gather(*(gatherer(piece) for piece in pieces))
        except TimeoutError:
            raise FrontDeskUnavailable("TIMEOUT") from None
        return [answer for piece in answers for answer in piece]


def _gatherer(
    call: Callable[[list[Sequence[Req]]], Awaitable[list[list[Res]]]], in_flight: int
) -> Gatherer[Sequence[Req], list[Res]]:
    """Gathers batches, whose sizes are counted in items."""
    return Gatherer(call, _MAX_ITEMS, _MAX_ITEMS, len, in_flight)


def _check_number(results: Sized, batches: Sequence[Sized]) -> None:
    """Raises: FrontDeskUnavailable, if there are more or fewer answers than questions."""
    if len(results) != sum(map(len, batches)):
        raise FrontDeskUnavailable("MALFORMED_ANSWER")


def _parted(answers: list[Res], batches: Sequence[Sequence[object]]) -> list[list[Res]]:
    """The answers to each batch."""
    rest = iter(answers)
    return [[next(rest) for _ in batch] for batch in batches]


def _read(read: Callable[..., Res], *message: object) -> Res:
    try:
        return read(*message)
    except messages.UnknownAnswer as error:
        raise FrontDeskUnavailable("UNKNOWN_ANSWER") from error


async def _call(call: Awaitable[Res]) -> Res:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        reason = error_reason(error) or error.code().name
        if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}:
            # Certificates or versions do not fit; a traceback would say no more.
            log.error("the table's owner refuses the question", reason=reason)  # noqa: TRY400
        raise FrontDeskUnavailable(reason) from error
