"""Leases of queue items: which are due, fair between destinations, fenced."""

from collections import Counter, defaultdict, deque
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from netmail_nmap.adapters.schema import queue_items, queue_messages, queue_recipients
from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._delivery import notify_from
from netmail_nmap.adapters.sql._statements import Driver, Statement, id_list, ids_of, names_of
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import Envelope, LeasedItem, Recipient

DATA_LIMIT = 64 * 1024
"""Octets of a message that come along with its lease."""
_WINDOW = 500
"""Due items that are looked at, the oldest first; beyond it destinations are visited in turn."""
_ROUNDS = 4
"""How often others are chosen when other processes were quicker."""

_DUE = Statement(
    sa.select(queue_items.c.id, queue_items.c.destination)
    .where(
        queue_items.c.held == sa.false(),
        queue_items.c.due_at <= sa.bindparam("now"),
        queue_items.c.destination.not_in(names_of("busy")),
    )
    .order_by(queue_items.c.due_at)
    .limit(sa.bindparam("most"))
)
_DUE_AT_DESTINATION = Statement(
    sa.select(queue_items.c.id)
    .where(
        queue_items.c.held == sa.false(),
        queue_items.c.destination == sa.bindparam("destination"),
        queue_items.c.due_at <= sa.bindparam("now"),
    )
    .order_by(queue_items.c.due_at)
    .limit(sa.bindparam("most"))
)
_NEXT_DESTINATION = Statement(
    sa.select(queue_items.c.destination)
    .where(queue_items.c.held == sa.false(), queue_items.c.destination > sa.bindparam("after"))
    .order_by(queue_items.c.destination)
    .limit(1)
)
_STILL_DUE = Statement(
    sa.select(queue_items.c.id).where(
        queue_items.c.id.in_(ids_of("items")),
        queue_items.c.held == sa.false(),
        queue_items.c.due_at <= sa.bindparam("now"),
    ),
    locks={"skip_locked": True},
)
_LEASE = Statement(
    sa.update(queue_items)
    .where(queue_items.c.id.in_(ids_of("items")))
    .values(
        fence=queue_items.c.fence + 1,
        attempts=queue_items.c.attempts + 1,
        leased_until=sa.bindparam("until"),
        due_at=sa.bindparam("until"),
        worker=sa.bindparam("by"),
    )
)
_NEXT_DUE = Statement(
    sa.select(sa.func.min(queue_items.c.due_at)).where(queue_items.c.held == sa.false())
)
_ITEMS = Statement(
    sa.select(
        queue_items.c.id,
        queue_items.c.fence,
        queue_items.c.destination,
        queue_items.c.attempts,
        queue_messages.c.body_id,
        queue_messages.c.size,
        queue_messages.c.accepted_at,
        queue_messages.c.message_id,
        queue_messages.c.sender,
        queue_messages.c.smtputf8,
        queue_messages.c.body_8bit,
        queue_messages.c.return_headers_only,
        queue_messages.c.envelope_id,
        queue_messages.c.messaging_server,
        queue_messages.c.relayed_for,
    )
    .select_from(
        queue_items.join(queue_messages, queue_messages.c.id == queue_items.c.queue_message_id)
    )
    .where(queue_items.c.id.in_(ids_of("items")))
)
_RECIPIENTS = Statement(
    sa.select(
        queue_recipients.c.item_id,
        queue_recipients.c.address,
        queue_recipients.c.notify,
        queue_recipients.c.original_recipient,
    ).where(queue_recipients.c.item_id.in_(ids_of("items")))
)
_LEASED_BODY = Statement(
    sa.select(queue_messages.c.body_id)
    .select_from(
        queue_items.join(queue_messages, queue_messages.c.id == queue_items.c.queue_message_id)
    )
    .where(
        queue_items.c.id == sa.bindparam("item"),
        queue_items.c.fence == sa.bindparam("token"),
        queue_items.c.leased_until > 0,
    )
)


class _Item(NamedTuple):
    id: int
    fence: int
    destination: str
    attempts: int
    body_id: int
    size: int
    accepted_at: int
    message_id: str
    sender: str
    smtputf8: int
    body_8bit: int
    return_headers_only: int
    envelope_id: str
    messaging_server: str
    relayed_for: str


class Wanted(NamedTuple):
    """What a worker asks for.

    Attributes:
        limit: items at most.
        of_each: items of one destination at most.
        busy: destinations that it has no room for.
    """

    limit: int
    of_each: int
    busy: tuple[str, ...]


