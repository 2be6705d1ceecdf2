"""Taking messages: into mailboxes, into the queue, each once. Operations of the writer.

All submissions of a commit go in together, with one statement for each table.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from netmail_nmap.adapters.schema import accepted, queue_items, queue_messages, queue_recipients
from netmail_nmap.adapters.sql import _bodies, _mailboxes, _messages
from netmail_nmap.adapters.sql._bodies import LargeBody, NewBody
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._events import QueueGrew
from netmail_nmap.adapters.sql._mailboxes import MailboxRow
from netmail_nmap.adapters.sql._messages import Filing
from netmail_nmap.adapters.sql._statements import (
    BulkInsert,
    Driver,
    Statement,
    id_list,
    lock_names,
    lock_users,
    names_of,
)
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import (
    Body,
    DeliverResult,
    DeliveryOutcome,
    Envelope,
    Expansion,
    Recipient,
    Submission,
    SubmitOutcome,
    SubmitResult,
)
from netmail_nmap.domain.dsn import (
    Dsn,
    Notify,
    OriginalMessage,
    RecipientStatus,
    build_dsn,
    split_message,
)
from netmail_nmap.domain.outcomes import QueueSettings, delivered_here, moment

_DAY_MS = 86_400_000
"""How long a submission is remembered: the SMTP agent tries again within minutes. A delivery that
was handed over is remembered a day longer than it may wait in the other agent's queue."""

_INSERT_ACCEPTED = BulkInsert(
    accepted, "message_id", "recipient", "expires_at", suffix=" ON CONFLICT DO NOTHING"
)
_INSERT_MESSAGES = BulkInsert(
    queue_messages,
    "id",
    "message_id",
    "sender",
    "body_id",
    "size",
    "smtputf8",
    "body_8bit",
    "return_headers_only",
    "envelope_id",
    "messaging_server",
    "relayed_for",
    "accepted_at",
)
_INSERT_ITEMS = BulkInsert(queue_items, "id", "queue_message_id", "destination", "due_at")
_INSERT_RECIPIENTS = BulkInsert(
    queue_recipients, "item_id", "address", "notify", "original_recipient"
)
_ACCEPTED = Statement(
    sa.select(accepted.c.message_id)
    .where(accepted.c.message_id.in_(names_of("messages")))
    .distinct()
)
_ACCEPTED_FOR = Statement(
    sa.select(accepted.c.recipient).where(accepted.c.message_id == sa.bindparam("message"))
)

_NEVER, NOTIFY_SUCCESS, _FAILURE, _DELAY, _GIVEN = 1, 2, 4, 8, 16


def notify_bits(notify: Notify) -> int:
    """NOTIFY as the queue keeps it."""
    return (
        _NEVER * notify.never
        | NOTIFY_SUCCESS * notify.success
        | _FAILURE * notify.failure
        | _DELAY * notify.delay
        | _GIVEN * notify.given
    )


def notify_from(bits: int) -> Notify:
    """The other way."""
    return Notify(
        never=bool(bits & _NEVER),
        success=bool(bits & NOTIFY_SUCCESS),
        failure=bool(bits & _FAILURE),
        delay=bool(bits & _DELAY),
        given=bool(bits & _GIVEN),
    )


@dataclass(slots=True)
class _Plan:
    """What one message becomes."""

    envelope: Envelope
    body: Body
    users: dict[int, None] = field(default_factory=dict)
    queued: dict[str, Recipient] = field(default_factory=dict)
    here: list[Recipient] = field(default_factory=list)
    """Recipients that are in mailboxes here."""
    body_id: int = 0
    marks: tuple[str, ...] = ()

    def add(self, recipient: Recipient, expansion: Expansion, known: Iterable[int]) -> None:
        """One more recipient.

        Who vanished since RCPT is queued under his own address: the try to deliver it tells the
        sender.
        """
        users = [user for user in expansion.users if user in known]
        if users:
            self.users.update(dict.fromkeys(users))
            self.here.append(recipient)
        remote = expansion.remote
        if not users and not remote:
            remote = (recipient.address,)
        for address in remote:
            self.queued.setdefault(
                address, Recipient(address, recipient.notify, recipient.original_recipient)
            )


