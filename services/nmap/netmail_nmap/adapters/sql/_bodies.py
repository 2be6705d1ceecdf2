"""Bodies: a message's octets, once, however many refer to them.

The header section has a row of its own, so that header FETCH and SEARCH read nothing else; what
follows is in chunks of 256 KiB. Nothing counts references: who drops one marks the body, and the
sweeper removes marked bodies that nobody refers to.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import false, true

from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.schema import bodies, body_chunks, messages, orphans, queue_messages
from netmail_nmap.adapters.sql._statements import (
    BulkInsert,
    Driver,
    Statement,
    id_list,
    ids_of,
)
from netmail_nmap.domain.errors import StoreUnavailable

CHUNK = 256 * 1024
MAX_HEADER = 128 * 1024
"""A header section that is longer is cut here for header FETCH and SEARCH; no octet is lost."""
CHUNK_BITS = 16
NOT_YET = 2**62
"""When an upload's orphan mark is due: at the next start, unless it ends before."""
UPLOAD_GRACE_MS = 3_600_000
"""The same where other processes start meanwhile: so long after its last piece."""

OBJECTS_AGAIN_MS = 60_000
"""When objects that could not be removed are looked at again."""

_INSERT = BulkInsert(bodies, "id", "size", "local_size", "header")
_INSERT_LARGE = BulkInsert(bodies, "id", "size", "local_size", "header", "elsewhere")
_INSERT_CHUNKS = BulkInsert(body_chunks, "id", "data")
_SET_SIZE = Statement(
    sa.update(bodies).where(bodies.c.id == sa.bindparam("body")).values(size=sa.bindparam("octets"))
)
_HEADER = Statement(
    sa.select(bodies.c.header, bodies.c.local_size, bodies.c.size, bodies.c.elsewhere).where(
        bodies.c.id == sa.bindparam("body")
    )
)
_CHUNKS = Statement(
    sa.select(body_chunks.c.data)
    .where(body_chunks.c.id.between(sa.bindparam("first"), sa.bindparam("last")))
    .order_by(body_chunks.c.id)
)
_DELETE_CHUNKS = Statement(
    sa.delete(body_chunks).where(
        body_chunks.c.id.between(sa.bindparam("first"), sa.bindparam("last"))
    )
)
_DELETE_BODY = Statement(sa.delete(bodies).where(bodies.c.id == sa.bindparam("body")))
_MARK = BulkInsert(
    orphans,
    "body_id",
    "due_at",
    suffix=" ON CONFLICT (body_id) DO UPDATE SET due_at = excluded.due_at",
)
_UNMARK = Statement(sa.delete(orphans).where(orphans.c.body_id.in_(ids_of("bodies"))))
_ALL_DUE = Statement(sa.update(orphans).values(due_at=0))
_DUE = Statement(
    sa.select(
        orphans.c.body_id,
        sa.func.coalesce(bodies.c.size, 0),
        sa.exists().where(messages.c.body_id == orphans.c.body_id)
        | sa.exists().where(queue_messages.c.body_id == orphans.c.body_id),
        sa.func.coalesce(bodies.c.elsewhere, true()),
    )
    .select_from(orphans.outerjoin(bodies, bodies.c.id == orphans.c.body_id))
    .where(orphans.c.due_at <= sa.bindparam("now"))
    .order_by(orphans.c.due_at)
    .limit(sa.bindparam("most")),
    locks={"of": orphans, "skip_locked": True},
)
_REMOVE_QUEUED = Statement(
    sa.delete(bodies)
    .where(
        bodies.c.id.in_(ids_of("bodies")),
        bodies.c.local_size == 0,
        bodies.c.size <= CHUNK,
        bodies.c.elsewhere == false(),
        ~sa.exists().where(messages.c.body_id == bodies.c.id),
        ~sa.exists().where(queue_messages.c.body_id == bodies.c.id),
    )
    .returning(bodies.c.id)
)
_DELETE_FIRST_CHUNKS = Statement(
    sa.delete(body_chunks).where(body_chunks.c.id.in_(ids_of("chunks")))
)
_KNOWN = Statement(
    sa.union_all(
        sa.select(bodies.c.id).where(bodies.c.id.in_(ids_of("bodies"))),
        sa.select(orphans.c.body_id).where(orphans.c.body_id.in_(ids_of("bodies"))),
    )
)
_NEXT_DUE = Statement(sa.select(sa.func.min(orphans.c.due_at)))


@dataclass(frozen=True, slots=True)
class LargeBody:
    """A body whose chunks are in the store, marked as an orphan until somebody refers to it."""

    id: int
    total: int
    """Octets, the local part included."""
    local_size: int

    @property
    def size(self) -> int:
        """Octets, the local part not counted."""
        return self.total - self.local_size


@dataclass(frozen=True, slots=True)
class NewBody:
    """A small body to be inserted."""

    id: int
    local_prefix: bytes
    data: bytes

    @property
    def total(self) -> int:
        """Octets, the local part included."""
        return len(self.local_prefix) + len(self.data)


def header_end(data: bytes) -> int:
    """Where the header section ends, its empty line included (RFC 5322 2.1).

    Without an empty line everything is header, up to MAX_HEADER.
    """
    if data.startswith(b"\r\n"):
        return 2
    end = data.find(b"\r\n\r\n", 0, MAX_HEADER)
    return end + 4 if end >= 0 else min(len(data), MAX_HEADER)


def chunk_id(body_id: int, index: int) -> int:
    """The key of a chunk."""
    return body_id << CHUNK_BITS | index


