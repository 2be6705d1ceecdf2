"""The mail store: each method is one operation of the writer or one read of a snapshot."""

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Sequence

import sqlalchemy as sa

from netmail_nmap.adapters.schema import subscriptions, users
from netmail_nmap.adapters.sql import (
    _bodies,
    _changes,
    _fetch,
    _mailboxes,
    _messages,
    _search,
)
from netmail_nmap.adapters.sql._bodies import LargeBody, NewBody
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._flags import flags_to_mask
from netmail_nmap.adapters.sql._hierarchy import listing, with_children
from netmail_nmap.adapters.sql._locks import Locks
from netmail_nmap.adapters.sql._mailboxes import MailboxRow
from netmail_nmap.adapters.sql._messages import Filing
from netmail_nmap.adapters.sql._readers import Snapshot
from netmail_nmap.adapters.sql._statements import Driver, Statement
from netmail_nmap.adapters.sql._uploads import SqlUpload, placed
from netmail_nmap.adapters.sql._watch import ChangeHub, SqlWatch
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import Body
from netmail_nmap.domain.errors import (
    InvalidRequest,
    MailboxExists,
    MailboxHasChildren,
    MailboxNotFound,
    NmapError,
    UserNotFound,
)
from netmail_nmap.domain.mail import (
    HIERARCHY_SEPARATOR,
    INBOX,
    Appended,
    AppendTarget,
    Copied,
    Expunged,
    FetchedMessage,
    FetchRequest,
    FlagsStored,
    MailboxChange,
    MailboxInfo,
    MailboxView,
    OpenRequest,
    Quota,
    SearchOutcome,
    StoreRequest,
)
from netmail_nmap.domain.search import SearchKey

_SUBSCRIBED = Statement(
    sa.select(subscriptions.c.name).where(subscriptions.c.user_id == sa.bindparam("user"))
)
_QUOTA = Statement(
    sa.select(users.c.used_bytes, users.c.quota_bytes).where(users.c.id == sa.bindparam("user"))
)


CHANGES_AT_ONCE = 5_000
"""Messages of one operation of the writer: others get a turn in between."""


