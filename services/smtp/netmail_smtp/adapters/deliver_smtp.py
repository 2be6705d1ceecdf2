"""Delivers one leased item by SMTP: host after host until everybody's fate is decided."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from netmail_common.mail_address import AddressError, MailAddress

from netmail_smtp.adapters.deliver_connection import Body, SmtpConnection
from netmail_smtp.adapters.deliver_pool import ConnectionPool
from netmail_smtp.adapters.deliver_router import Router
from netmail_smtp.domain.deliver_health import HostHealth
from netmail_smtp.domain.deliver_outcome import (
    Attempt,
    DeliveryFailure,
    HostFailed,
    MessageTraits,
    from_answer,
    from_refusal,
    from_reply,
    permanent,
    prevailing,
    temporary,
    unfit,
    unfit_recipient,
)
from netmail_smtp.domain.deliver_route import Target
from netmail_smtp.protocol.client import (
    Answer,
    RecipientCommand,
    SessionRefused,
    Stage,
    Transaction,
)

RECIPIENTS_PER_TRANSACTION = 100
"""RFC 5321 4.5.3.1.8: every host takes as many."""


@dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    """One recipient, address as the queue spells it."""

    address: str
    notify: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """What is to be sent, and how."""

    message_id: str
    destination: str
    sender: str
    """As the queue spells it; empty: the null sender."""
    recipients: Sequence[OutgoingRecipient]
    traits: MessageTraits
    data: bytes | None
    """None: `pieces` reads it."""
    pieces: Callable[[], AsyncGenerator[bytes, None]] | None = None
    return_headers_only: bool = False
    envelope_id: str = ""


@dataclass(slots=True)
class _Run:
    """One message on its way to one target."""

    message: OutgoingMessage
    target: Target
    attempt: Attempt
    pending: list[OutgoingRecipient] = field(default_factory=list)


class SmtpTransport:
    """Sends messages to the hosts that the router names."""

    def __init__(self, router: Router, pool: ConnectionPool, health: HostHealth) -> None:
        self._router = router
        self._pool = pool
        self._health = health

    async def deliver(self, message: OutgoingMessage, attempt: Attempt) -> None:
        """Tries to deliver; ATTEMPT has every recipient's outcome after it.

        When cut short, ATTEMPT has the outcomes so far.
        """
        targets = await self._router.targets(message.destination)
        if isinstance(targets, DeliveryFailure):
            attempt.decide_rest(targets)
            return
        for target in targets:
            suspended = self._health.suspended((target.address, target.port))
            if suspended is not None:
                attempt.failures.append(suspended)
                continue
            try:
                await self._try_target(message, target, attempt)
            except HostFailed as error:
                attempt.failures.append(error.failure)
            if not attempt.undecided:
                return
        attempt.decide_rest(prevailing(attempt.failures))

    async def _try_target(self, message: OutgoingMessage, target: Target, attempt: Attempt) -> None:
        undecided = set(attempt.undecided)
        run = _Run(message, target, attempt)
        run.pending = [r for r in message.recipients if r.address in undecided]
        fresh = False
        while run.pending:
            async with self._pool.connection(target, fresh=fresh) as loan:
                attempt.started = True
                attempt.host = str(target)
                attempt.tls = loan.connection.tls
                transaction = await self._transact(run, loan.connection)
                if transaction is None:
                    return
                fresh = loan.reused and _kept_too_long(transaction)
                if transaction.lost is not None and not fresh:
                    raise HostFailed(_broken(transaction, target), unreachable=False)
                for answer in transaction.answers.values():
                    if _not_now(answer):
                        failure = from_reply(answer.reply, answer.stage, target.host)
                        raise HostFailed(failure, unreachable=False)

    async def _transact(self, run: _Run, connection: SmtpConnection) -> Transaction | None:
        """One transaction for those who are pending. None: the host cannot take the message."""
        message, host = run.message, run.target.host
        offered = connection.session.extensions
        failure = unfit(message.traits, offered, host)
        if failure is not None:
            run.attempt.decide_rest(failure)
            return None
        for recipient in run.pending:
            failure = _unspeakable(recipient.address) or unfit_recipient(
                recipient.address, offered, host
            )
            if failure is not None:
                run.attempt.decide({recipient.address: failure})
        fit = [r for r in run.pending if r.address not in run.attempt.outcomes]
        if not fit:
            return None
        limit = min(
            offered.max_recipients or RECIPIENTS_PER_TRANSACTION, RECIPIENTS_PER_TRANSACTION
        )
        now, later = fit[:limit], fit[limit:]
        spelled = {_spell(recipient.address): recipient for recipient in now}
        transaction = _transaction(message, spelled)
        body = Body(message.data)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if message.data is None and message.pieces is not None:
                    body.pieces = message.pieces()
                    stack.push_async_callback(body.pieces.aclose)
                await connection.run(connection.session.transaction(transaction), body)
        finally:
            # Also when cut short: what is decided stays decided, what may have arrived waits.
            connection.messages += 1
            self._note(run, transaction, body, spelled, connection)
        again = [spelled[address] for address in transaction.too_many]
        lost = transaction.lost is not None
        run.pending = [r for r in now if lost and r.address not in run.attempt.outcomes]
        run.pending += again + later
        return transaction

    @staticmethod
    def _note(
        run: _Run,
        transaction: Transaction,
        body: Body,
        spelled: dict[str, OutgoingRecipient],
        connection: SmtpConnection,
    ) -> None:
        host = run.target.host
        for address, answer in transaction.answers.items():
            outcome = from_answer(answer, host, connection.session.extensions)
            if not _not_now(answer):
                run.attempt.decide({spelled[address].address: outcome})
        if body.sent or (transaction.sent and transaction.answered):
            failure = temporary("4.4.2", "the connection broke after the message was sent", host)
            excluded = set(transaction.too_many)
            run.attempt.decide(
                {r.address: failure for a, r in spelled.items() if a not in excluded}
            )


def _kept_too_long(transaction: Transaction) -> bool:
    """The host has closed a kept connection meanwhile: that says nothing about the host."""
    lost = transaction.lost
    if isinstance(lost, SessionRefused):
        return lost.stage in (Stage.RESET, Stage.MAIL)
    return lost is not None and not transaction.answered


def _not_now(answer: Answer) -> bool:
    """The host takes nothing from anybody now: the next host may."""
    return answer.stage is Stage.MAIL and not answer.reply.permanent


def _broken(transaction: Transaction, target: Target) -> DeliveryFailure:
    if isinstance(transaction.lost, SessionRefused):
        return from_refusal(transaction.lost, target.host)
    return temporary("4.4.2", str(transaction.lost), target.host)


def _unspeakable(address: str) -> DeliveryFailure | None:
    try:
        _spell(address)
    except AddressError as error:
        return permanent("5.1.3", f"the recipient address cannot be written: {error}")
    return None


def _spell(address: str) -> str:
    """The queue's spelling to SMTP's. Raises: AddressError."""
    return str(MailAddress.from_wire(address))


def _transaction(message: OutgoingMessage, spelled: dict[str, OutgoingRecipient]) -> Transaction:
    traits = message.traits
    return Transaction(
        sender=_spell(message.sender) if message.sender else "",
        recipients=[
            RecipientCommand(address, recipient.notify, recipient.original)
            for address, recipient in spelled.items()
        ],
        size=traits.size,
        data=message.data,
        eight_bit=traits.eight_bit,
        smtputf8=traits.utf8_headers
        or traits.utf8_sender
        or not all(address.isascii() for address in spelled),
        return_headers_only=message.return_headers_only,
        envelope_id=message.envelope_id,
    )
