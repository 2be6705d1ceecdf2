"""The queue as operators see and change it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from netmail_nmap.adapters.schema import queue_items, queue_messages, queue_recipients
from netmail_nmap.adapters.sql import _bodies, _reports
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._events import QueueGrew
from netmail_nmap.adapters.sql._reports import ITEM_COLUMNS, ITEMS_WITH_MESSAGE, QueuedItem
from netmail_nmap.adapters.sql._statements import id_list, lock_users
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import (
    Expansion,
    QueuedMessage,
    QueuedRecipient,
    QueueFilter,
    QueueState,
)
from netmail_nmap.domain.errors import QueueMessageNotFound
from netmail_nmap.domain.outcomes import QueueSettings, removed_by_operator


def list_messages(
    connection: sa.Connection, queue_filter: QueueFilter, page_size: int, after: int, now_ms: int
) -> tuple[list[QueuedMessage], int]:
    """A page of messages in the order of their arrival, and where the next begins."""
    query = (
        sa.select(queue_messages)
        .where(
            queue_messages.c.id > after,
            queue_messages.c.id.in_(_matching(queue_filter, queue_items.c.queue_message_id)),
        )
        .order_by(queue_messages.c.id)
        .limit(page_size + 1)
    )
    rows = connection.execute(query).all()
    page = rows[:page_size]
    recipients = _recipients(connection, [row.id for row in page], now_ms)
    found = [
        QueuedMessage(
            row.message_id,
            row.sender,
            row.size,
            max(0, now_ms - row.accepted_at) // 1000,
            row.relayed_for,
            tuple(recipients[row.id]),
        )
        for row in page
    ]
    return found, page[-1].id if len(rows) > page_size else 0


def get_message(
    connection: sa.Connection, message_id: str, now_ms: int
) -> tuple[QueuedMessage, bytes]:
    """A message and its header section. Raises: QueueMessageNotFound."""
    found, _ = list_messages(connection, QueueFilter(message_id=message_id), 1, 0, now_ms)
    if not found:
        raise QueueMessageNotFound
    body_id = connection.scalar(
        sa.select(queue_messages.c.body_id)
        .where(queue_messages.c.message_id == message_id)
        .order_by(queue_messages.c.id)
    )
    header = _bodies.read_header(connection.connection.driver_connection, body_id or 0)
    return found[0], b"" if header is None else header[0][header[1] :]


def make_due(core: Core, transaction: Transaction, queue_filter: QueueFilter) -> int:
    """Items that wait are due now; leases run on."""
    return _change(
        transaction,
        queue_filter,
        sa.update(queue_items).where(queue_items.c.leased_until == 0).values(due_at=core.now_ms()),
    )


def set_held(core: Core, transaction: Transaction, queue_filter: QueueFilter, held: bool) -> int:
    """Holds items, or lets them go: then they are due now."""
    update = sa.update(queue_items).where(queue_items.c.held != held).values(held=held)
    if not held:
        update = update.values(
            due_at=sa.case(
                (queue_items.c.leased_until > 0, queue_items.c.due_at), else_=core.now_ms()
            )
        )
    return _change(transaction, queue_filter, update)


def bounced_senders(connection: sa.Connection, queue_filter: QueueFilter) -> list[str]:
    """Senders of what the filter names."""
    query = (
        sa.select(queue_messages.c.sender)
        .select_from(ITEMS_WITH_MESSAGE)
        .where(queue_items.c.id.in_(_matching(queue_filter)), queue_messages.c.sender != "")
        .distinct()
    )
    return list(connection.scalars(query))


def remove(
    core: Core,
    settings: QueueSettings,
    transaction: Transaction,
    queue_filter: QueueFilter,
    *,
    bounce: bool,
    senders: Mapping[str, Expansion],
) -> int:
    """Removes items; who has leased one will find the lease lost."""
    query = (
        sa.select(*ITEM_COLUMNS)
        .select_from(ITEMS_WITH_MESSAGE)
        .where(queue_items.c.id.in_(_matching(queue_filter)))
        .order_by(queue_messages.c.id, queue_items.c.id)
        .with_for_update()
    )
    items = [QueuedItem(*tuple(row)) for row in transaction.connection.execute(query)]
    if bounce:
        lock_users(
            transaction.driver, {user for sender in senders.values() for user in sender.users}
        )
        recipients = _reports.read_recipients(
            transaction.driver, id_list(item.id for item in items)
        )
        for item in items:
            statuses = removed_by_operator([tried.recipient for tried in recipients[item.id]])
            if statuses and item.sender:
                _reports.tell(core, settings, transaction, item, statuses, senders.get(item.sender))
    _reports.remove_items(core, transaction.driver, items)
    return len(items)


def _matching(
    queue_filter: QueueFilter, column: sa.Column[int] = queue_items.c.id
) -> sa.Select[Any]:
    query = sa.select(column).select_from(ITEMS_WITH_MESSAGE)
    if queue_filter.message_id:
        query = query.where(queue_messages.c.message_id == queue_filter.message_id)
    if queue_filter.destination:
        query = query.where(queue_items.c.destination == queue_filter.destination.lower())
    if queue_filter.sender:
        query = query.where(queue_messages.c.sender == queue_filter.sender)
    return query


def _change(transaction: Transaction, queue_filter: QueueFilter, update: sa.Update) -> int:
    result = transaction.connection.execute(
        update.where(queue_items.c.id.in_(_matching(queue_filter)))
    )
    transaction.events.append(QueueGrew())
    return result.rowcount


def _recipients(
    connection: sa.Connection, message_ids: Sequence[int], now_ms: int
) -> defaultdict[int, list[QueuedRecipient]]:
    query = (
        sa.select(
            queue_items.c.queue_message_id,
            queue_items.c.destination,
            queue_items.c.held,
            queue_items.c.leased_until,
            queue_items.c.due_at,
            queue_items.c.attempts,
            queue_recipients.c.address,
            queue_recipients.c.last_status,
            queue_recipients.c.last_diagnostic,
        )
        .select_from(
            queue_items.join(queue_recipients, queue_recipients.c.item_id == queue_items.c.id)
        )
        .where(queue_items.c.queue_message_id.in_(message_ids))
        .order_by(queue_items.c.id, queue_recipients.c.address)
    )
    found: defaultdict[int, list[QueuedRecipient]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.queue_message_id].append(
            QueuedRecipient(
                row.address,
                row.destination,
                _state(row, now_ms),
                row.attempts,
                max(0, row.due_at - now_ms + 999) // 1000,
                row.last_status,
                row.last_diagnostic,
            )
        )
    return found


def _state(row: Any, now_ms: int) -> QueueState:
    if row.held:
        return QueueState.HELD
    if row.leased_until > now_ms:
        return QueueState.LEASED
    return QueueState.READY if row.due_at <= now_ms else QueueState.DEFERRED
