"""What a mailbox holds, as the store and its callers see it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntFlag, auto
from typing import NamedTuple

HIERARCHY_SEPARATOR = "/"
INBOX = "INBOX"
SPECIAL_USES = ("Sent", "Trash", "Drafts", "Junk", "Archive")
"""Mailboxes that every user has besides INBOX, each with the special use of its name (RFC 6154)."""


class SystemFlag(IntFlag):
    """The system flags of RFC 3501 2.3.2, as bits of a message's flags."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


SYSTEM_FLAGS = {
    "\\Seen": SystemFlag.SEEN,
    "\\Answered": SystemFlag.ANSWERED,
    "\\Flagged": SystemFlag.FLAGGED,
    "\\Deleted": SystemFlag.DELETED,
    "\\Draft": SystemFlag.DRAFT,
}
SYSTEM_FLAGS_BY_KEY = {name.lower(): int(flag) for name, flag in SYSTEM_FLAGS.items()}
"""Plain numbers: `~` of an IntFlag knows nothing of the keywords' bits."""
SEEN, DELETED = int(SystemFlag.SEEN), int(SystemFlag.DELETED)
FIRST_KEYWORD_BIT = 5
MAX_KEYWORDS = 58
"""Keywords of one mailbox: what a signed 64-bit number holds beside the system flags."""


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """STATUS items (RFC 3501 6.3.10, RFC 7162, RFC 8438)."""

    messages: int
    unseen: int
    recent: int
    uid_next: int
    uid_validity: int
    highest_modseq: int
    size: int
    deleted: int


@dataclass(frozen=True, slots=True)
class MailboxInfo:
    """One name in a user's hierarchy."""

    id: int
    """0: there is no mailbox behind the name."""
    name: str
    object_id: str
    subscribed: bool
    special_use: str
    has_children: bool
    selectable: bool
    status: MailboxStatus | None = None


@dataclass(frozen=True, slots=True)
class MailboxState:
    """What SELECT tells of a mailbox."""

    mailbox_id: int
    object_id: str
    uid_validity: int
    uid_next: int
    highest_modseq: int
    messages: int
    first_recent_uid: int
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MessageColumns:
    """Messages as columns of equal length, in UID order."""

    uids: Sequence[int] = ()
    modseqs: Sequence[int] = ()
    flag_set: Sequence[int] = ()
    """Index into flag_sets."""
    flag_sets: Sequence[str] = ()
    """Each distinct set of flags once: space separated, sorted."""
    sizes: Sequence[int] = ()
    object_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MailboxView:
    """A mailbox as opened, or what changed in it."""

    state: MailboxState
    messages: MessageColumns
    delta: bool = False
    """Only what changed since the modseq that the caller named."""
    expunged_uids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Which mailbox to open, and what of it."""

    user_id: int
    name: str
    with_sizes: bool = False
    with_object_ids: bool = False
    claim_recent: bool = False
    known_mailbox_id: int = 0
    known_modseq: int = 0


@dataclass(frozen=True, slots=True)
class MailboxChange:
    """A mailbox changed (or went)."""

    mailbox_id: int
    highest_modseq: int
    gone: bool = False


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Which data of which messages."""

    user_id: int
    mailbox_id: int
    uids: Sequence[int]
    header: bool = False
    body: bool = False
    flags: bool = False
    size: bool = False
    internal_date: bool = False
    modseq: bool = False
    object_id: bool = False
    save_date: bool = False
    changed_since: int = 0
    body_offset: int = 0
    body_length: int = 0
    """0: to the end of the message."""
    set_seen: bool = False


class FetchedMessage(NamedTuple):
    """One message's data; a large body comes in several parts of the same UID."""

    uid: int
    header: bytes = b""
    body: bytes = b""
    more: bool = False
    flags: str = ""
    size: int = 0
    internal_date: int = 0
    modseq: int = 0
    object_id: str = ""
    save_date: int = 0


class StoreMode(Enum):
    """What STORE does with the flags it names."""

    REPLACE = auto()
    ADD = auto()
    REMOVE = auto()


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """STORE (RFC 3501 6.4.6, RFC 7162 3.1.3)."""

    user_id: int
    mailbox_id: int
    uids: Sequence[int]
    mode: StoreMode
    flags: tuple[str, ...]
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class FlagsStored:
    """The outcome of STORE."""

    changed: MessageColumns
    modified_uids: Sequence[int]
    """Those that failed UNCHANGEDSINCE."""
    highest_modseq: int
    previous_modseq: int


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome of COPY or MOVE (COPYUID)."""

    uid_validity: int
    source_uids: Sequence[int]
    target_uids: Sequence[int]
    highest_modseq: int = 0
    """Of the source mailbox after a move."""
    previous_modseq: int = 0


@dataclass(frozen=True, slots=True)
class Expunged:
    """The outcome of EXPUNGE."""

    uids: Sequence[int]
    highest_modseq: int
    previous_modseq: int


@dataclass(frozen=True, slots=True)
class Appended:
    """APPENDUID (RFC 4315)."""

    uid_validity: int
    uid: int


@dataclass(frozen=True, slots=True)
class Quota:
    """Octets used and allowed."""

    used_bytes: int
    limit_bytes: int
    """0: unlimited."""


@dataclass(frozen=True, slots=True)
class AppendTarget:
    """Where an appended message goes."""

    user_id: int
    mailbox: str
    flags: tuple[str, ...] = ()
    internal_date: int | None = None
    """Seconds since the epoch; None: now."""


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """UIDs that match, ascending."""

    uids: Sequence[int] = field(default=())
    highest_modseq: int = 0
    """Highest modseq among them, when one was searched."""
