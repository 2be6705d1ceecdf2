"""Changes of messages: flags, copies, moves, expunging. Each is one operation of the writer."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import sqlalchemy as sa

from netmail_nmap.adapters.schema import expunged, mailboxes, messages, users
from netmail_nmap.adapters.sql import _bodies, _mailboxes, _messages
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._flags import FlagNames, flags_to_mask, translate_mask
from netmail_nmap.adapters.sql._mailboxes import ORPHAN_GRACE_MS, MailboxRow
from netmail_nmap.adapters.sql._messages import Filing
from netmail_nmap.adapters.sql._statements import (
    BulkInsert,
    Driver,
    Statement,
    id_list,
    ids_of,
)
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.errors import OverQuota, UserNotFound
from netmail_nmap.domain.mail import (
    DELETED,
    SEEN,
    Copied,
    Expunged,
    FlagsStored,
    MailboxChange,
    MessageColumns,
    StoreMode,
    StoreRequest,
)


class _Message(NamedTuple):
    uid: int
    modseq: int
    flags: int
    internal_date: int
    size: int
    body_id: int


_COLUMNS = (
    messages.c.uid,
    messages.c.modseq,
    messages.c.flags,
    messages.c.internal_date,
    messages.c.size,
    messages.c.body_id,
)
_SOME = Statement(
    sa.select(*_COLUMNS)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"), messages.c.uid.in_(ids_of("uids")))
    .order_by(messages.c.uid)
)
_ALL = Statement(
    sa.select(*_COLUMNS)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"))
    .order_by(messages.c.uid)
)
_DELETED = Statement(
    sa.select(messages.c.uid)
    .where(
        messages.c.mailbox_id == sa.bindparam("mailbox"),
        messages.c.flags.op("&")(DELETED) != 0,
    )
    .order_by(messages.c.uid)
)
_SET_FLAGS = Statement(
    sa.update(messages)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"), messages.c.uid.in_(ids_of("uids")))
    .values(flags=sa.bindparam("mask"), modseq=sa.bindparam("new_modseq"))
)
_DELETE = Statement(
    sa.delete(messages).where(
        messages.c.mailbox_id == sa.bindparam("mailbox"), messages.c.uid.in_(ids_of("uids"))
    )
)
_INSERT_EXPUNGED = BulkInsert(expunged, "mailbox_id", "modseq", "uid")
_COUNT = Statement(
    sa.update(mailboxes)
    .where(mailboxes.c.id == sa.bindparam("mailbox"))
    .values(
        highest_modseq=sa.bindparam("modseq"),
        messages=mailboxes.c.messages + sa.bindparam("more"),
        unseen=mailboxes.c.unseen + sa.bindparam("more_unseen"),
        deleted=mailboxes.c.deleted + sa.bindparam("more_deleted"),
        size=mailboxes.c.size + sa.bindparam("octets"),
    )
)
_QUOTA = Statement(
    sa.select(users.c.used_bytes, users.c.quota_bytes).where(users.c.id == sa.bindparam("user"))
)


def store_flags(core: Core, transaction: Transaction, *, request: StoreRequest) -> FlagsStored:
    """STORE; messages whose flags stay as they are keep their modseq."""
    driver = transaction.driver
    row = _mailboxes.by_id(driver, request.user_id, request.mailbox_id)
    named = flags_to_mask(driver, row.id, request.flags)
    modseq = row.highest_modseq + 1
    modified: list[int] = []
    after: list[tuple[int, int, int]] = []
    by_mask: defaultdict[int, list[int]] = defaultdict(list)
    unseen = deleted = 0
    for message in _select(driver, row.id, request.uids):
        if request.unchanged_since is not None and message.modseq > request.unchanged_since:
            modified.append(message.uid)
            continue
        mask = _combined(message.flags, named, request.mode)
        if mask == message.flags:
            after.append((message.uid, message.modseq, mask))
            continue
        by_mask[mask].append(message.uid)
        after.append((message.uid, modseq, mask))
        unseen += (not mask & SEEN) - (not message.flags & SEEN)
        deleted += bool(mask & DELETED) - bool(message.flags & DELETED)
    if by_mask:
        for mask, uids in by_mask.items():
            _SET_FLAGS.run(driver, mailbox=row.id, uids=id_list(uids), mask=mask, new_modseq=modseq)
        _count(transaction, row, modseq, unseen=unseen, deleted=deleted)
    names = FlagNames.load(driver, row.id)
    return FlagsStored(
        _messages.columns_from(
            core,
            names,
            [uid for uid, _, _ in after],
            [modseq for _, modseq, _ in after],
            [mask for _, _, mask in after],
        ),
        modified,
        modseq if by_mask else row.highest_modseq,
        row.highest_modseq,
    )


def joined_flags(parts: Sequence[FlagsStored]) -> FlagsStored:
    """The outcome of a STORE that was done in parts."""
    if len(parts) == 1:
        return parts[0]
    texts: dict[str, int] = {}
    flag_set = []
    for part in parts:
        numbers = [texts.setdefault(text, len(texts)) for text in part.changed.flag_sets]
        flag_set += [numbers[index] for index in part.changed.flag_set]
    columns = MessageColumns(
        [uid for part in parts for uid in part.changed.uids],
        [modseq for part in parts for modseq in part.changed.modseqs],
        flag_set,
        list(texts),
    )
    modified = [uid for part in parts for uid in part.modified_uids]
    return FlagsStored(columns, modified, parts[-1].highest_modseq, _previous_modseq(parts))


def joined_expunged(parts: Sequence[Expunged]) -> Expunged:
    """The outcome of an EXPUNGE that was done in parts."""
    uids = [uid for part in parts for uid in part.uids]
    return Expunged(uids, parts[-1].highest_modseq, _previous_modseq(parts))


def _previous_modseq(parts: Sequence[FlagsStored | Expunged]) -> int:
    """The modseq before all parts; if others changed the mailbox in between, the one at the end.

    That is a modseq at which no caller was before, so that he looks what else happened.
    """
    for part, following in pairwise(parts):
        if following.previous_modseq != part.highest_modseq:
            return parts[-1].highest_modseq
    return parts[0].previous_modseq


def copy(
    core: Core,
    transaction: Transaction,
    user_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    to_name: str,
) -> Copied:
    """COPY: the messages keep flags and internal date (RFC 3501 6.4.7)."""
    driver = transaction.driver
    row = _mailboxes.by_id(driver, user_id, mailbox_id)
    target = _mailboxes.by_name(driver, user_id, to_name)
    copied = _select(driver, row.id, uids)
    check_quota(driver, user_id, sum(message.size for message in copied))
    new_uids = _file(core, transaction, row, target, copied)
    return Copied(target.uid_validity, [message.uid for message in copied], new_uids)


def move(
    core: Core,
    transaction: Transaction,
    user_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    to_name: str,
) -> Copied:
    """MOVE (RFC 6851): all in one transaction."""
    driver = transaction.driver
    row = _mailboxes.by_id(driver, user_id, mailbox_id)
    target = _mailboxes.by_name(driver, user_id, to_name)
    moved = _select(driver, row.id, uids)
    new_uids = _file(core, transaction, row, target, moved)
    # Within one mailbox the copies have changed the row.
    now = _mailboxes.by_id(driver, user_id, mailbox_id)
    modseq = _remove(core, transaction, now, moved, drop_bodies=False)
    return Copied(
        target.uid_validity,
        [message.uid for message in moved],
        new_uids,
        modseq,
        row.highest_modseq,
    )


def move_everything(
    core: Core, transaction: Transaction, row: MailboxRow, target: MailboxRow
) -> None:
    """RENAME of INBOX (RFC 3501 6.3.5): its messages go to the new mailbox."""
    moved = _select(transaction.driver, row.id, None)
    _file(core, transaction, row, target, moved)
    _remove(core, transaction, row, moved, drop_bodies=False)


def expunge(
    core: Core,
    transaction: Transaction,
    *,
    user_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    only_deleted: bool,
) -> Expunged:
    """EXPUNGE, UID EXPUNGE, or POP3's QUIT."""
    driver = transaction.driver
    row = _mailboxes.by_id(driver, user_id, mailbox_id)
    if only_deleted and row.deleted == 0:
        return Expunged((), row.highest_modseq, row.highest_modseq)
    removed = _select(driver, row.id, uids)
    if only_deleted:
        removed = [message for message in removed if message.flags & DELETED]
    modseq = _remove(core, transaction, row, removed, drop_bodies=True)
    return Expunged([message.uid for message in removed], modseq, row.highest_modseq)


