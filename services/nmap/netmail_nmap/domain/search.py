"""SEARCH keys (RFC 3501 6.4.4, RFC 7162, RFC 8474, RFC 8514) as a tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class DateField(Enum):
    """Which date of a message."""

    INTERNAL = auto()
    SENT = auto()
    """The Date header field, date only, as written there."""
    SAVED = auto()


class DateRelation(Enum):
    """How it compares."""

    BEFORE = auto()
    ON = auto()
    SINCE = auto()

    def holds(self, day: int, wanted: int) -> bool:
        """Compares days since the epoch."""
        if self is DateRelation.BEFORE:
            return day < wanted
        if self is DateRelation.ON:
            return day == wanted
        return day >= wanted


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every key matches; no key at all: every message."""

    keys: tuple["SearchKey", ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one matches."""

    keys: tuple["SearchKey", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The key does not match."""

    key: "SearchKey"


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A system flag or keyword is set."""

    flag: str


@dataclass(frozen=True, slots=True)
class HeaderContains:
    """A field of that name has the text in its decoded value; empty text: the field exists."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class BodyContains:
    """The decoded text of the body has it."""

    text: str


@dataclass(frozen=True, slots=True)
class TextContains:
    """Header or body have it."""

    text: str


@dataclass(frozen=True, slots=True)
class Date:
    """A date compares as wanted."""

    field: DateField
    relation: DateRelation
    day: int
    """Since 1970-01-01."""


@dataclass(frozen=True, slots=True)
class Larger:
    """More octets than this."""

    size: int


@dataclass(frozen=True, slots=True)
class Smaller:
    """Fewer octets than this."""

    size: int


@dataclass(frozen=True, slots=True)
class Uids:
    """The UID is in one of the ranges (both ends included)."""

    ranges: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ModseqAtLeast:
    """RFC 7162 3.1.5."""

    modseq: int


@dataclass(frozen=True, slots=True)
class ObjectId:
    """EMAILID (RFC 8474)."""

    object_id: str


SearchKey = (
    AllOf
    | AnyOf
    | Not
    | HasFlag
    | HeaderContains
    | BodyContains
    | TextContains
    | Date
    | Larger
    | Smaller
    | Uids
    | ModseqAtLeast
    | ObjectId
)