def take(
    core: Core, settings: QueueSettings, transaction: Transaction, submissions: Sequence[Submission]
) -> list[SubmitResult]:
    """Takes each message whose id is new; answers the others as if it had."""
    driver = transaction.driver
    wanted = [submission.envelope.message_id for submission in submissions]
    lock_names(driver, wanted)
    lock_users(driver, _users_of(submissions))
    seen = {row[0] for row in _ACCEPTED.rows(driver, messages=id_list(wanted))}
    inboxes = _inboxes_for(
        core, transaction, (e for submission in submissions for e in submission.expansions)
    )
    plans: list[_Plan] = []
    results: list[SubmitResult] = []
    notices: list[tuple[Submission, list[RecipientStatus]]] = []
    for submission in submissions:
        envelope = submission.envelope
        if envelope.message_id in seen:
            _drop_body(core, driver, submission.body)
            results.append(SubmitResult(SubmitOutcome.ACCEPTED))
            continue
        seen.add(envelope.message_id)
        plan = _Plan(envelope, submission.body)
        for recipient, expansion in zip(envelope.recipients, submission.expansions, strict=True):
            plan.add(recipient, expansion, inboxes)
        if not plan.users and not plan.queued:
            results.append(SubmitResult(SubmitOutcome.INVALID))
            continue
        plan.marks = tuple(f"u:{user}" for user in plan.users) or ("",)
        plans.append(plan)
        results.append(SubmitResult(SubmitOutcome.ACCEPTED, len(plan.users), len(plan.queued)))
        if statuses := delivered_here(plan.here):
            notices.append((submission, statuses))
    _write(core, transaction, plans, inboxes, core.now_ms() + _DAY_MS)
    for submission, statuses in notices:
        _notify_delivered(core, settings, transaction, submission, statuses)
    return results


def deliver(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    envelope: Envelope,
    body: Body,
    expansions: Sequence[Expansion],
) -> list[DeliverResult]:
    """Takes a message for the recipients that did not have it yet."""
    driver = transaction.driver
    lock_names(driver, [envelope.message_id])
    seen = {row[0] for row in _ACCEPTED_FOR.rows(driver, message=envelope.message_id)}
    inboxes = _inboxes_for(core, transaction, expansions)
    plan = _Plan(envelope, body)
    marks: list[str] = []
    results: list[DeliverResult] = []
    for recipient, expansion in zip(envelope.recipients, expansions, strict=True):
        mark = f"a:{recipient.address}"
        exists = any(user in inboxes for user in expansion.users)
        if mark not in seen:
            if not exists and not expansion.remote:
                results.append(
                    DeliverResult(
                        recipient.address,
                        DeliveryOutcome.FAILED,
                        "5.1.1",
                        "x-netmail; no such user here",
                    )
                )
                continue
            marks.append(mark)
            plan.add(recipient, expansion, inboxes)
        results.append(DeliverResult(recipient.address, DeliveryOutcome.DELIVERED, "2.0.0"))
    plan.users = {user: None for user in plan.users if f"u:{user}" not in seen}
    plan.marks = (*marks, *(f"u:{user}" for user in plan.users))
    expires_at = core.now_ms() + int(settings.schedule.lifetime * 1000) + _DAY_MS
    if plan.users or plan.queued:
        _write(core, transaction, [plan], inboxes, expires_at)
    else:
        _mark_accepted(driver, [plan], expires_at)
        _drop_body(core, driver, body)
    return results


def write_dsn(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    original: OriginalMessage,
    statuses: Sequence[RecipientStatus],
    sender: Expansion | None,
) -> None:
    """Writes a notification, for a mailbox here or for the queue; none for the null sender."""
    message_id = new_message_id(core)
    dsn = build_dsn(
        original,
        statuses,
        reporting_mta=settings.host_name,
        message_id=message_id,
        now=moment(core.clock()),
    )
    if dsn is None:
        return
    take(core, settings, transaction, [_dsn_submission(message_id, dsn, sender)])


def new_message_id(core: Core) -> str:
    """A queue message id; it begins with the time, so that neighbours in time are neighbours."""
    return f"{core.now_ms():012x}-{secrets.token_hex(10)}"


def _dsn_submission(message_id: str, dsn: Dsn, sender: Expansion | None) -> Submission:
    never = Notify(never=True, given=True)
    envelope = Envelope(
        message_id,
        "",
        (Recipient(dsn.recipient, never),),
        smtputf8=dsn.smtputf8,
        body_8bit=dsn.body_8bit,
    )
    return Submission(envelope, dsn.data, (sender or Expansion(remote=(dsn.recipient,)),))


