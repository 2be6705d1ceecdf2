"""FETCH: data of many messages, in batches that are read independently of each other."""

import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import sqlalchemy as sa

from netmail_nmap.adapters.schema import bodies, body_chunks, messages
from netmail_nmap.adapters.sql import _bodies, _bulk, _changes, _mailboxes
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._flags import FlagNames
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.adapters.sql._statements import Driver, Statement, column_array, id_list, ids_of
from netmail_nmap.domain.errors import MessageGone
from netmail_nmap.domain.mail import FetchedMessage, FetchRequest, StoreMode, StoreRequest

_BATCH_OCTETS = 512 * 1024
_BATCH_MESSAGES = 500
_HEADER_ESTIMATE = 2_048
_PART = 1024 * 1024
"""Octets of one part of a large message."""

_COLUMNS = (
    messages.c.uid,
    messages.c.modseq,
    messages.c.flags,
    messages.c.internal_date,
    messages.c.save_date,
    messages.c.size,
    messages.c.body_id,
)


def _metas(condition: sa.ColumnElement[bool]) -> Statement:
    """Columns as arrays, in one row: see `_messages`."""
    rows = (
        sa.select(*_COLUMNS)
        .where(
            messages.c.mailbox_id == sa.bindparam("mailbox"),
            condition,
            messages.c.modseq > sa.bindparam("since"),
        )
        .order_by(messages.c.uid)
        .subquery()
    )
    return Statement(sa.select(*(column_array(column) for column in rows.c)))


_META = _metas(messages.c.uid.between(sa.bindparam("first"), sa.bindparam("last")))
_META_SOME = _metas(messages.c.uid.in_(ids_of("uids")))
_SMALL = Statement(
    sa.select(bodies.c.id, bodies.c.header, body_chunks.c.data)
    .select_from(
        bodies.outerjoin(body_chunks, body_chunks.c.id == bodies.c.id * (1 << _bodies.CHUNK_BITS))
    )
    .where(bodies.c.id.in_(ids_of("bodies")))
)


class _Meta(NamedTuple):
    uid: int
    modseq: int
    flags: int
    internal_date: int
    save_date: int
    size: int
    body_id: int


async def fetch(core: Core, request: FetchRequest) -> AsyncIterator[Sequence[FetchedMessage]]:
    """See `netmail_nmap.domain.store.MailStore.fetch`."""
    if not request.uids:
        return
    if request.set_seen:
        seen = StoreRequest(
            request.user_id, request.mailbox_id, request.uids, StoreMode.ADD, ("\\Seen",)
        )
        await core.writer.run(functools.partial(_changes.store_flags, core, request=seen))
    reader = _Reader(core, request)
    batches, first = await core.readers.run(reader.begin)
    if first is not None:
        yield first
    for batch in batches:
        if reader.is_large(batch):
            async for part in _large(core, request, batch[0], reader.describe):
                yield [part]
        elif request.body or request.header:
            yield await core.readers.run(functools.partial(reader.read, batch))
        else:
            yield [reader.describe(meta, b"", b"", False) for meta in batch]


_Describe = Callable[[_Meta, bytes, bytes, bool], FetchedMessage]


def _read_metas(snapshot: Snapshot, request: FetchRequest) -> tuple[list[_Meta], FlagNames]:
    driver = snapshot.driver
    row = _mailboxes.by_id(driver, request.user_id, request.mailbox_id)
    uids = request.uids
    since, span = request.changed_since, uids[-1] - uids[0] + 1
    if len(uids) * 2 > span:
        arrays = _META.first(driver, mailbox=row.id, first=uids[0], last=uids[-1], since=since)
    else:
        arrays = _META_SOME.first(driver, mailbox=row.id, uids=id_list(uids), since=since)
    metas = list(map(_Meta, *(json.loads(array) for array in arrays or ())))
    if len(uids) < span < len(uids) * 2:
        wanted = set(uids)
        metas = [meta for meta in metas if meta.uid in wanted]
    return metas, FlagNames.load(driver, row.id)


def _batches(metas: Sequence[_Meta], request: FetchRequest) -> Iterator[list[_Meta]]:
    """Batches of bounded size; a large message whose body is wanted is alone."""
    most = _BATCH_MESSAGES if request.body or request.header else 10 * _BATCH_MESSAGES
    batch: list[_Meta] = []
    octets = 0
    for meta in metas:
        weight = meta.size if request.body else _HEADER_ESTIMATE if request.header else 0
        if batch and (len(batch) == most or octets + weight > _BATCH_OCTETS):
            yield batch
            batch, octets = [], 0
        batch.append(meta)
        octets += weight
    if batch:
        yield batch