class SqlMailStore:
    """See `netmail_nmap.domain.store.MailStore`."""

    def __init__(self, core: Core, hub: ChangeHub, locks: Locks) -> None:
        self._core = core
        self._hub = hub
        self._locks = locks

    # -- mailboxes -----------------------------------------------------------------------------

    async def list_mailboxes(
        self, user_id: int, *, name: str = "", with_status: bool = False
    ) -> list[MailboxInfo]:
        """See the protocol."""

        def read(snapshot: Snapshot) -> list[MailboxInfo] | None:
            driver = snapshot.driver
            rows = _mailboxes.of_user(driver, user_id)
            if not rows:
                return None
            subscribed = {row[0] for row in _SUBSCRIBED.rows(driver, user=user_id)}
            wanted = _mailboxes.normal_name(name)
            status = (lambda row: _messages.status(driver, row)) if with_status else None
            return listing(rows, subscribed, wanted, status)

        found = await self._core.readers.run(read)
        if found is None:
            await self._make_defaults(user_id)
            found = await self._core.readers.run(read) or []
        if name and not found:
            raise MailboxNotFound
        return found

    async def create_mailbox(self, user_id: int, name: str, special_use: str = "") -> MailboxInfo:
        """See the protocol."""

        def operation(transaction: Transaction) -> MailboxRow:
            return _mailboxes.create(self._core, transaction, user_id, name, special_use)

        row = await self._core.writer.run(operation)
        return (await self.list_mailboxes(user_id, name=row.name))[0]

    async def delete_mailbox(self, user_id: int, name: str) -> None:
        """See the protocol."""

        def operation(transaction: Transaction) -> None:
            wanted = _mailboxes.normal_name(name)
            if wanted == INBOX:
                raise InvalidRequest("INBOX cannot be deleted")
            _mailboxes.create_defaults(self._core, transaction, user_id)
            rows = _mailboxes.of_user(transaction.driver, user_id)
            row = next((row for row in rows if row.name == wanted), None)
            if row is not None:
                _mailboxes.remove(self._core, transaction, row)
            elif any(row.name.startswith(wanted + HIERARCHY_SEPARATOR) for row in rows):
                raise MailboxHasChildren
            else:
                raise MailboxNotFound

        await self._core.writer.run(operation)

    async def rename_mailbox(self, user_id: int, old_name: str, new_name: str) -> None:
        """See the protocol."""

        def operation(transaction: Transaction) -> None:
            self._rename(transaction, user_id, old_name, new_name)

        await self._core.writer.run(operation)

    def _rename(self, transaction: Transaction, user_id: int, old_name: str, new_name: str) -> None:
        core, driver = self._core, transaction.driver
        old, new = _mailboxes.normal_name(old_name), _mailboxes.checked_name(new_name)
        _mailboxes.create_defaults(core, transaction, user_id)
        rows = _mailboxes.of_user(driver, user_id)
        taken = {row.name for row in rows}
        if old == INBOX:
            if new in taken:
                raise MailboxExists
            target = _mailboxes.insert(core, transaction, user_id, new, "")
            _changes.move_everything(
                core, transaction, _mailboxes.by_name(driver, user_id, INBOX), target
            )
            return
        moved = with_children(rows, old)
        if not moved:
            raise MailboxNotFound
        if new.startswith(old + HIERARCHY_SEPARATOR):
            raise InvalidRequest("a mailbox cannot be moved below itself")
        renamed = [
            (row, _mailboxes.checked_name(new + row.name.removeprefix(old))) for row in moved
        ]
        if new in taken or any(name in taken for _, name in renamed):
            raise MailboxExists
        _mailboxes.rename_rows(transaction, renamed)

    async def set_subscribed(self, user_id: int, name: str, *, subscribed: bool) -> None:
        """See the protocol."""

        def operation(transaction: Transaction) -> None:
            _mailboxes.set_subscribed(transaction.driver, user_id, name, subscribed=subscribed)

        await self._core.writer.run(operation)

    # -- sessions ------------------------------------------------------------------------------

    async def open_mailbox(self, request: OpenRequest) -> MailboxView:
        """See the protocol."""
        view = await self._core.readers.run(
            lambda snapshot: _open_unclaimed(self._core, snapshot.driver, request)
        )
        return await self._claim_and_open(request) if view is None else view

    async def open_mailboxes(
        self, requests: Sequence[OpenRequest]
    ) -> list[MailboxView | NmapError]:
        """See the protocol."""

        def read(snapshot: Snapshot) -> list[MailboxView | NmapError | None]:
            return [
                _or_error(_open_unclaimed, self._core, snapshot.driver, request)
                for request in requests
            ]

        results: list[MailboxView | NmapError] = []
        for request, found in zip(requests, await self._core.readers.run(read), strict=True):
            if found is not None:
                results.append(found)
                continue
            try:
                results.append(await self._claim_and_open(request))
            except NmapError as error:
                results.append(error)
        return results

    async def _claim_and_open(self, request: OpenRequest) -> MailboxView:

        def claim(transaction: Transaction) -> MailboxRow:
            driver = transaction.driver
            _mailboxes.create_defaults(self._core, transaction, request.user_id)
            row = _mailboxes.by_name(driver, request.user_id, request.name)
            if request.claim_recent:
                _messages.claim_recent(driver, row.id)
            return row

        claimed = await self._core.writer.run(claim)
        return await self._core.readers.run(
            lambda snapshot: _view_after_claim(self._core, snapshot.driver, request, claimed)
        )

    async def sync_mailbox(
        self, user_id: int, mailbox_id: int, since_modseq: int, *, claim_recent: bool = False
    ) -> MailboxView:
        """See the protocol."""

        def read(driver: Driver, first_recent_uid: int | None) -> MailboxView | None:
            row = _mailboxes.by_id(driver, user_id, mailbox_id)
            if first_recent_uid is not None:
                row = row._replace(first_recent_uid=first_recent_uid)
            elif claim_recent and row.first_recent_uid < row.uid_next:
                return None
            return _messages.sync_view(self._core, driver, row, since_modseq)

        view = await self._core.readers.run(lambda snapshot: read(snapshot.driver, None))
        if view is not None:
            return view

        def claim(transaction: Transaction) -> int:
            row = _mailboxes.by_id(transaction.driver, user_id, mailbox_id)
            _messages.claim_recent(transaction.driver, row.id)
            return row.first_recent_uid

        first = await self._core.writer.run(claim)
        view = await self._core.readers.run(lambda snapshot: read(snapshot.driver, first))
        if view is None:
            raise AssertionError("a view with its recent messages claimed is always there")
        return view

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[SqlWatch]:
        """See the protocol."""
        watch = SqlWatch(self._hub, self._changes_now)
        try:
            yield watch
        finally:
            watch.close()

    async def _changes_now(self, mailbox_ids: Sequence[int]) -> list[MailboxChange]:
        rows = await self._core.readers.run(
            lambda snapshot: _mailboxes.by_ids(snapshot.driver, mailbox_ids)
        )
        return [
            MailboxChange(mailbox_id, rows[mailbox_id].highest_modseq)
            if mailbox_id in rows
            else MailboxChange(mailbox_id, 0, gone=True)
            for mailbox_id in mailbox_ids
        ]

    @contextlib.asynccontextmanager
    async def lock(self, user_id: int, name: str) -> AsyncIterator[bool]:
        """See the protocol."""
        async with self._locks.lock(user_id, _mailboxes.normal_name(name)) as held:
            yield held

    async def quota(self, user_id: int) -> Quota:
        """See the protocol."""
        row = await self._core.readers.run(
            lambda snapshot: _QUOTA.first(snapshot.driver, user=user_id)
        )
        if row is None:
            raise UserNotFound
        return Quota(max(0, row[0]), row[1])

    # -- messages ------------------------------------------------------------------------------

    def fetch(self, request: FetchRequest) -> AsyncIterator[Sequence[FetchedMessage]]:
        """See the protocol."""
        return _fetch.fetch(self._core, request)

    async def search(
        self, user_id: int, mailbox_id: int, key: SearchKey, uids: Sequence[int] = ()
    ) -> SearchOutcome:
        """See the protocol."""
        return await _search.search(self._core, user_id, mailbox_id, key, uids)

    async def store_flags(self, request: StoreRequest) -> FlagsStored:
        """See the protocol."""
        parts = []
        for start in range(0, max(1, len(request.uids)), CHANGES_AT_ONCE):
            uids = request.uids[start : start + CHANGES_AT_ONCE]
            part = functools.partial(
                _changes.store_flags, self._core, request=dataclasses.replace(request, uids=uids)
            )
            parts.append(await self._core.writer.run(part))
        return _changes.joined_flags(parts)

    async def copy(
        self, user_id: int, mailbox_id: int, uids: Sequence[int], to_name: str
    ) -> Copied:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _changes.copy(
                self._core, transaction, user_id, mailbox_id, uids, to_name
            )
        )

    async def move(
        self, user_id: int, mailbox_id: int, uids: Sequence[int], to_name: str
    ) -> Copied:
        """See the protocol."""
        return await self._core.writer.run(
            lambda transaction: _changes.move(
                self._core, transaction, user_id, mailbox_id, uids, to_name
            )
        )

    async def expunge(
        self, user_id: int, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool
    ) -> Expunged:
        """See the protocol."""
        if uids is None:
            uids = await self._core.readers.run(
                lambda snapshot: _changes.deleted_uids(snapshot.driver, user_id, mailbox_id)
            )
        parts = []
        for start in range(0, max(1, len(uids)), CHANGES_AT_ONCE):
            part = functools.partial(
                _changes.expunge,
                self._core,
                user_id=user_id,
                mailbox_id=mailbox_id,
                uids=uids[start : start + CHANGES_AT_ONCE],
                only_deleted=only_deleted,
            )
            parts.append(await self._core.writer.run(part))
        return _changes.joined_expunged(parts)

    def upload(self, *, limit: int, local_prefix: bytes = b"") -> SqlUpload:
        """See the protocol."""
        return SqlUpload(self._core, limit=limit, local_prefix=local_prefix)

    async def append(self, target: AppendTarget, body: Body) -> Appended:
        """See the protocol."""
        at_its_place = await placed(self._core, body, b"")
        return await self._core.writer.run(
            lambda transaction: _append(self._core, transaction, target, at_its_place)
        )

    async def _make_defaults(self, user_id: int) -> None:
        await self._core.writer.run(
            lambda transaction: _mailboxes.create_defaults(self._core, transaction, user_id)
        )


