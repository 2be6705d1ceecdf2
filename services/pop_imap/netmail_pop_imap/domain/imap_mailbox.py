"""A mailbox as the sessions of one process see it.

`Mailbox` is what the process knows of it, shared by its sessions; `View` is what one session has
been told: which message has which sequence number. Changes go to the Mailbox; a View catches up
when the protocol lets its session be told (RFC 3501 7.4.1). Columns are arrays: 16 octets a message
for all sessions together, and nothing more for a session that is up to date.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from netmail_pop_imap.protocol.imap.sequence import SequenceSet, Span

_FEW = 64
"""Up to so many expunges are cut out one by one; more rebuild the columns."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a mailbox: rows that are new or changed, UIDs that went.

    Attributes:
        uids: ascending.
        modseqs: of the same length.
        flag_set: index into flag_sets, of the same length.
        flag_sets: flags separated by spaces.
        expunged: in any order.
        uid_next: of the mailbox after this; 0: not known.
        modseq: everything up to here is in the change; 0: not known.
    """

    uids: Sequence[int] = ()
    modseqs: Sequence[int] = ()
    flag_set: Sequence[int] = ()
    flag_sets: Sequence[str] = ()
    expunged: Sequence[int] = ()
    uid_next: int = 0
    modseq: int = 0


@dataclass(frozen=True, slots=True)
class Updates:
    """What a session must be told, in this order.

    Attributes:
        expunged: sequence numbers, descending, so that none shifts another.
        exists: number of messages, or None if it needs no telling.
        flags: (sequence number, UID) of messages whose flags changed.
        keywords: the mailbox has keywords that the session has not heard of.
    """

    expunged: Sequence[int]
    exists: int | None
    flags: Sequence[tuple[int, int]]
    keywords: bool

    def __bool__(self) -> bool:
        return bool(self.expunged or self.exists is not None or self.flags or self.keywords)


NO_UPDATES = Updates((), None, (), keywords=False)


class Mailbox:
    """A mailbox's messages: UIDs ascending, and for each its modseq and set of flags.

    Changes are idempotent and may come in any order: a row counts only with a newer modseq, a new
    message only with a UID that was not given out before.
    """

    __slots__ = (
        "_flag_index",
        "flag_set",
        "flag_sets",
        "id",
        "keywords",
        "modseq",
        "modseqs",
        "object_id",
        "uid_next",
        "uid_validity",
        "uids",
        "views",
    )

    def __init__(self, mailbox_id: int, uid_validity: int, object_id: str) -> None:
        self.id = mailbox_id
        self.uid_validity = uid_validity
        self.object_id = object_id
        self.uid_next = 1
        self.modseq = 0
        self.uids = array("I")
        self.modseqs = array("Q")
        self.flag_set = array("I")
        self.flag_sets: list[bytes] = []
        self.keywords: dict[str, None] = {}
        self.views: set[View] = set()
        self._flag_index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.uids)

    def index(self, uid: int) -> int:
        """Where the message is; -1 if it is not there (any more)."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1

    def flags(self, index: int) -> bytes:
        """Its flags, separated by spaces."""
        return self.flag_sets[self.flag_set[index]]

    def sets_with(self, flag: str) -> list[bool]:
        """For each set of flags whether it holds the flag, which compares without case."""
        wanted = flag.lower().encode("ascii", "replace")
        return [wanted in flags.lower().split() for flags in self.flag_sets]

    def apply(
        self,
        change: Change,
        *,
        origin: "View | None" = None,
        expected: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Takes a change and tells the views.

        Args:
            change: of this mailbox.
            origin: the session that caused it and needs no telling of what it expected.
            expected: what that session thinks became of a set of flags.
        """
        translate = [self._intern(flags) for flags in change.flag_sets]
        changed, as_expected = self._update_rows(change, translate, expected)
        self._append_rows(change, translate)
        expunged = self._expunge(change.expunged)
        self.uid_next = max(self.uid_next, change.uid_next)
        self.modseq = max(self.modseq, change.modseq)
        for view in self.views:
            silent = as_expected if view is origin else ()
            view.note(changed, silent, expunged)

    def replace_all(self, change: Change) -> None:
        """Takes a full list: what is not in it is gone."""
        kept = set(change.uids)
        gone = [uid for uid in self.uids if uid not in kept]
        self.apply(
            Change(
                change.uids,
                change.modseqs,
                change.flag_set,
                change.flag_sets,
                gone,
                change.uid_next,
                change.modseq,
            )
        )

    def _intern(self, flags: str) -> int:
        index = self._flag_index.get(flags)
        if index is None:
            index = self._flag_index[flags] = len(self.flag_sets)
            self.flag_sets.append(flags.encode("ascii", "replace"))
            for flag in flags.split():
                if not flag.startswith("\\"):
                    self.keywords[flag] = None
        return index

    def _update_rows(
        self,
        change: Change,
        translate: list[int],
        expected: Callable[[bytes], bytes] | None,
    ) -> tuple[list[int], list[int]]:
        """Gives the UIDs changed, and those of them that changed as expected."""
        changed: list[int] = []
        as_expected: list[int] = []
        known = bisect_left(change.uids, self.uid_next)
        for row in range(known):
            uid, modseq = change.uids[row], change.modseqs[row]
            at = self.index(uid)
            if at < 0 or modseq <= self.modseqs[at]:
                continue
            flags = translate[change.flag_set[row]]
            if expected is not None and self.flag_sets[flags] == expected(self.flags(at)):
                as_expected.append(uid)
            self.modseqs[at] = modseq
            self.flag_set[at] = flags
            changed.append(uid)
        return changed, as_expected

    def _append_rows(self, change: Change, translate: list[int]) -> None:
        new = bisect_left(change.uids, self.uid_next)
        if new == len(change.uids):
            return
        self.uids.extend(change.uids[new:])
        self.modseqs.extend(change.modseqs[new:])
        self.flag_set.extend([translate[i] for i in change.flag_set[new:]])
        self.uid_next = max(self.uid_next, change.uids[-1] + 1)

    def _expunge(self, uids: Sequence[int]) -> list[int]:
        gone = sorted({uid for uid in uids if self.index(uid) >= 0})
        if not gone:
            return gone
        self.uids = self.uids[:]  # views that have not been told keep the old one
        if len(gone) <= _FEW:
            for uid in reversed(gone):
                at = self.index(uid)
                del self.uids[at], self.modseqs[at], self.flag_set[at]
            return gone
        dropped = set(gone)
        keep = [at for at, uid in enumerate(self.uids) if uid not in dropped]
        self.modseqs = array("Q", [self.modseqs[at] for at in keep])
        self.flag_set = array("I", [self.flag_set[at] for at in keep])
        self.uids = array("I", [self.uids[at] for at in keep])
        return gone


class View:
    """What one session has been told of a mailbox.

    Attributes:
        uids: by sequence number; only the first `count` are told.
        count: EXISTS.
        on_change: called when there may be something to tell.
    """

    __slots__ = (
        "_flags",
        "_gone",
        "_known_keywords",
        "_recent",
        "count",
        "mailbox",
        "on_change",
        "read_only",
        "uids",
    )

    def __init__(self, mailbox: Mailbox, *, read_only: bool, on_change: Callable[[], None]) -> None:
        self.mailbox = mailbox
        self.read_only = read_only
        self.on_change = on_change
        self.uids = mailbox.uids
        self.count = len(mailbox.uids)
        self._gone: list[int] = []
        self._flags: set[int] = set()
        self._recent: list[tuple[int, int]] = []
        self._known_keywords = len(mailbox.keywords)
        mailbox.views.add(self)

    def close(self) -> None:
        """The session has left the mailbox."""
        self.mailbox.views.discard(self)

    @property
    def is_current(self) -> bool:
        """Sequence numbers are the Mailbox's own: no expunge waits to be told."""
        return self.uids is self.mailbox.uids

    @property
    def has_updates(self) -> bool:
        """Something waits to be told."""
        return bool(
            self._flags
            or self.count != len(self.mailbox.uids)
            or not self.is_current
            or self._known_keywords != len(self.mailbox.keywords)
        )

    def spans(self, messages: SequenceSet, *, uid: bool) -> list[Span]:
        """The messages meant, as indexes into `uids`.

        Raises: BadCommand, for sequence numbers that are not there.
        """
        if uid:
            return messages.spans_of_uids(self.uids, self.count)
        return messages.spans_of_numbers(self.count)

    def number(self, uid: int) -> int:
        """The sequence number; 0 if the session does not know the message."""
        at = bisect_left(self.uids, uid, 0, self.count)
        return at + 1 if at < self.count and self.uids[at] == uid else 0

    def claim_recent(self, first: int, uid_next: int) -> None:
        r"""UIDs from `first` up to below `uid_next` are \Recent in this session."""
        if self._recent:
            first = max(first, self._recent[-1][1] + 1)  # what is claimed already counts once
        if first and first < uid_next:
            self._recent.append((first, uid_next - 1))

    def is_recent(self, uid: int) -> bool:
        r"""Whether the message is \Recent here."""
        return any(first <= uid <= last for first, last in self._recent)

    @property
    def recent_ranges(self) -> Sequence[tuple[int, int]]:
        r"""The UIDs that are \Recent here, first and last."""
        return self._recent

    def recent_count(self) -> int:
        """RECENT."""
        return sum(
            bisect_right(self.uids, last, 0, self.count)
            - bisect_left(self.uids, first, 0, self.count)
            for first, last in self._recent
        )

    def note(self, changed: Iterable[int], silent: Sequence[int], expunged: Sequence[int]) -> None:
        """Keeps in mind what must be told.

        Args:
            changed: UIDs whose flags changed.
            silent: those of them that the session itself changed and knows.
            expunged: UIDs that are gone.
        """
        if silent:
            told = set(silent) - self._flags
            self._flags.update(uid for uid in changed if uid not in told)
        else:
            self._flags.update(changed)
        self._gone.extend(expunged)
        self.on_change()

    def told(self, uids: Iterable[int]) -> None:
        """The session has just been given these messages' flags."""
        if self._flags:
            self._flags.difference_update(uids)

    def take_updates(self, *, expunge: bool) -> Updates:
        """What the session is to be told now; the view counts it as told.

        Args:
            expunge: EXPUNGE may be sent (RFC 3501 7.4.1); while one waits, EXISTS waits too.
        """
        if not self.has_updates:
            return NO_UPDATES
        expunged: list[int] = []
        exists = None
        if expunge and not self.is_current:
            numbers = {self.number(uid) for uid in self._gone} - {0}
            expunged = sorted(numbers, reverse=True)
            self.count -= len(expunged)
            self.uids = self.mailbox.uids
            self._gone.clear()
        told = self.count
        if self.is_current and self.count != len(self.uids):
            exists = self.count = len(self.uids)
        flags = self._take_flags(told)
        keywords = self._known_keywords != len(self.mailbox.keywords)
        self._known_keywords = len(self.mailbox.keywords)
        return Updates(expunged, exists, flags, keywords)

    def _take_flags(self, told: int) -> list[tuple[int, int]]:
        """Changed messages among the first `told`; those after are news as a whole."""
        if not self._flags:
            return []
        waiting = sorted(self._flags)
        self._flags.clear()
        numbered = ((self.number(uid), uid) for uid in waiting)
        return [
            (number, uid)
            for number, uid in numbered
            if 0 < number <= told and self.mailbox.index(uid) >= 0
        ]
