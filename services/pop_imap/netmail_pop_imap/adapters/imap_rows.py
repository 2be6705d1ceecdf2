"""FETCH responses from what the session knows itself: FLAGS, UID, MODSEQ; no call, no storage."""

from collections.abc import Iterable, Iterator, Sequence

from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.protocol.imap.commands import Metadata
from netmail_pop_imap.protocol.imap.flags import SYSTEM_FLAGS
from netmail_pop_imap.protocol.imap.sequence import Span

LOCAL = frozenset({Metadata.FLAGS, Metadata.UID, Metadata.MODSEQ, Metadata.THREAD_ID})
"""Items that need no storage."""

_BLOCK = 1000

_FORMATS = {
    Metadata.FLAGS: b"FLAGS (%b)",
    Metadata.UID: b"UID %d",
    Metadata.MODSEQ: b"MODSEQ (%d)",
    Metadata.THREAD_ID: b"THREADID NIL",
}


def local_rows(view: View, spans: Iterable[Span], items: Sequence[Metadata]) -> Iterator[bytes]:
    """Response lines in blocks of up to 1,000 messages; messages that are gone are left out."""
    line = b"* %d FETCH (" + b" ".join(_FORMATS[item] for item in items) + b")\r\n"
    for first, last in spans:
        for begin in range(first, last + 1, _BLOCK):
            end = min(begin + _BLOCK, last + 1)
            yield _block(view, begin, end, items, line)


def _block(view: View, begin: int, end: int, items: Sequence[Metadata], line: bytes) -> bytes:
    uids = view.uids[begin:end]
    numbers: Sequence[int] = range(begin + 1, end + 1)
    mailbox = view.mailbox
    if view.is_current:
        flag_set: Sequence[int] = mailbox.flag_set[begin:end]
        modseqs: Sequence[int] = mailbox.modseqs[begin:end]
    else:  # expunges wait to be told: each message is looked up
        found = [
            (number, uid, at)
            for number, uid in zip(numbers, uids, strict=True)
            if (at := mailbox.index(uid)) >= 0
        ]
        numbers = [number for number, _, _ in found]
        uids = type(uids)("I", [uid for _, uid, _ in found])
        flag_set = [mailbox.flag_set[at] for _, _, at in found]
        modseqs = [mailbox.modseqs[at] for _, _, at in found]
    columns: list[Iterable[int | bytes]] = [numbers]
    for item in items:
        if item is Metadata.UID:
            columns.append(uids)
        elif item is Metadata.MODSEQ:
            columns.append(modseqs)
        elif item is Metadata.FLAGS:
            view.told(uids)  # as they are now: what changes after this line is news again
            columns.append(_flags(view, uids, flag_set))
    return b"".join(map(line.__mod__, zip(*columns, strict=False)))


def _flags(view: View, uids: Iterable[int], flag_set: Iterable[int]) -> Iterable[bytes]:
    sets = view.mailbox.flag_sets
    plain = map(sets.__getitem__, flag_set)
    if not view.recent_ranges:
        return plain
    return (
        with_recent(flags) if view.is_recent(uid) else flags
        for flags, uid in zip(plain, uids, strict=True)
    )


def with_recent(flags: bytes) -> bytes:
    r"""The flags and \Recent."""
    return flags + b" \\Recent" if flags else b"\\Recent"


def flags_of(view: View, uid: int) -> bytes | None:
    """What FLAGS shows for a message; None: it is gone."""
    at = view.mailbox.index(uid)
    if at < 0:
        return None
    flags = view.mailbox.flags(at)
    return with_recent(flags) if view.recent_ranges and view.is_recent(uid) else flags


def flag_names(view: View) -> list[bytes]:
    """System flags and the mailbox's keywords."""
    names = [*SYSTEM_FLAGS, *view.mailbox.keywords]
    return [name.encode("ascii", "replace") for name in names]


def flag_update(view: View, number: int, uid: int, *, modseq: bool) -> bytes:
    """A FETCH response that tells a message's flags, with its UID; empty if it is gone."""
    at = view.mailbox.index(uid)
    flags = flags_of(view, uid)
    if at < 0 or flags is None:
        return b""
    if modseq:
        return b"* %d FETCH (UID %d FLAGS (%b) MODSEQ (%d))\r\n" % (
            number,
            uid,
            flags,
            view.mailbox.modseqs[at],
        )
    return b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (number, uid, flags)


def modseq_update(view: View, number: int, uid: int) -> bytes:
    """The same for a STORE .SILENT in a CONDSTORE session: only the modseq (RFC 7162 3.1.3)."""
    at = view.mailbox.index(uid)
    if at < 0:
        return b""
    return b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (number, uid, view.mailbox.modseqs[at])


def numbered(uids: Iterable[int], view: View) -> Iterator[tuple[int, int]]:
    """(sequence number, UID) of those that the session knows."""
    for uid, number in zip(uids, map(view.number, uids), strict=True):
        if number:
            yield number, uid


__all__ = [
    "LOCAL",
    "flag_names",
    "flag_update",
    "flags_of",
    "local_rows",
    "modseq_update",
    "numbered",
    "with_recent",
]
