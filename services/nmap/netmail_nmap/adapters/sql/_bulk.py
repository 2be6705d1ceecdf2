"""Many headers, or many small messages, read in one step.

A row for each message would give up and take back the GIL each time. The engine joins them into
one blob instead, which also lets SEARCH look through all of them at once.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from typing import Any

import sqlalchemy as sa

from netmail_nmap.adapters.schema import bodies, body_chunks, messages
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
# In the order of their UIDs, as a rule: that is how the engine walks through the mailbox.
_HEADERS_BY_UID = Statement(
    sa.select(
        column_array(messages.c.uid),
        column_array(sa.func.length(bodies.c.header)),
        joined_octets(bodies.c.header),
    )
    .select_from(messages.join(bodies, bodies.c.id == messages.c.body_id))
    .where(
        messages.c.mailbox_id == sa.bindparam("mailbox"),
        messages.c.uid.between(sa.bindparam("first"), sa.bindparam("last")),
    )
)
_MESSAGES = _joined(
    sa.cast(
        bodies.c.header.op("||")(sa.func.coalesce(body_chunks.c.data, empty_octets())),
        sa.LargeBinary,
    ),
    bodies.outerjoin(body_chunks, body_chunks.c.id == bodies.c.id * (1 << CHUNK_BITS)),
)


_GUESSES = 16
"""How often the second octet of a word is looked for alone before that is given up."""


class Bulk:
    """Octets of several bodies, one behind the other.

    Which octets are whose is found out when somebody asks: most of what a search reads has none of
    its words.

    Args:
        ids, lengths: of each body that is there, as JSON.
        data: all octets, in the same order.
    """

    def __init__(self, ids: str, lengths: str, data: bytes) -> None:
        self.data = data
        self._id_array = ids
        self._length_array = lengths

    @cached_property
    def ids(self) -> list[int]:
        """In the order of the octets."""
        return list(json.loads(self._id_array))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(json.loads(self._length_array)))

    def __len__(self) -> int:
        return len(self._ends)

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
                ends = self._ends
                index = bisect_right(ends, place[0])
                if index == len(ends):
                    break
                found.add(index)
                if place[1] > ends[index] and index + 1 < len(ends):
                    found.add(index + 1)
                place = _next(word, lower, ends[index])
        return found


def _next(word: bytes | re.Pattern[bytes], data: bytes, start: int) -> tuple[int, int] | None:
    """Where the word begins and ends that comes next."""
    if isinstance(word, re.Pattern):
        match = word.search(data, start)
        return None if match is None else match.span()
    position = _next_pair(word, data, start) if len(word) == 2 else data.find(word, start)
    return None if position < 0 else (position, position + len(word))


def _next_pair(pair: bytes, data: bytes, start: int) -> int:
    """Like `data.find`, by the second octet: for one octet alone it is many times faster.

    The question mark of an encoded word's `=?` is rare in a header; where not, little is lost.
    """
    position = start
    for _ in range(_GUESSES):
        position = data.find(pair[1:], position + 1)
        if position < 0 or data.startswith(pair, position - 1):
            return max(position - 1, -1)
    return data.find(pair, position)


def read_headers(driver: Driver, body_ids: Iterable[int]) -> Bulk:
    """The header sections of these bodies."""
    return _read(_HEADERS, driver, body_ids)


def read_headers_by_uid(driver: Driver, mailbox_id: int, first: int, last: int) -> Bulk:
    """Those of a mailbox's messages FIRST to LAST; the ids are UIDs."""
    return _bulk_of(_HEADERS_BY_UID.first(driver, mailbox=mailbox_id, first=first, last=last))


def read_messages(driver: Driver, body_ids: Iterable[int]) -> Bulk:
    """Header section and first chunk of these bodies: the whole message if it is small."""
    return _read(_MESSAGES, driver, body_ids)


def _read(statement: Statement, driver: Driver, body_ids: Iterable[int]) -> Bulk:
    return _bulk_of(statement.first(driver, bodies=id_list(body_ids)))


def _bulk_of(row: Any | None) -> Bulk:
    ids, lengths, data = row or ("[]", "[]", None)
    return Bulk(ids, lengths, data or b"")
