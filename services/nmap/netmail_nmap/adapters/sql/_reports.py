"""Outcomes of leased items: who leaves the queue, who waits, who is told. One writer operation."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from netmail_nmap.adapters.schema import queue_items, queue_messages, queue_recipients
from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._delivery import NOTIFY_SUCCESS, notify_from, write_dsn
from netmail_nmap.adapters.sql._events import QueueGrew
from netmail_nmap.adapters.sql._leases import read_message
from netmail_nmap.adapters.sql._statements import Driver, Statement, id_list, ids_of, lock_users
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Expansion,
    ItemReport,
    Recipient,
)
from netmail_nmap.domain.dsn import (
    DsnAction,
    OriginalMessage,
    RecipientStatus,
    returns_body,
    split_message,
)
from netmail_nmap.domain.outcomes import (
    Decision,
    QueueSettings,
    TriedItem,
    TriedRecipient,
    decide,
    moment,
)


class QueuedItem(NamedTuple):
    """An item with its message."""

    id: int
    queue_message_id: int
    fence: int
    leased_until: int
    attempts: int
    delay_warned: int
    body_id: int
    size: int
    accepted_at: int
    message_id: str
    sender: str
    return_headers_only: int
    envelope_id: str
    smtputf8: int


ITEM_COLUMNS = (
    queue_items.c.id,
    queue_items.c.queue_message_id,
    queue_items.c.fence,
    queue_items.c.leased_until,
    queue_items.c.attempts,
    queue_items.c.delay_warned,
    queue_messages.c.body_id,
    queue_messages.c.size,
    queue_messages.c.accepted_at,
    queue_messages.c.message_id,
    queue_messages.c.sender,
    queue_messages.c.return_headers_only,
    queue_messages.c.envelope_id,
    queue_messages.c.smtputf8,
)
ITEMS_WITH_MESSAGE = queue_items.join(
    queue_messages, queue_messages.c.id == queue_items.c.queue_message_id
)
_ITEMS = Statement(
    sa.select(*ITEM_COLUMNS)
    .select_from(ITEMS_WITH_MESSAGE)
    .where(queue_items.c.id.in_(ids_of("items"))),
    on_postgresql=sa.select(*ITEM_COLUMNS)
    .select_from(ITEMS_WITH_MESSAGE)
    .where(queue_items.c.id.in_(ids_of("items")))
    .order_by(queue_messages.c.id, queue_items.c.id),
    # The messages too: who removes the last item of one removes it.
    locks={},
)
_RECIPIENTS = Statement(
    sa.select(
        queue_recipients.c.item_id,
        queue_recipients.c.address,
        queue_recipients.c.notify,
        queue_recipients.c.original_recipient,
        queue_recipients.c.last_status,
        queue_recipients.c.last_diagnostic,
        queue_recipients.c.last_remote_mta,
    ).where(queue_recipients.c.item_id.in_(ids_of("items")))
)
_SENDERS = Statement(
    sa.select(queue_messages.c.sender)
    .select_from(ITEMS_WITH_MESSAGE)
    .where(queue_items.c.id.in_(ids_of("items")), queue_messages.c.sender != "")
    .distinct()
)
_SUCCESS_SENDERS = Statement(
    sa.select(queue_messages.c.sender)
    .select_from(ITEMS_WITH_MESSAGE)
    .where(
        queue_items.c.id.in_(ids_of("items")),
        queue_messages.c.sender != "",
        sa.exists().where(
            queue_recipients.c.item_id == queue_items.c.id,
            queue_recipients.c.notify.op("&")(NOTIFY_SUCCESS) != 0,
        ),
    )
    .distinct()
)
_GIVE_BACK = Statement(
    sa.update(queue_items)
    .where(queue_items.c.id == sa.bindparam("item"))
    .values(
        attempts=queue_items.c.attempts - 1,
        leased_until=0,
        worker="",
        due_at=sa.bindparam("due"),
    )
)
_DEFER = Statement(
    sa.update(queue_items)
    .where(queue_items.c.id == sa.bindparam("item"))
    .values(
        leased_until=0,
        worker="",
        due_at=sa.bindparam("due"),
        delay_warned=sa.bindparam("warned"),
    )
)
_SAID = Statement(
    sa.update(queue_recipients)
    .where(
        queue_recipients.c.item_id == sa.bindparam("item"),
        queue_recipients.c.address == sa.bindparam("rcpt"),
    )
    .values(
        last_status=sa.bindparam("status"),
        last_diagnostic=sa.bindparam("diagnostic"),
        last_remote_mta=sa.bindparam("mta"),
    )
)
_DELETE_RECIPIENT = Statement(
    sa.delete(queue_recipients).where(
        queue_recipients.c.item_id == sa.bindparam("item"),
        queue_recipients.c.address == sa.bindparam("rcpt"),
    )
)
_DELETE_RECIPIENTS = Statement(
    sa.delete(queue_recipients).where(queue_recipients.c.item_id.in_(ids_of("items")))
)
_DELETE_ITEMS = Statement(sa.delete(queue_items).where(queue_items.c.id.in_(ids_of("items"))))
_EMPTY = Statement(
    sa.select(queue_messages.c.id, queue_messages.c.body_id).where(
        queue_messages.c.id.in_(ids_of("messages")),
        ~sa.exists().where(queue_items.c.queue_message_id == queue_messages.c.id),
    )
)
_DELETE_MESSAGES = Statement(
    sa.delete(queue_messages).where(queue_messages.c.id.in_(ids_of("messages")))
)


def senders_of(driver: Driver, reports: Sequence[ItemReport]) -> list[str]:
    """Senders that a report may concern; of what is delivered only those who asked for it."""
    all_delivered: list[int] = []
    others: list[int] = []
    for report in reports:
        if not report.untried:
            delivered = all(r.outcome is DeliveryOutcome.DELIVERED for r in report.recipients)
            (all_delivered if delivered else others).append(report.lease_id)
    senders = {row[0] for row in _SENDERS.rows(driver, items=id_list(others))} if others else set()
    if all_delivered:
        senders |= {row[0] for row in _SUCCESS_SENDERS.rows(driver, items=id_list(all_delivered))}
    return sorted(senders)


def apply(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    batches: Sequence[tuple[Sequence[ItemReport], Mapping[str, Expansion]]],
) -> list[list[bool]]:
    """Applies the reports of several callers; tells of each whether its lease still held."""
    driver = transaction.driver
    ids = id_list([report.lease_id for reports, _ in batches for report in reports])
    items = {row[0]: QueuedItem(*row) for row in _ITEMS.rows(driver, items=ids)}
    lock_users(
        driver,
        {user for _, senders in batches for sender in senders.values() for user in sender.users},
    )
    recipients = read_recipients(driver, ids)
    finished: list[QueuedItem] = []
    answers: list[list[bool]] = []
    for reports, senders in batches:
        answers.append([])
        for report in reports:
            item = items.get(report.lease_id)
            held = item is not None and item.fence == report.fence and item.leased_until > 0
            answers[-1].append(held)
            if item is None or not held:
                continue
            # One answer for each lease, even if a report comes twice in a call.
            del items[report.lease_id]
            if report.untried:
                _GIVE_BACK.run(driver, item=item.id, due=core.now_ms())
                transaction.events.append(QueueGrew())
                continue
            decision = decide(_tried(item, recipients[item.id]), report, settings, core.clock())
            if decision.tell and item.sender:
                tell(core, settings, transaction, item, decision.tell, senders.get(item.sender))
            if decision.waiting:
                _keep(core, driver, item, decision)
                transaction.events.append(QueueGrew())
            else:
                finished.append(item)
    remove_items(core, driver, finished)
    return answers


def read_recipients(driver: Driver, ids: str) -> defaultdict[int, list[TriedRecipient]]:
    """The recipients of items by item."""
    found: defaultdict[int, list[TriedRecipient]] = defaultdict(list)
    for item_id, address, notify, original, *last in _RECIPIENTS.rows(driver, items=ids):
        found[item_id].append(
            TriedRecipient(Recipient(address, notify_from(notify), original), *last)
        )
    return found


def remove_items(core: Core, driver: Driver, items: Iterable[QueuedItem]) -> None:
    """Items leave the queue; so do messages without items, and their bodies."""
    gone = list(items)
    if not gone:
        return
    ids = id_list(item.id for item in gone)
    _DELETE_RECIPIENTS.run(driver, items=ids)
    _DELETE_ITEMS.run(driver, items=ids)
    empty = _EMPTY.all(driver, messages=id_list({item.queue_message_id for item in gone}))
    if empty:
        _DELETE_MESSAGES.run(driver, messages=id_list(row[0] for row in empty))
        _bodies.remove_queued(driver, {row[1] for row in empty}, core.now_ms())


def tell(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    item: QueuedItem,
    statuses: Sequence[RecipientStatus],
    sender: Expansion | None,
) -> None:
    """Writes the DSN about an item."""
    driver = transaction.driver
    failed = any(status.action is DsnAction.FAILED for status in statuses)
    whole = failed and returns_body(
        DsnAction.FAILED,
        return_headers_only=bool(item.return_headers_only),
        size=item.size,
    )
    header, body = b"", None
    if whole:
        header, body = split_message(read_message(driver, item.body_id))
    else:
        found = _bodies.read_header(driver, item.body_id)
        if found is not None:
            header, _ = split_message(found[0][found[1] :])
    original = OriginalMessage(
        sender=item.sender,
        message_id=item.message_id,
        arrival=moment(item.accepted_at / 1000),
        header=header,
        body=body,
        envelope_id=item.envelope_id,
        smtputf8=bool(item.smtputf8),
    )
    write_dsn(core, settings, transaction, original, statuses, sender)


def _tried(item: QueuedItem, recipients: Sequence[TriedRecipient]) -> TriedItem:
    return TriedItem(
        item.attempts, bool(item.delay_warned), item.accepted_at / 1000, tuple(recipients)
    )


def _keep(core: Core, driver: Driver, item: QueuedItem, decision: Decision) -> None:
    for address in decision.done:
        _DELETE_RECIPIENT.run(driver, item=item.id, rcpt=address)
    for said in decision.waiting:
        if said.outcome is DeliveryOutcome.DEFERRED:
            _SAID.run(
                driver,
                item=item.id,
                rcpt=said.address,
                status=said.status,
                diagnostic=said.diagnostic,
                mta=said.remote_mta,
            )
    _DEFER.run(
        driver,
        item=item.id,
        due=core.now_ms() + int(decision.delay * 1000),
        warned=decision.warned,
    )
