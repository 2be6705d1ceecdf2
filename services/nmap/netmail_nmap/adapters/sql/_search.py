"""SEARCH: the engine decides by columns what it can; headers and bodies are looked at in bulk.

Each step is a read of its own, so that a long search keeps no snapshot and others get a turn.
What is decided by headers alone, of all messages, reads nothing else.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import sqlalchemy as sa

from netmail_nmap.adapters.schema import messages
from netmail_nmap.adapters.sql import _bodies, _bulk, _mailboxes
from netmail_nmap.adapters.sql._bulk import Bulk
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._flags import FlagNames
from netmail_nmap.adapters.sql._mailboxes import MailboxRow
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.adapters.sql._search_sql import condition
from netmail_nmap.adapters.sql._statements import (
    Driver,
    Statement,
    column_array,
    id_list,
    ids_of,
)
from netmail_nmap.domain.mail import SearchOutcome
from netmail_nmap.domain.search import SearchKey
from netmail_nmap.domain.search_match import (
    Candidate,
    Names,
    Needs,
    Predicate,
    compile_key,
    needs_of,
)

BODY_LIMIT = 8 * 1024 * 1024
"""Octets of a body that are searched: what is behind is an attachment."""
_HEADERS_AT_ONCE = 1_000
_BATCHES_AT_ONCE = 8
"""Of headers, in one step: going to another thread and back costs as much as a tenth of each."""
_BODIES_AT_ONCE = 1_000
_OCTETS_AT_ONCE = 2 * 1024 * 1024

_Row = tuple[int, int, int, int, int, int, int]
"""The columns below; what a Candidate begins with."""
_COLUMNS = (
    messages.c.uid,
    messages.c.modseq,
    messages.c.flags,
    messages.c.internal_date,
    messages.c.save_date,
    messages.c.size,
    messages.c.body_id,
)
_UID, _MODSEQ, _SIZE, _BODY = 0, 1, 5, 6

_BATCH_END = Statement(
    sa.select(messages.c.uid)
    .where(
        messages.c.mailbox_id == sa.bindparam("mailbox"), messages.c.uid >= sa.bindparam("first")
    )
    .order_by(messages.c.uid)
    .limit(1)
    .offset(_HEADERS_AT_ONCE - 1)
)


@dataclass(slots=True)
class _Search:
    """A search under way."""

    predicate: Predicate
    needs: Needs
    undecided: list[_Row]
    matching: list[_Row]

    def decide(self, row: _Row, header: bytes | None = None, body: bytes | None = None) -> bool:
        """Takes a match; tells whether it is still undecided."""
        answer = self.predicate(Candidate(*row, header, body))
        if answer:
            self.matching.append(row)
        return answer is None


async def search(
    core: Core, user_id: int, mailbox_id: int, key: SearchKey, uids: Sequence[int]
) -> SearchOutcome:
    """See `netmail_nmap.domain.store.MailStore.search`."""
    needs = needs_of(key)
    if needs.header and not needs.columns and not needs.body and not uids:
        return await _search_headers(core, user_id, mailbox_id, key, needs)
    found = await core.readers.run_heavy(
        functools.partial(_by_columns, core, user_id, mailbox_id, key, needs, uids)
    )
    if isinstance(found, SearchOutcome):
        return found
    if needs.header_words or not needs.body:
        rows, found.undecided = found.undecided, []
        for start in range(0, len(rows), _HEADERS_AT_ONCE):
            batch = rows[start : start + _HEADERS_AT_ONCE]
            await core.readers.run_heavy(functools.partial(_by_headers, found, batch))
    for batch in _batches(found.undecided, core.whole):
        await core.readers.run_heavy(functools.partial(_by_bodies, found, batch, core.whole))
    found.matching.sort()
    highest = max((row[_MODSEQ] for row in found.matching), default=0)
    return SearchOutcome([row[_UID] for row in found.matching], highest if needs.modseq else 0)


@dataclass(slots=True)
class _HeaderSearch:
    """A search under way that looks at every header of a mailbox and at nothing else."""

    predicate: Predicate
    needs: Needs
    mailbox_id: int
    last: int
    """UID: what comes after it was not there when the search began."""
    following: int = 1
    """UID from which on nothing was looked at yet."""
    matching: list[int] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.following > self.last

    def look(self, driver: Driver) -> None:
        """Looks at the next batches."""
        for _ in range(_BATCHES_AT_ONCE):
            if self.done:
                return
            first = self.following
            (last,) = _BATCH_END.first(driver, mailbox=self.mailbox_id, first=first) or (self.last,)
            bulk = _bulk.read_headers_by_uid(driver, self.mailbox_id, first, last)
            for index in _worth_a_look(bulk, self.needs.header_words):
                uid = bulk.ids[index]
                if self.predicate(Candidate(uid, 0, 0, 0, 0, 0, 0, bulk.octets(index))):
                    self.matching.append(uid)
            self.following = last + 1


async def _search_headers(
    core: Core, user_id: int, mailbox_id: int, key: SearchKey, needs: Needs
) -> SearchOutcome:
    def begin(snapshot: Snapshot) -> _HeaderSearch:
        row, names = _mailbox(core, snapshot.driver, user_id, mailbox_id)
        found = _HeaderSearch(compile_key(key, names), needs, row.id, row.uid_next - 1)
        found.look(snapshot.driver)
        return found

    found = await core.readers.run_heavy(begin)
    while not found.done:
        await core.readers.run_heavy(lambda snapshot: found.look(snapshot.driver))
    return SearchOutcome(sorted(found.matching), 0)


def _mailbox(core: Core, driver: Driver, user_id: int, mailbox_id: int) -> tuple[MailboxRow, Names]:
    row = _mailboxes.by_id(driver, user_id, mailbox_id)
    return row, Names(FlagNames.load(driver, row.id).mask, core.ids.message_object_id)


def _by_columns(
    core: Core,
    user_id: int,
    mailbox_id: int,
    key: SearchKey,
    needs: Needs,
    uids: Sequence[int],
    snapshot: Snapshot,
) -> SearchOutcome | _Search:
    row, names = _mailbox(core, snapshot.driver, user_id, mailbox_id)
    predicate = compile_key(key, names)
    where, exact = condition(key, names)
    query = sa.select(*_COLUMNS).where(messages.c.mailbox_id == row.id, where)
    if uids:
        query = query.where(messages.c.uid.in_(ids_of("uids")))
    rows = query.order_by(messages.c.uid).subquery()
    names_of_columns = ("uid", "modseq") if exact else _columns_for(needs)
    wanted = [rows.c[name] for name in names_of_columns]
    arrays = snapshot.connection.execute(
        sa.select(*(column_array(column) for column in wanted)),
        {"uids": id_list(uids)} if uids else {},
    ).one()
    columns = [json.loads(array) for array in arrays]
    if exact:
        return SearchOutcome(columns[0], max(columns[1], default=0) if needs.modseq else 0)
    found = _Search(predicate, needs, _rows_of(names_of_columns, columns), [])
    if not needs.header and not needs.body:
        found.undecided = [candidate for candidate in found.undecided if found.decide(candidate)]
    return found


def _columns_for(needs: Needs) -> Sequence[str]:
    """Most searches look at the header only: then the other columns are not even read."""
    if needs.columns or needs.body:
        return [column.name for column in _COLUMNS]
    return ("uid", "modseq", "body_id")


def _rows_of(names: Sequence[str], columns: Sequence[list[int]]) -> list[_Row]:
    """Rows; columns that were not read are 0."""
    read = dict(zip(names, columns, strict=True))
    size = len(columns[0])
    ordered = (read.get(column.name) or repeat(0, size) for column in _COLUMNS)
    return list(zip(*ordered, strict=True))


def _by_headers(found: _Search, batch: Sequence[_Row], snapshot: Snapshot) -> None:
    """Looks at headers; those that certainly lack the words are not even taken apart."""
    bulk = _bulk.read_headers(snapshot.driver, [row[_BODY] for row in batch])
    rows = _in_order_of(bulk.ids, batch)
    for index in _worth_a_look(bulk, found.needs.header_words):
        if found.decide(rows[index], bulk.octets(index)):
            found.undecided.append(rows[index])


def _by_bodies(found: _Search, batch: Sequence[_Row], whole: int, snapshot: Snapshot) -> None:
    driver = snapshot.driver
    if len(batch) == 1 and batch[0][_SIZE] > whole:
        found.decide(batch[0], *_load_message(driver, batch[0]))
        return
    bulk = _bulk.read_messages(driver, [row[_BODY] for row in batch])
    rows = _in_order_of(bulk.ids, batch)
    for index in _worth_a_look(bulk, found.needs.body_words):
        octets = bulk.octets(index)
        end = _bodies.header_end(octets)
        found.decide(rows[index], octets[:end], octets[end:])


def _worth_a_look(bulk: Bulk, words: Sequence[bytes | re.Pattern[bytes]]) -> Iterable[int]:
    """Indexes of what has one of the words, or something else than ASCII; no words: all."""
    if not words:
        return range(len(bulk))
    with_words = bulk.find(words)
    if not bulk.data.isascii():
        with_words |= {index for index, (_, data) in enumerate(bulk) if not data.isascii()}
    return sorted(with_words)


def _in_order_of(body_ids: Sequence[int], batch: Sequence[_Row]) -> Sequence[_Row]:
    """The rows of these bodies; as a rule it is the whole batch, unless some were removed."""
    if body_ids == [row[_BODY] for row in batch]:
        return batch
    by_body: dict[int, list[_Row]] = {}
    for row in batch:
        by_body.setdefault(row[_BODY], []).append(row)
    return [by_body[body_id].pop() for body_id in body_ids]


def _load_message(driver: Driver, row: _Row) -> tuple[bytes, bytes]:
    """Header and the beginning of the body; a message that was removed meanwhile is empty."""
    found = _bodies.read_header(driver, row[_BODY])
    header = b"" if found is None else found[0]
    end = min(row[_SIZE], len(header) + BODY_LIMIT)
    return header, b"".join(_bodies.read_range(driver, row[_BODY], len(header), end))


def _batches(rows: Sequence[_Row], whole: int) -> Iterator[list[_Row]]:
    """Messages of at most WHOLE octets together, larger ones alone."""
    batch: list[_Row] = []
    octets = 0
    for row in rows:
        large = row[_SIZE] > whole
        if batch and (large or len(batch) == _BODIES_AT_ONCE or octets > _OCTETS_AT_ONCE):
            yield batch
            batch, octets = [], 0
        if large:
            yield [row]
            continue
        batch.append(row)
        octets += row[_SIZE]
    if batch:
        yield batch
