"""Commands as values; what the parser gives and a session executes."""

from dataclasses import dataclass, field
from enum import Enum

from netmail_pop_imap.protocol.imap.search_keys import SearchKey
from netmail_pop_imap.protocol.imap.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Command:
    """Any command. `name` is the verb in upper case, `UID FETCH` and so on with its prefix."""

    tag: str
    name: str


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """AUTHENTICATE. `initial`: base64 of SASL-IR, `=` for an empty one; None: not given."""

    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class Login(Command):
    """LOGIN."""

    username: bytes
    password: bytes


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """ENABLE (RFC 5161), names in upper case."""

    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identify(Command):
    """ID (RFC 2971). Field names in lower case."""

    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT or EXAMINE; `condstore`: with (CONDSTORE)."""

    mailbox: str
    condstore: bool


@dataclass(frozen=True, slots=True)
class OnMailbox(Command):
    """DELETE, SUBSCRIBE, UNSUBSCRIBE, GETQUOTAROOT."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Create(Command):
    """CREATE; `special_use` without backslash, or empty (RFC 6154 section 3)."""

    mailbox: str
    special_use: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class ListMailboxes(Command):
    """LIST or LSUB (RFC 3501, RFC 5258, RFC 5819).

    Attributes:
        reference: in Unicode.
        patterns: in Unicode; more than one only in the extended form.
        select_subscribed, select_remote, recursive_match, select_special_use: selection options.
        return_subscribed, return_children, return_special_use: return options.
        return_status: STATUS items, or empty.
        extended: the extended form was used.
    """

    reference: str
    patterns: tuple[str, ...]
    select_subscribed: bool = False
    select_special_use: bool = False
    recursive_match: bool = False
    return_subscribed: bool = False
    return_children: bool = False
    return_special_use: bool = False
    return_status: tuple[str, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Status(Command):
    """STATUS; items in upper case."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Append(Command):
    """APPEND up to its literal. `internal_date`: seconds since the epoch."""

    mailbox: str
    flags: tuple[str, ...]
    internal_date: int | None


@dataclass(frozen=True, slots=True)
class GetQuota(Command):
    """GETQUOTA (RFC 9208)."""

    root: str


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """EXPUNGE, or UID EXPUNGE with its set (RFC 4315)."""

    uids: SequenceSet | None


@dataclass(frozen=True, slots=True)
class Search(Command):
    """SEARCH, UID SEARCH.

    Attributes:
        key: what to find.
        results: RETURN options of ESEARCH (MIN, MAX, COUNT, ALL); None: plain SEARCH.
        uid: answer with UIDs.
    """

    key: SearchKey
    results: frozenset[str] | None
    uid: bool


class Metadata(Enum):
    """FETCH items other than body sections; the value is the item's name in a response."""

    FLAGS = b"FLAGS"
    UID = b"UID"
    INTERNALDATE = b"INTERNALDATE"
    SIZE = b"RFC822.SIZE"
    ENVELOPE = b"ENVELOPE"
    BODY = b"BODY"
    BODYSTRUCTURE = b"BODYSTRUCTURE"
    MODSEQ = b"MODSEQ"
    EMAIL_ID = b"EMAILID"
    THREAD_ID = b"THREADID"
    SAVE_DATE = b"SAVEDATE"


class SectionText(Enum):
    """Which part of a body part BODY[] means."""

    ALL = ""
    HEADER = "HEADER"
    HEADER_FIELDS = "HEADER.FIELDS"
    HEADER_FIELDS_NOT = "HEADER.FIELDS.NOT"
    TEXT = "TEXT"
    MIME = "MIME"


@dataclass(frozen=True, slots=True)
class Section:
    r"""BODY[section]<partial>, BODY.PEEK[], RFC822, RFC822.HEADER, RFC822.TEXT.

    Attributes:
        label: the item's name in the response, with section and origin octet.
        part: part numbers, empty for the message.
        text: which part of it.
        fields: header field names in upper case for HEADER.FIELDS(.NOT).
        partial: (offset, length) or None.
        seen: fetching it sets \Seen.
    """

    label: bytes
    part: tuple[int, ...] = ()
    text: SectionText = SectionText.ALL
    fields: frozenset[bytes] = frozenset()
    partial: tuple[int, int] | None = None
    seen: bool = True

    @property
    def header_only(self) -> bool:
        """The message's own header is enough to answer it."""
        return not self.part and self.text in _OF_HEADER


_OF_HEADER = {SectionText.HEADER, SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT}


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """FETCH, UID FETCH. `changed_since`: CHANGEDSINCE (RFC 7162), 0 without."""

    messages: SequenceSet
    items: tuple[Metadata | Section, ...]
    uid: bool
    changed_since: int | None = None


class StoreMode(Enum):
    """How STORE changes flags."""

    REPLACE = ""
    ADD = "+"
    REMOVE = "-"


@dataclass(frozen=True, slots=True)
class Store(Command):
    """STORE, UID STORE."""

    messages: SequenceSet
    mode: StoreMode
    flags: tuple[str, ...]
    silent: bool
    uid: bool
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY, MOVE, UID COPY, UID MOVE."""

    messages: SequenceSet
    mailbox: str
    uid: bool
    move: bool = field(default=False)