class Leaser:
    """Chooses items; remembers where the round of destinations stands. For the writer's thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._last_destination = ""

    def lease(
        self,
        transaction: Transaction,
        wanted: Wanted,
        seconds: float,
        worker: str,
    ) -> list[int]:
        """Leases due items; gives their ids in the order to be tried."""
        driver = transaction.driver
        now = self._core.now_ms()
        if self._core.alone:
            items = list(self._choose(driver, wanted, now, {}, ()))
        else:
            items = self._lock(driver, wanted, now)
        if items:
            _LEASE.run(driver, items=id_list(items), until=now + int(seconds * 1000), by=worker)
        return items

    def _choose(
        self,
        driver: Driver,
        wanted: Wanted,
        now: int,
        chosen: Mapping[int, str],
        but: Container[int],
    ) -> dict[int, str]:
        """Items and their destinations, beside those that are chosen already."""
        limit = wanted.limit - len(chosen)
        due = _DUE.all(driver, now=now, busy=id_list(wanted.busy), most=max(_WINDOW, limit))
        by_destination: dict[str, deque[int]] = {}
        for item_id, destination in due:
            if item_id not in but:
                by_destination.setdefault(destination, deque()).append(item_id)
        if len(due) >= _WINDOW and len(by_destination) < limit:
            self._visit_others(driver, by_destination, limit, now, set(wanted.busy))
        return _in_turn(by_destination, limit, wanted.of_each, Counter(chosen.values()))

    def _lock(self, driver: Driver, wanted: Wanted, now: int) -> list[int]:
        """Items that no other process is about to lease; others in place of the rest."""
        locked: dict[int, str] = {}
        seen: set[int] = set()
        for _ in range(_ROUNDS):
            items = self._choose(driver, wanted, now, locked, seen)
            items = {item: where for item, where in items.items() if item not in seen}
            due = {row[0] for row in _STILL_DUE.all(driver, items=id_list(items), now=now)}
            locked |= {item: where for item, where in items.items() if item in due}
            seen.update(items)
            if len(due) == len(items):
                break
        return list(locked)

    def _visit_others(
        self,
        driver: Driver,
        by_destination: dict[str, deque[int]],
        limit: int,
        now: int,
        busy: set[str],
    ) -> None:
        """A flood for one destination fills the window: the others get their turn all the same."""
        first = None
        for _ in range(2 * limit):
            found = _NEXT_DESTINATION.first(driver, after=self._last_destination)
            self._last_destination = "" if found is None else found[0]
            if self._last_destination == first:
                return
            first = first or self._last_destination
            if found is None or found[0] in by_destination or found[0] in busy:
                continue
            due = _DUE_AT_DESTINATION.all(driver, destination=found[0], now=now, most=limit)
            if due:
                by_destination[found[0]] = deque(row[0] for row in due)


def _in_turn(
    queues: Mapping[str, deque[int]], limit: int, of_each: int, taken: Counter[str]
) -> dict[int, str]:
    """One of each destination, again and again, with its destination.

    Args:
        taken: how many of each count already.
    """
    waiting = deque(queues.items())
    items: dict[int, str] = {}
    while waiting and len(items) < limit:
        destination, queue = waiting.popleft()
        if taken[destination] >= of_each:
            continue
        items[queue.popleft()] = destination
        taken[destination] += 1
        if queue:
            waiting.append((destination, queue))
    return items


def next_due(driver: Driver) -> int | None:
    """When the next item is due (ms); None: the queue is empty."""
    row = _NEXT_DUE.first(driver)
    return None if row is None else row[0]


def read_items(driver: Driver, item_ids: Sequence[int], now_ms: int) -> list[LeasedItem]:
    """The leased items with envelope and, if small, message."""
    ids = id_list(item_ids)
    recipients: defaultdict[int, list[Recipient]] = defaultdict(list)
    for item_id, address, notify, original in _RECIPIENTS.rows(driver, items=ids):
        recipients[item_id].append(Recipient(address, notify_from(notify), original))
    found = {row[0]: _Item(*row) for row in _ITEMS.rows(driver, items=ids)}
    return [
        _leased(driver, found[item_id], recipients[item_id], now_ms)
        for item_id in item_ids
        if item_id in found
    ]


def _leased(
    driver: Driver, item: _Item, recipients: Sequence[Recipient], now_ms: int
) -> LeasedItem:
    envelope = Envelope(
        item.message_id,
        item.sender,
        tuple(recipients),
        bool(item.smtputf8),
        bool(item.body_8bit),
        bool(item.return_headers_only),
        item.envelope_id,
        item.messaging_server,
        item.relayed_for,
    )
    return LeasedItem(
        item.id,
        item.fence,
        envelope,
        item.destination,
        item.attempts,
        item.size,
        max(0, now_ms - item.accepted_at) // 1000,
        read_message(driver, item.body_id) if item.size <= DATA_LIMIT else None,
    )


def read_message(driver: Driver, body_id: int) -> bytes:
    """The whole message as the queue sees it: without its local part."""
    found = _bodies.read_header(driver, body_id)
    if found is None:
        return b""
    _, local_size, total = found
    return b"".join(_bodies.read_range(driver, body_id, local_size, total))


def leased_body(driver: Driver, lease_id: int, fence: int) -> int | None:
    """The body of a leased item; None: the lease was lost."""
    row = _LEASED_BODY.first(driver, item=lease_id, token=fence)
    return None if row is None else row[0]
