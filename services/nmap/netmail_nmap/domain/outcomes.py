"""Decides what follows from the outcome of an attempt: who is done, who waits, who is told."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from netmail_common.config import QueueConfig

from netmail_nmap.domain.delivery import DeliveryOutcome, ItemReport, Recipient, RecipientReport
from netmail_nmap.domain.dsn import DsnAction, RecipientStatus
from netmail_nmap.domain.retry import EXPIRED_STATUS, GiveUp, RetryLater, RetrySchedule


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """How the queue behaves."""

    schedule: RetrySchedule = field(
        default_factory=lambda: RetrySchedule.from_config(QueueConfig())
    )
    host_name: str = "localhost"
    """The Messaging Server's, in notifications."""
    random: Callable[[], float] = random.random
    """Numbers in [0, 1), for the jitter."""


@dataclass(frozen=True, slots=True)
class TriedRecipient:
    """A recipient of a leased item."""

    recipient: Recipient
    last_status: str = ""
    last_diagnostic: str = ""
    last_remote_mta: str = ""


@dataclass(frozen=True, slots=True)
class TriedItem:
    """A leased item that is reported."""

    attempts: int
    """This one included."""
    warned: bool
    accepted_at: float
    """Seconds since the epoch."""
    recipients: tuple[TriedRecipient, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the item."""

    done: tuple[str, ...] = ()
    """Addresses that leave the queue."""
    waiting: tuple[RecipientReport, ...] = ()
    """Recipients that stay, with what the next hop said."""
    tell: tuple[RecipientStatus, ...] = ()
    """What the sender is told, in one DSN; empty: nothing."""
    delay: float = 0
    """Seconds until the next attempt."""
    warned: bool = False


def decide(item: TriedItem, report: ItemReport, settings: QueueSettings, now: float) -> Decision:
    """Decides; a recipient that the report does not mention counts as deferred."""
    by_address = {said.address: said for said in report.recipients}
    retry = settings.schedule.after(
        attempt=max(1, item.attempts),
        age=now - item.accepted_at,
        warned=item.warned,
        random=settings.random,
    )
    done: list[str] = []
    waiting: list[RecipientReport] = []
    tell: list[RecipientStatus] = []
    for tried in item.recipients:
        said = by_address.get(tried.recipient.address) or _unmentioned(tried)
        action = _action(said, retry)
        if action is DsnAction.DELAYED:
            waiting.append(said)
            if not (isinstance(retry, RetryLater) and retry.warn):
                continue
        else:
            done.append(tried.recipient.address)
        if action is None or not tried.recipient.notify.wants(action):
            continue
        tell.append(_status(tried, said, action, item, settings, now))
    if isinstance(retry, GiveUp):
        return Decision(tuple(done), (), tuple(tell))
    return Decision(
        tuple(done), tuple(waiting), tuple(tell), retry.delay, item.warned or retry.warn
    )


def _unmentioned(tried: TriedRecipient) -> RecipientReport:
    return RecipientReport(
        tried.recipient.address,
        DeliveryOutcome.DEFERRED,
        tried.last_status,
        tried.last_diagnostic,
        tried.last_remote_mta,
    )


def _action(said: RecipientReport, retry: RetryLater | GiveUp) -> DsnAction | None:
    """What happened, in the words of RFC 3464 2.3.3; None: the next hop tells the sender."""
    if said.outcome is DeliveryOutcome.FAILED:
        return DsnAction.FAILED
    if said.outcome is DeliveryOutcome.DEFERRED:
        return DsnAction.FAILED if isinstance(retry, GiveUp) else DsnAction.DELAYED
    if said.dsn_passed_on:
        return None
    return DsnAction.DELIVERED if said.final else DsnAction.RELAYED


def _status(
    tried: TriedRecipient,
    said: RecipientReport,
    action: DsnAction,
    item: TriedItem,
    settings: QueueSettings,
    now: float,
) -> RecipientStatus:
    status, diagnostic = said.status, said.diagnostic
    if action is DsnAction.FAILED:
        if said.outcome is DeliveryOutcome.DEFERRED:
            status = EXPIRED_STATUS
            diagnostic = diagnostic or "x-netmail; the time for delivery is over"
        status = status or "5.0.0"
    elif action is DsnAction.DELAYED:
        status = status or "4.0.0"
    else:
        status = status or "2.0.0"
    until = None
    if action is DsnAction.DELAYED:
        until = moment(item.accepted_at) + timedelta(seconds=settings.schedule.lifetime)
    return RecipientStatus(
        address=tried.recipient.address,
        action=action,
        status=status,
        diagnostic=diagnostic,
        remote_mta=said.remote_mta,
        original_recipient=tried.recipient.original_recipient,
        last_attempt=moment(now),
        will_retry_until=until,
    )


def delivered_here(recipients: Sequence[Recipient]) -> list[RecipientStatus]:
    """What the sender is told of recipients in mailboxes of this agent (NOTIFY=SUCCESS)."""
    return [
        RecipientStatus(
            address=recipient.address,
            action=DsnAction.DELIVERED,
            status="2.0.0",
            original_recipient=recipient.original_recipient,
        )
        for recipient in recipients
        if recipient.notify.wants(DsnAction.DELIVERED)
    ]


def removed_by_operator(recipients: Sequence[Recipient]) -> list[RecipientStatus]:
    """What the sender is told when an operator removes a message with a bounce."""
    return [
        RecipientStatus(
            address=recipient.address,
            action=DsnAction.FAILED,
            status="5.0.0",
            diagnostic="x-netmail; the message was removed by an operator",
            original_recipient=recipient.original_recipient,
        )
        for recipient in recipients
        if recipient.notify.wants(DsnAction.FAILED)
    ]


def moment(seconds: float) -> datetime:
    """A time since the epoch, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC)
