"""Mailboxes: the hierarchy of names, creation, renaming, removal, subscriptions, status."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from netmail_nmap.adapters.schema import (
    expunged,
    keywords,
    mailboxes,
    messages,
    store_meta,
    subscriptions,
    users,
)
from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._statements import Driver, Statement, id_list, ids_of, lock_users
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.errors import (
    InvalidRequest,
    MailboxExists,
    MailboxGone,
    MailboxNotFound,
    SpecialUseTaken,
    UserNotFound,
)
from netmail_nmap.domain.mail import (
    HIERARCHY_SEPARATOR,
    INBOX,
    SPECIAL_USES,
    MailboxChange,
)

ORPHAN_GRACE_MS = 60_000
"""Sessions that are reading a message that was just removed may go on for so long."""
_MAX_NAME = 255

_COLUMNS = (
    mailboxes.c.id,
    mailboxes.c.user_id,
    mailboxes.c.name,
    mailboxes.c.object_id,
    mailboxes.c.special_use,
    mailboxes.c.uid_validity,
    mailboxes.c.uid_next,
    mailboxes.c.highest_modseq,
    mailboxes.c.first_recent_uid,
    mailboxes.c.messages,
    mailboxes.c.unseen,
    mailboxes.c.deleted,
    mailboxes.c.size,
)


class MailboxRow(NamedTuple):
    """A row of the table."""

    id: int
    user_id: int
    name: str
    object_id: str
    special_use: str
    uid_validity: int
    uid_next: int
    highest_modseq: int
    first_recent_uid: int
    messages: int
    unseen: int
    deleted: int
    size: int


_BY_NAME = Statement(
    sa.select(*_COLUMNS).where(
        mailboxes.c.user_id == sa.bindparam("user"), mailboxes.c.name == sa.bindparam("name")
    )
)
_BY_ID = Statement(
    sa.select(*_COLUMNS).where(
        mailboxes.c.id == sa.bindparam("mailbox"), mailboxes.c.user_id == sa.bindparam("user")
    )
)
_BY_IDS = Statement(sa.select(*_COLUMNS).where(mailboxes.c.id.in_(ids_of("mailboxes"))))
_OF_USER = Statement(
    sa.select(*_COLUMNS)
    .where(mailboxes.c.user_id == sa.bindparam("user"))
    .order_by(mailboxes.c.name)
)
_INBOXES = Statement(
    sa.select(*_COLUMNS).where(mailboxes.c.user_id.in_(ids_of("users")), mailboxes.c.name == INBOX)
)
_USER_EXISTS = Statement(sa.select(users.c.id).where(users.c.id == sa.bindparam("user")))
_INSERT = Statement(
    sa.insert(mailboxes)
    .values(
        user_id=sa.bindparam("user"),
        name=sa.bindparam("name"),
        object_id="",
        special_use=sa.bindparam("special_use"),
        uid_validity=sa.bindparam("uid_validity"),
        uid_next=1,
        highest_modseq=1,
        first_recent_uid=1,
        messages=0,
        unseen=0,
        deleted=0,
        size=0,
    )
    .returning(mailboxes.c.id)
)
_SET_OBJECT_ID = Statement(
    sa.update(mailboxes)
    .where(mailboxes.c.id == sa.bindparam("mailbox"))
    .values(object_id=sa.bindparam("text"))
)
_SET_NAME = Statement(
    sa.update(mailboxes)
    .where(mailboxes.c.id == sa.bindparam("mailbox"))
    .values(name=sa.bindparam("new_name"))
)
_LAST_VALIDITY = Statement(
    sa.select(store_meta.c.value).where(store_meta.c.key == "uid_validity"), locks={}
)
_SET_VALIDITY = Statement(
    sa.update(store_meta)
    .where(store_meta.c.key == "uid_validity")
    .values(value=sa.bindparam("text"))
)
_BODIES_OF = Statement(
    sa.select(messages.c.body_id).where(messages.c.mailbox_id == sa.bindparam("mailbox"))
)
_DELETES = tuple(
    Statement(sa.delete(table).where(column == sa.bindparam("mailbox")))
    for table, column in (
        (messages, messages.c.mailbox_id),
        (expunged, expunged.c.mailbox_id),
        (keywords, keywords.c.mailbox_id),
        (mailboxes, mailboxes.c.id),
    )
)
_ADD_USED = Statement(
    sa.update(users)
    .where(users.c.id == sa.bindparam("user"))
    .values(used_bytes=users.c.used_bytes + sa.bindparam("octets"))
)
_SUBSCRIBE = Statement(
    sa.insert(subscriptions)
    .prefix_with("OR IGNORE")
    .values(user_id=sa.bindparam("user"), name=sa.bindparam("name")),
    on_postgresql=postgresql.insert(subscriptions)
    .values(user_id=sa.bindparam("user"), name=sa.bindparam("name"))
    .on_conflict_do_nothing(),
)
_UNSUBSCRIBE = Statement(
    sa.delete(subscriptions).where(
        subscriptions.c.user_id == sa.bindparam("user"),
        subscriptions.c.name == sa.bindparam("name"),
    )
)


# -- looking up --------------------------------------------------------------------------------


def by_name(driver: Driver, user_id: int, name: str) -> MailboxRow:
    """Raises: MailboxNotFound."""
    lock_users(driver, [user_id])
    row = _BY_NAME.first(driver, user=user_id, name=normal_name(name))
    if row is None:
        raise MailboxNotFound
    return MailboxRow(*row)


def by_id(driver: Driver, user_id: int, mailbox_id: int) -> MailboxRow:
    """Raises: MailboxGone, also for a mailbox of another user."""
    lock_users(driver, [user_id])
    row = _BY_ID.first(driver, mailbox=mailbox_id, user=user_id)
    if row is None:
        raise MailboxGone
    return MailboxRow(*row)


def by_ids(driver: Driver, mailbox_ids: Iterable[int]) -> dict[int, MailboxRow]:
    """Those of the mailboxes that are there."""
    rows = _BY_IDS.all(driver, mailboxes=id_list(mailbox_ids))
    return {row[0]: MailboxRow(*row) for row in rows}


def of_user(driver: Driver, user_id: int) -> list[MailboxRow]:
    """All mailboxes of a user, by name."""
    lock_users(driver, [user_id])
    return [MailboxRow(*row) for row in _OF_USER.all(driver, user=user_id)]


def normal_name(name: str) -> str:
    """INBOX has one spelling (RFC 3501 5.1)."""
    head, separator, rest = name.partition(HIERARCHY_SEPARATOR)
    return f"{INBOX}{separator}{rest}" if head.upper() == INBOX else name


def checked_name(name: str) -> str:
    """The name as it is kept. Raises: InvalidRequest."""
    name = normal_name(name)
    name = name.removesuffix(HIERARCHY_SEPARATOR)
    if not name or len(name) > _MAX_NAME:
        raise InvalidRequest("a mailbox name is empty or too long")
    if not all(name.split(HIERARCHY_SEPARATOR)):
        raise InvalidRequest("a mailbox name has an empty part")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        raise InvalidRequest("a mailbox name has a control character")
    return name


# -- creating ----------------------------------------------------------------------------------


def inboxes(core: Core, transaction: Transaction, user_ids: Iterable[int]) -> dict[int, MailboxRow]:
    """INBOX of each user, made where it is missing; unknown users are left out."""
    wanted = set(user_ids)
    lock_users(transaction.driver, wanted)
    found = {
        row[1]: MailboxRow(*row) for row in _INBOXES.all(transaction.driver, users=id_list(wanted))
    }
    for user_id in wanted - found.keys():
        if _USER_EXISTS.first(transaction.driver, user=user_id) is not None:
            found[user_id] = create_defaults(core, transaction, user_id)
    return found


def create_defaults(core: Core, transaction: Transaction, user_id: int) -> MailboxRow:
    """INBOX and the mailboxes with a special use, subscribed; gives INBOX.

    Raises: UserNotFound.
    """
    driver = transaction.driver
    lock_users(driver, [user_id])
    if _USER_EXISTS.first(driver, user=user_id) is None:
        raise UserNotFound
    if _BY_NAME.first(driver, user=user_id, name=INBOX) is None:
        insert(core, transaction, user_id, INBOX, "")
        _SUBSCRIBE.run(driver, user=user_id, name=INBOX)
        for use in SPECIAL_USES:
            if _BY_NAME.first(driver, user=user_id, name=use) is None:
                insert(core, transaction, user_id, use, use)
                _SUBSCRIBE.run(driver, user=user_id, name=use)
    return by_name(driver, user_id, INBOX)


def insert(
    core: Core, transaction: Transaction, user_id: int, name: str, special_use: str
) -> MailboxRow:
    """A new empty mailbox."""
    driver = transaction.driver
    ((mailbox_id,),) = _INSERT.all(
        driver,
        user=user_id,
        name=name,
        special_use=special_use,
        uid_validity=_new_validity(driver, core.now()),
    )
    _SET_OBJECT_ID.run(driver, mailbox=mailbox_id, text=core.ids.mailbox_object_id(mailbox_id))
    return by_id(driver, user_id, mailbox_id)


def create(
    core: Core, transaction: Transaction, user_id: int, name: str, special_use: str
) -> MailboxRow:
    """CREATE (RFC 3501 6.3.3, RFC 6154 3). Raises: as MailStore.create_mailbox."""
    driver = transaction.driver
    name = checked_name(name)
    create_defaults(core, transaction, user_id)
    if special_use and special_use not in SPECIAL_USES:
        raise InvalidRequest("this special use is not supported")
    if _BY_NAME.first(driver, user=user_id, name=name) is not None:
        raise MailboxExists
    if special_use and any(row.special_use == special_use for row in of_user(driver, user_id)):
        raise SpecialUseTaken
    return insert(core, transaction, user_id, name, special_use)


def _new_validity(driver: Driver, now: int) -> int:
    """UIDVALIDITY: greater than every one before, also of mailboxes that are gone."""
    (last,) = _LAST_VALIDITY.first(driver) or ("0",)
    validity = max(now, int(last) + 1)
    _SET_VALIDITY.run(driver, text=str(validity))
    return validity


# -- removing ----------------------------------------------------------------------------------


def remove(core: Core, transaction: Transaction, row: MailboxRow) -> None:
    """A mailbox goes with its messages."""
    driver = transaction.driver
    body_ids = [body_id for (body_id,) in _BODIES_OF.rows(driver, mailbox=row.id)]
    _bodies.mark_orphans(driver, body_ids, core.now_ms() + ORPHAN_GRACE_MS)
    for statement in _DELETES:
        statement.run(driver, mailbox=row.id)
    add_used(driver, {row.user_id: -row.size})
    transaction.events.append(MailboxChange(row.id, row.highest_modseq, gone=True))


def remove_all(core: Core, transaction: Transaction, user_id: int) -> None:
    """All mail of a user who is about to be removed."""
    for row in of_user(transaction.driver, user_id):
        remove(core, transaction, row)


def rename_rows(transaction: Transaction, rows: Sequence[tuple[MailboxRow, str]]) -> None:
    """Gives mailboxes new names."""
    for row, new_name in rows:
        _SET_NAME.run(transaction.driver, mailbox=row.id, new_name=new_name)


def add_used(driver: Driver, octets: dict[int, int]) -> None:
    """Adds to what users occupy: {user id: octets}."""
    _ADD_USED.run_each(
        driver,
        [{"user": user_id, "octets": change} for user_id, change in octets.items() if change],
    )


def set_subscribed(driver: Driver, user_id: int, name: str, *, subscribed: bool) -> None:
    """Raises: UserNotFound."""
    if _USER_EXISTS.first(driver, user=user_id) is None:
        raise UserNotFound
    statement = _SUBSCRIBE if subscribed else _UNSUBSCRIBE
    statement.run(driver, user=user_id, name=checked_name(name))
