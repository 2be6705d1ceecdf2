"""What SEARCH looks for, as a tree."""

from dataclasses import dataclass
from enum import Enum

from netmail_pop_imap.protocol.imap.sequence import SequenceSet


class Relation(Enum):
    """How a date compares."""

    BEFORE = "BEFORE"
    ON = "ON"
    SINCE = "SINCE"


class DateKind(Enum):
    """Which date is compared."""

    INTERNAL = ""
    SENT = "SENT"
    SAVED = "SAVED"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every key matches; no key: every message."""

    keys: tuple["SearchKey", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """OR."""

    left: "SearchKey"
    right: "SearchKey"


@dataclass(frozen=True, slots=True)
class Not:
    """NOT."""

    key: "SearchKey"


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A flag is set; keywords as written."""

    flag: str


@dataclass(frozen=True, slots=True)
class IsRecent:
    """The message is recent in this session."""


@dataclass(frozen=True, slots=True)
class InHeader:
    """A header field contains the text; empty: the field is there."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class InBody:
    """The body contains the text."""

    text: str


@dataclass(frozen=True, slots=True)
class InText:
    """Header or body contain the text."""

    text: str


@dataclass(frozen=True, slots=True)
class DateIs:
    """A date, in days since the epoch."""

    kind: DateKind
    relation: Relation
    day: int


@dataclass(frozen=True, slots=True)
class SizeIs:
    """More (or fewer) octets than that."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class InSet:
    """Sequence numbers or UIDs."""

    messages: SequenceSet
    uid: bool


@dataclass(frozen=True, slots=True)
class ModSeqAtLeast:
    """MODSEQ (RFC 7162 3.1.5)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class EmailId:
    """EMAILID (RFC 8474)."""

    object_id: str


SearchKey = (
    AllOf
    | AnyOf
    | Not
    | HasFlag
    | IsRecent
    | InHeader
    | InBody
    | InText
    | DateIs
    | SizeIs
    | InSet
    | ModSeqAtLeast
    | EmailId
)