def deleted_uids(driver: Driver, user_id: int, mailbox_id: int) -> list[int]:
    """UIDs of messages that are marked as deleted. Raises: MailboxGone."""
    row = _mailboxes.by_id(driver, user_id, mailbox_id)
    if row.deleted == 0:
        return []
    return [uid for (uid,) in _DELETED.rows(driver, mailbox=mailbox_id)]


def check_quota(driver: Driver, user_id: int, more: int) -> None:
    """Raises: OverQuota, UserNotFound."""
    found = _QUOTA.first(driver, user=user_id)
    if found is None:
        raise UserNotFound
    used, limit = found
    if limit and used + more > limit:
        raise OverQuota


def _select(driver: Driver, mailbox_id: int, uids: Sequence[int] | None) -> list[_Message]:
    if uids is None:
        rows = _ALL.all(driver, mailbox=mailbox_id)
    else:
        rows = _SOME.all(driver, mailbox=mailbox_id, uids=id_list(uids))
    return [_Message(*row) for row in rows]


def _combined(flags: int, named: int, mode: StoreMode) -> int:
    if mode is StoreMode.ADD:
        return flags | named
    if mode is StoreMode.REMOVE:
        return flags & ~named
    return named


def _file(
    core: Core,
    transaction: Transaction,
    source: MailboxRow,
    target: MailboxRow,
    copied: Iterable[_Message],
) -> list[int]:
    driver = transaction.driver
    names = FlagNames.load(driver, source.id)
    translated: dict[int, int] = {}
    filings = []
    for message in copied:
        mask = translated.get(message.flags)
        if mask is None:
            mask = translate_mask(driver, message.flags, names, target.id)
            translated[message.flags] = mask
        filings.append(
            Filing(target.id, message.body_id, message.size, mask, message.internal_date)
        )
    return _messages.file_messages(core, transaction, filings)


