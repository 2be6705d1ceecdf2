"""The part of a SEARCH key that the engine can decide by the columns of a message."""

import sqlalchemy as sa

from netmail_nmap.adapters.schema import messages
from netmail_nmap.domain.search import (
    AllOf,
    AnyOf,
    Date,
    DateField,
    DateRelation,
    HasFlag,
    Larger,
    ModseqAtLeast,
    Not,
    SearchKey,
    Smaller,
    Uids,
)
from netmail_nmap.domain.search_match import Names

_DAY = 86_400
_MAX_RANGES = 100

Condition = sa.ColumnElement[bool]


def condition(key: SearchKey, names: Names) -> tuple[Condition, bool]:
    """Gives a condition that every match fulfils, and whether it says all that the key says."""
    match key:
        case AllOf(keys):
            parts = [condition(part, names) for part in keys]
            return (
                sa.and_(sa.true(), *(part for part, _ in parts)),
                all(exact for _, exact in parts),
            )
        case AnyOf(keys):
            parts = [condition(part, names) for part in keys]
            return (
                sa.or_(sa.false(), *(part for part, _ in parts)),
                all(exact for _, exact in parts),
            )
        case Not(inner):
            part, exact = condition(inner, names)
            return (sa.not_(part), True) if exact else (sa.true(), False)
        case _:
            simple = _simple(key, names)
            return (sa.true(), False) if simple is None else (simple, True)


def _simple(key: SearchKey, names: Names) -> Condition | None:
    match key:
        case HasFlag(flag):
            return messages.c.flags.op("&")(names.mask(flag)) != 0
        case Date(DateField.INTERNAL, relation, day):
            return _date(messages.c.internal_date, relation, day)
        case Date(DateField.SAVED, relation, day):
            return _date(messages.c.save_date, relation, day)
        case Larger(size):
            return messages.c.size > size
        case Smaller(size):
            return messages.c.size < size
        case ModseqAtLeast(modseq):
            return messages.c.modseq >= modseq
        case Uids(ranges) if len(ranges) <= _MAX_RANGES:
            return sa.or_(
                sa.false(), *(messages.c.uid.between(first, last) for first, last in ranges)
            )
        case _:
            return None


def _date(column: sa.Column[int], relation: DateRelation, day: int) -> Condition:
    start, end = day * _DAY, (day + 1) * _DAY
    if relation is DateRelation.BEFORE:
        return column < start
    if relation is DateRelation.SINCE:
        return column >= start
    return sa.and_(column >= start, column < end)