def _open_unclaimed(core: Core, driver: Driver, request: OpenRequest) -> MailboxView | None:
    """Gives nothing when the writer has to do something first."""
    try:
        row = _mailboxes.by_name(driver, request.user_id, request.name)
    except MailboxNotFound:
        if _mailboxes.of_user(driver, request.user_id):
            raise
        return None
    if request.claim_recent and row.first_recent_uid < row.uid_next:
        return None
    return _messages.open_view(core, driver, request, row)


def _or_error(
    read: Callable[[Core, Driver, OpenRequest], MailboxView | None],
    core: Core,
    driver: Driver,
    request: OpenRequest,
) -> MailboxView | NmapError | None:
    try:
        return read(core, driver, request)
    except NmapError as error:
        return error


def _view_after_claim(
    core: Core, driver: Driver, request: OpenRequest, claimed: MailboxRow
) -> MailboxView:
    row = _mailboxes.by_name(driver, request.user_id, request.name)
    if row.id == claimed.id:
        row = row._replace(first_recent_uid=claimed.first_recent_uid)
    return _messages.open_view(core, driver, request, row)


def _append(core: Core, transaction: Transaction, target: AppendTarget, body: Body) -> Appended:
    driver = transaction.driver
    try:
        row = _mailboxes.by_name(driver, target.user_id, target.mailbox)
    except MailboxNotFound:  # of a user who has none yet, as a rule
        _mailboxes.create_defaults(core, transaction, target.user_id)
        row = _mailboxes.by_name(driver, target.user_id, target.mailbox)
    size = len(body) if isinstance(body, bytes) else body.size
    _changes.check_quota(driver, target.user_id, size)
    mask = flags_to_mask(driver, row.id, target.flags)
    if isinstance(body, bytes):
        body_id = core.ids.next_body(driver)
        _bodies.insert_bodies(driver, [NewBody(body_id, b"", body)])
    elif isinstance(body, LargeBody):
        body_id = body.id
        _bodies.adopt(driver, body)
    else:
        raise TypeError("the body is not of this store")
    date = core.now() if target.internal_date is None else target.internal_date
    (uid,) = _messages.file_messages(core, transaction, [Filing(row.id, body_id, size, mask, date)])
    return Appended(row.uid_validity, uid)