def _remove(
    core: Core,
    transaction: Transaction,
    row: MailboxRow,
    removed: Sequence[_Message],
    *,
    drop_bodies: bool,
) -> int:
    """Removes messages, remembers their UIDs (RFC 7162); gives the mailbox's modseq after it."""
    if not removed:
        return row.highest_modseq
    driver = transaction.driver
    modseq = row.highest_modseq + 1
    _DELETE.run(driver, mailbox=row.id, uids=id_list(message.uid for message in removed))
    _INSERT_EXPUNGED.run(driver, [(row.id, modseq, message.uid) for message in removed])
    if drop_bodies:
        _bodies.mark_orphans(
            driver,
            {message.body_id for message in removed},
            core.now_ms() + ORPHAN_GRACE_MS,
        )
    octets = sum(message.size for message in removed)
    _count(
        transaction,
        row,
        modseq,
        more=-len(removed),
        unseen=-sum(not message.flags & SEEN for message in removed),
        deleted=-sum(bool(message.flags & DELETED) for message in removed),
        octets=-octets,
    )
    _mailboxes.add_used(driver, {row.user_id: -octets})
    return modseq


def _count(
    transaction: Transaction,
    row: MailboxRow,
    modseq: int,
    *,
    more: int = 0,
    unseen: int = 0,
    deleted: int = 0,
    octets: int = 0,
) -> None:
    _COUNT.run(
        transaction.driver,
        mailbox=row.id,
        modseq=modseq,
        more=more,
        more_unseen=unseen,
        more_deleted=deleted,
        octets=octets,
    )
    transaction.events.append(MailboxChange(row.id, modseq))