def insert_bodies(driver: Driver, new: Sequence[NewBody]) -> None:
    """Inserts small bodies, all with two statements."""
    rows, chunks = [], []
    for body in new:
        data = body.data
        end = header_end(data)
        rows.append((body.id, body.total, len(body.local_prefix), body.local_prefix + data[:end]))
        for index, start in enumerate(range(end, len(data), CHUNK)):
            chunks.append((chunk_id(body.id, index), data[start : start + CHUNK]))
    _INSERT.run(driver, rows)
    _INSERT_CHUNKS.run(driver, chunks)


def begin_large(
    driver: Driver,
    body_id: int,
    local_size: int,
    header: bytes,
    due_at: int,
    *,
    elsewhere: bool = False,
) -> None:
    """Inserts the header of an upload; until it is adopted it is an orphan."""
    _INSERT_LARGE.run(driver, [(body_id, 0, local_size, header, elsewhere)])
    _MARK.run(driver, [(body_id, due_at)])


def insert_chunks(driver: Driver, chunks: Sequence[tuple[int, bytes]]) -> None:
    """Inserts chunks of an upload: (chunk id, octets)."""
    _INSERT_CHUNKS.run(driver, chunks)


def adopt(driver: Driver, body: LargeBody) -> None:
    """An upload gets its size and loses its orphan mark: somebody refers to it now.

    Raises: StoreUnavailable when it took so long that it was swept.
    """
    if _SET_SIZE.run(driver, body=body.id, octets=body.total) == 0:
        raise StoreUnavailable
    _UNMARK.run(driver, bodies=id_list([body.id]))


def mark_orphans(driver: Driver, body_ids: Iterable[int], due_at: int) -> None:
    """These bodies lost a reference; the sweeper looks at them at DUE_AT (ms)."""
    _MARK.run(driver, [(body_id, due_at) for body_id in sorted(set(body_ids))])


def all_orphans_due(driver: Driver) -> None:
    """At a start: no upload is under way, nobody is reading."""
    _ALL_DUE.run(driver)


class Swept(NamedTuple):
    """What a sweep has done."""

    looked_at: int
    """Bodies."""
    elsewhere: list[int]
    """Bodies whose rows are gone, and whose objects may go after the commit; they stay marked."""


def sweep(
    driver: Driver, now_ms: int, most: int, most_octets: int, *, with_objects: bool = False
) -> Swept:
    """Removes marked bodies that nobody refers to.

    Looks at MOST of them, and stops when MOST_OCTETS are reached: the writer has other work.

    Args:
        with_objects: some are in an object store.
    """
    looked_at, gone = [], []
    for body_id, size, referred_to, elsewhere in _DUE.all(driver, now=now_ms, most=most):
        looked_at.append(body_id)
        if referred_to:
            continue
        if elsewhere and with_objects:
            gone.append(body_id)
            _DELETE_BODY.run(driver, body=body_id)
            continue
        _DELETE_CHUNKS.run(driver, first=chunk_id(body_id, 0), last=chunk_id(body_id + 1, 0) - 1)
        _DELETE_BODY.run(driver, body=body_id)
        most_octets -= size
        if most_octets <= 0:
            break
    unmark(driver, set(looked_at) - set(gone))
    mark_orphans(driver, gone, now_ms + OBJECTS_AGAIN_MS)
    return Swept(len(looked_at), gone)


def unmark(driver: Driver, body_ids: Iterable[int]) -> None:
    """There is nothing to be done for these any more."""
    _UNMARK.run(driver, bodies=id_list(body_ids))


def unknown(driver: Driver, body_ids: Iterable[int]) -> set[int]:
    """Those of which the database knows nothing, not even that they are to be removed."""
    wanted = set(body_ids)
    return wanted - {row[0] for row in _KNOWN.all(driver, bodies=id_list(wanted))}


def remove_queued(driver: Driver, body_ids: Iterable[int], due_at: int) -> None:
    """Bodies whose message left the queue go at once if they are small and were only there.

    The others are marked: one statement each for most messages instead of a mark and a sweep.
    """
    gone = {row[0] for row in _REMOVE_QUEUED.all(driver, bodies=id_list(body_ids))}
    _DELETE_FIRST_CHUNKS.run(driver, chunks=id_list(chunk_id(body_id, 0) for body_id in gone))
    mark_orphans(driver, set(body_ids) - gone, due_at)


def next_due(driver: Driver) -> int | None:
    """When the next orphan is due (ms)."""
    row = _NEXT_DUE.first(driver)
    return None if row is None else row[0]


def read_header(driver: Driver, body_id: int) -> tuple[bytes, int, int] | None:
    """Gives the header section (the local part included), the local part's size, the total."""
    row = _HEADER.first(driver, body=body_id)
    return None if row is None else (row[0], row[1], row[2])


def read_range(driver: Driver, body_id: int, start: int, end: int) -> Iterator[bytes]:
    """Gives octets START to END of the whole message, local part included, chunk by chunk.

    Fewer come when the body is not there (any more).
    """
    row = _HEADER.first(driver, body=body_id)
    if row is None or start >= end:
        return
    header, _, _, elsewhere = row
    if start < len(header):
        yield header[start:end]
    position = len(header)
    if end <= position:
        return
    if elsewhere:
        yield from _objects_of(driver).read(body_id, max(0, start - position), end - position)
        return
    first = max(0, start - position) // CHUNK
    last = (end - position - 1) // CHUNK
    position += first * CHUNK
    for (data,) in _CHUNKS.rows(
        driver, first=chunk_id(body_id, first), last=chunk_id(body_id, last)
    ):
        yield data[max(0, start - position) : end - position]
        position += len(data)


def _objects_of(driver: Driver) -> BodyObjects:
    """Raises: StoreUnavailable."""
    objects: BodyObjects | None = getattr(driver, "objects", None)
    if objects is None:
        raise StoreUnavailable
    return objects
