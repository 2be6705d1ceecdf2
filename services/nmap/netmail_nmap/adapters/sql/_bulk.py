"""Many headers, or many small messages, read in one step.

A row for each message would give up and take back the GIL each time. The engine joins them into
one blob instead, which also lets SEARCH look through all of them at once.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

import sqlalchemy as sa

from netmail_nmap.adapters.schema import bodies, body_chunks
from netmail_nmap.adapters.sql._bodies import CHUNK_BITS
from netmail_nmap.adapters.sql._statements import (
    Driver,
    Statement,
    column_array,
    empty_octets,
    id_list,
    id_table,
    joined_octets,
)


def _joined(octets: sa.ColumnElement[bytes], tables: sa.FromClause) -> Statement:
    """Ids, lengths and the octets themselves, in one order, as a rule that of the ids asked for.

    Asking for that order would make the engine sort, and copy, all octets.
    """
    wanted = id_table("bodies")
    rows = (
        sa.select(bodies.c.id, octets.label("octets"))
        .select_from(wanted.join(tables, bodies.c.id == wanted.c.value))
        .subquery()
    )
    return Statement(
        sa.select(
            column_array(rows.c.id),
            column_array(sa.func.length(rows.c.octets)),
            joined_octets(rows.c.octets),
        )
    )


_HEADERS = _joined(bodies.c.header, bodies)
_MESSAGES = _joined(
    sa.cast(
        bodies.c.header.op("||")(sa.func.coalesce(body_chunks.c.data, empty_octets())),
        sa.LargeBinary,
    ),
    bodies.outerjoin(body_chunks, body_chunks.c.id == bodies.c.id * (1 << CHUNK_BITS)),
)


class Bulk:
    """Octets of several bodies, one behind the other.

    Attributes:
        ids: of the bodies that are there, in the order of their octets.
        data: all octets.
    """

    __slots__ = ("_ends", "data", "ids")

    def __init__(self, ids: list[int], lengths: list[int], data: bytes) -> None:
        self.ids = ids
        self.data = data
        self._ends = list(accumulate(lengths))

    def __len__(self) -> int:
        return len(self.ids)

    def octets(self, index: int) -> bytes:
        """Those of one body."""
        return self.data[self._ends[index - 1] if index else 0 : self._ends[index]]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Each body's id and octets."""
        start = 0
        for body_id, end in zip(self.ids, self._ends, strict=True):
            yield body_id, self.data[start:end]
            start = end

    def find(self, words: Iterable[bytes | re.Pattern[bytes]]) -> set[int]:
        """Indexes of the bodies that have at least one of the words (lower case), in any case.

        A word across the border of two bodies counts for the second: better one too many.
        """
        lower = self.data.lower()
        found: set[int] = set()
        for word in words:
            place = _next(word, lower, 0)
            while place is not None:
                index = bisect_right(self._ends, place[0])
                if index == len(self._ends):
                    break
                found.add(index)
                if place[1] > self._ends[index] and index + 1 < len(self._ends):
                    found.add(index + 1)
                place = _next(word, lower, self._ends[index])
        return found


def _next(word: bytes | re.Pattern[bytes], data: bytes, start: int) -> tuple[int, int] | None:
    """Where the word begins and ends that comes next."""
    if isinstance(word, re.Pattern):
        match = word.search(data, start)
        return None if match is None else match.span()
    position = data.find(word, start)
    return None if position < 0 else (position, position + len(word))


def read_headers(driver: Driver, body_ids: Iterable[int]) -> Bulk:
    """The header sections of these bodies."""
    return _read(_HEADERS, driver, body_ids)


def read_messages(driver: Driver, body_ids: Iterable[int]) -> Bulk:
    """Header section and first chunk of these bodies: the whole message if it is small."""
    return _read(_MESSAGES, driver, body_ids)


def _read(statement: Statement, driver: Driver, body_ids: Iterable[int]) -> Bulk:
    ids, lengths, data = statement.first(driver, bodies=id_list(body_ids)) or ("[]", "[]", None)
    return Bulk(json.loads(ids), json.loads(lengths), data or b"")