def _notify_delivered(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    submission: Submission,
    statuses: Sequence[RecipientStatus],
) -> None:
    envelope = submission.envelope
    header = b""
    if isinstance(submission.body, bytes):
        header, _ = split_message(submission.body[: _bodies.MAX_HEADER])
    elif isinstance(submission.body, LargeBody):
        found = _bodies.read_header(transaction.driver, submission.body.id)
        if found is not None:
            header, _ = split_message(found[0][found[1] :])
    original = OriginalMessage(
        sender=envelope.sender,
        message_id=envelope.message_id,
        arrival=moment(core.clock()),
        header=header,
        envelope_id=envelope.envelope_id,
        smtputf8=envelope.smtputf8,
    )
    write_dsn(core, settings, transaction, original, statuses, submission.sender)


def _users_of(submissions: Iterable[Submission]) -> set[int]:
    """Whose mailboxes may change: the recipients', and the senders' whom a DSN tells."""
    return {
        user
        for submission in submissions
        for expansion in (*submission.expansions, submission.sender)
        if expansion is not None
        for user in expansion.users
    }


def _inboxes_for(
    core: Core, transaction: Transaction, expansions: Iterable[Expansion]
) -> dict[int, MailboxRow]:
    users = {user for expansion in expansions for user in expansion.users}
    return _mailboxes.inboxes(core, transaction, users) if users else {}


def _drop_body(core: Core, driver: Driver, body: Body) -> None:
    """Nobody refers to it: a large one may be swept."""
    if isinstance(body, LargeBody):
        _bodies.mark_orphans(driver, [body.id], core.now_ms())


def _write(
    core: Core,
    transaction: Transaction,
    plans: Sequence[_Plan],
    inboxes: dict[int, MailboxRow],
    expires_at: int,
) -> None:
    if not plans:
        return
    driver = transaction.driver
    new: list[NewBody] = []
    filings: list[Filing] = []
    now = core.now()
    for plan in plans:
        total = _place_body(core, driver, plan, new)
        filings += [Filing(inboxes[user].id, plan.body_id, total, 0, now) for user in plan.users]
    _bodies.insert_bodies(driver, new)
    _mark_accepted(driver, plans, expires_at)
    if filings:
        _messages.file_messages(core, transaction, filings)
    queued = [plan for plan in plans if plan.queued]
    if queued:
        _enqueue(core, driver, queued)
        transaction.events.append(QueueGrew())


def _place_body(core: Core, driver: Driver, plan: _Plan, new: list[NewBody]) -> int:
    """Gives the body an id; gives its size, the local part included."""
    body = plan.body
    if isinstance(body, bytes):
        plan.body_id = core.ids.next_body(driver)
        placed = NewBody(plan.body_id, plan.envelope.return_path if plan.users else b"", body)
        new.append(placed)
        return placed.total
    if isinstance(body, LargeBody):
        plan.body_id = body.id
        _bodies.adopt(driver, body)
        return body.total
    raise TypeError("the body is not of this store")


def _mark_accepted(driver: Driver, plans: Sequence[_Plan], expires_at: int) -> None:
    _INSERT_ACCEPTED.run(
        driver,
        [(plan.envelope.message_id, mark, expires_at) for plan in plans for mark in plan.marks],
    )


def _enqueue(core: Core, driver: Driver, plans: Sequence[_Plan]) -> None:
    rows, items, recipients = [], [], []
    now = core.now_ms()
    for plan in plans:
        envelope, body = plan.envelope, plan.body
        queue_id = core.ids.next_queue_message(driver)
        rows.append(
            (
                queue_id,
                envelope.message_id,
                envelope.sender,
                plan.body_id,
                len(body) if isinstance(body, bytes) else body.size,
                envelope.smtputf8,
                envelope.body_8bit,
                envelope.return_headers_only,
                envelope.envelope_id,
                envelope.messaging_server,
                envelope.relayed_for,
                now,
            )
        )
        by_destination: defaultdict[str, list[Recipient]] = defaultdict(list)
        for recipient in plan.queued.values():
            by_destination[recipient.domain].append(recipient)
        for destination, group in by_destination.items():
            item_id = core.ids.next_queue_item(driver)
            items.append((item_id, queue_id, destination, now))
            recipients += [
                (item_id, r.address, notify_bits(r.notify), r.original_recipient) for r in group
            ]
    _INSERT_MESSAGES.run(driver, rows)
    _INSERT_ITEMS.run(driver, items)
    _INSERT_RECIPIENTS.run(driver, recipients)