class _Reader:
    """Reads the messages of one request, batch by batch."""

    def __init__(self, core: Core, request: FetchRequest) -> None:
        self._core = core
        self._request = request
        self._names = FlagNames({})

    def begin(
        self, snapshot: Snapshot
    ) -> tuple[Iterator[list[_Meta]], list[FetchedMessage] | None]:
        """Finds the messages, and reads the first batch along with it: often it is the only one."""
        request = self._request
        metas, self._names = _read_metas(snapshot, request)
        batches = _batches(metas, request)
        if not request.body and not request.header:
            return batches, None
        first = next(batches, None)
        if first is None:
            return iter(()), None
        if self.is_large(first):
            return chain([first], batches), None
        return batches, self.read(first, snapshot)

    def is_large(self, batch: Sequence[_Meta]) -> bool:
        """Whether it is one message that has to be read in parts."""
        return self._request.body and batch[0].size > _BATCH_OCTETS

    def describe(self, meta: _Meta, header: bytes, body: bytes, more: bool) -> FetchedMessage:
        """What was asked for of one message."""
        request = self._request
        return FetchedMessage(
            meta.uid,
            header,
            body,
            more,
            self._names.text(meta.flags) if request.flags else "",
            meta.size if request.size else 0,
            meta.internal_date if request.internal_date else 0,
            meta.modseq if request.modseq else 0,
            self._core.ids.message_object_id(meta.body_id) if request.object_id else "",
            meta.save_date if request.save_date else 0,
        )

    def read(self, batch: Sequence[_Meta], snapshot: Snapshot) -> list[FetchedMessage]:
        """A batch of messages; those that were removed meanwhile are left out."""
        driver = snapshot.driver
        if self._request.body:
            return self._read_bodies(driver, batch)
        headers = dict(_bulk.read_headers(driver, {meta.body_id for meta in batch}))
        return [
            self.describe(meta, header, b"", False)
            for meta in batch
            if (header := headers.get(meta.body_id)) is not None
        ]

    def _read_bodies(self, driver: Driver, batch: Sequence[_Meta]) -> list[FetchedMessage]:
        request = self._request
        body_ids = id_list({meta.body_id for meta in batch})
        wholes = {
            body_id: (header, data or b"")
            for body_id, header, data in _SMALL.rows(driver, bodies=body_ids)
        }
        fetched = []
        for meta in batch:
            if meta.body_id not in wholes:
                continue
            header, data = wholes[meta.body_id]
            if len(header) + len(data) < meta.size:
                body = b"".join(_bodies.read_range(driver, meta.body_id, 0, meta.size))
            else:
                body = header + data
            if request.body_offset or request.body_length:
                start, end = _range(request, meta)
                body = body[start:end]
            fetched.append(self.describe(meta, header if request.header else b"", body, False))
        return fetched


def _range(request: FetchRequest, meta: _Meta) -> tuple[int, int]:
    start = min(request.body_offset, meta.size)
    if request.body_length:
        return start, min(start + request.body_length, meta.size)
    return start, meta.size


async def _large(
    core: Core, request: FetchRequest, meta: _Meta, describe: _Describe
) -> AsyncIterator[FetchedMessage]:
    """A large message in parts; no more than one part is in memory."""
    start, end = _range(request, meta)
    header = b""
    if request.header:
        found = await core.readers.run(
            lambda snapshot: _bodies.read_header(snapshot.driver, meta.body_id)
        )
        if found is None:
            raise MessageGone
        header = found[0]
    position = start
    while True:
        stop = min(end, position + _PART)
        data = await core.readers.run(_range_reader(meta.body_id, position, stop))
        if len(data) != stop - position:
            raise MessageGone
        more = stop < end
        if position == start:
            yield describe(meta, header, data, more)
        else:
            yield FetchedMessage(meta.uid, body=data, more=more)
        if not more:
            return
        position = stop


def _range_reader(body_id: int, start: int, end: int) -> Callable[[Snapshot], bytes]:
    def read(snapshot: Snapshot) -> bytes:
        driver: Driver = snapshot.driver
        return b"".join(_bodies.read_range(driver, body_id, start, end))

    return read
