"""The directory's tables."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from netmail_nmap.adapters import device_store
from netmail_nmap.adapters.schema import (
    pending_revocations,
    store_meta,
    user_addresses,
    users,
)
from netmail_nmap.adapters.sql import (
    Core,
    DirectoryChanged,
    Driver,
    Snapshot,
    Statement,
    Transaction,
    UserEnded,
    create_defaults,
    greater_of,
    id_list,
    ids_of,
    names_of,
    remove_all,
)
from netmail_nmap.domain.devices import DeviceUse, NewDevice
from netmail_nmap.domain.errors import UserNotFound
from netmail_nmap.domain.users import (
    Credentials,
    NewUser,
    PendingRevocation,
    ScramVerifier,
    UserChanges,
    UserLookup,
    UserRecord,
)

T = TypeVar("T")

_bind = sa.bindparam
_SELECT = sa.select(
    users.c.id,
    users.c.context,
    users.c.name,
    users.c.name_key,
    users.c.password_hash,
    users.c.scram_salt,
    users.c.scram_iterations,
    users.c.scram_stored_key,
    users.c.scram_server_key,
    users.c.disabled,
    users.c.credential_epoch,
    users.c.quota_bytes,
    users.c.used_bytes,
    users.c.forward_to,
    users.c.keep_copy,
)
_BY_NAME = Statement(
    _SELECT.where(users.c.context == _bind("context"), users.c.name_key == _bind("name_key"))
)
_BY_ADDRESS = Statement(
    _SELECT.join(user_addresses, user_addresses.c.user_id == users.c.id).where(
        user_addresses.c.address_key == _bind("address_key")
    )
)
_FIRST = Statement(
    _SELECT.where(users.c.context == _bind("context"), users.c.disabled.is_(sa.false()))
    .order_by(users.c.id)
    .limit(1)
)
_OF_CONTEXT = Statement(_SELECT.where(users.c.context == _bind("context")).order_by(users.c.id))
_PAGE = Statement(
    _SELECT.where(users.c.context.in_(names_of("contexts")), users.c.id > _bind("after"))
    .order_by(users.c.id)
    .limit(_bind("count"))
)
_COUNT = Statement(
    sa.select(sa.func.count()).select_from(users).where(users.c.context == _bind("context"))
)
_ADDRESSES = Statement(
    sa.select(user_addresses.c.address)
    .where(user_addresses.c.user_id == _bind("user_id"))
    .order_by(user_addresses.c.position)
)
_META = Statement(sa.select(store_meta.c.value).where(store_meta.c.key == _bind("key")))
_PENDING = Statement(
    sa.select(
        pending_revocations.c.id,
        pending_revocations.c.name,
        pending_revocations.c.context,
        pending_revocations.c.credential_epoch,
    )
    .order_by(pending_revocations.c.id)
    .limit(_bind("count"))
)
_ACKNOWLEDGED = Statement(
    sa.delete(pending_revocations).where(pending_revocations.c.id.in_(ids_of("ids")))
)


class SqlUserLookup:
    """Users in one snapshot or transaction, for its thread only."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def by_name(self, context: str, name_key: str) -> UserRecord | None:
        """The user of that folded name, disabled or not."""
        return self._user(_BY_NAME.first(self._driver, context=context, name_key=name_key))

    def by_address(self, address_key: str) -> UserRecord | None:
        """The user who has the address, disabled or not."""
        return self._user(_BY_ADDRESS.first(self._driver, address_key=address_key))

    def first(self, context: str) -> UserRecord | None:
        """The first user of the context who is not disabled."""
        return self._user(_FIRST.first(self._driver, context=context))

    def all_of_context(self, context: str) -> list[UserRecord]:
        """Every user of a context."""
        return [self._record(row) for row in _OF_CONTEXT.all(self._driver, context=context)]

    def devices_of(self, user_id: int) -> list[DeviceUse]:
        """The user's device passwords, in the order in which they were made."""
        return device_store.uses_of(self._driver, user_id)

    def has_old_devices(self, now: int) -> bool:
        """Whether a device password has come to its end and its logins were not revoked yet."""
        return device_store.has_due(self._driver, now)

    def page(self, contexts: Sequence[str], after_id: int, limit: int) -> list[UserRecord]:
        """Users by ascending id."""
        rows = _PAGE.all(self._driver, contexts=id_list(contexts), after=after_id, count=limit)
        return [self._record(row) for row in rows]

    def _user(self, row: Any | None) -> UserRecord | None:
        return None if row is None else self._record(row)

    def _record(self, row: Any) -> UserRecord:
        scram = None if row[5] is None else ScramVerifier(row[5], row[6], row[7], row[8])
        return UserRecord(
            id=row[0],
            context=row[1],
            name=row[2],
            name_key=row[3],
            credentials=Credentials(row[4] or "", scram),
            disabled=bool(row[9]),
            credential_epoch=row[10],
            quota_bytes=row[11],
            used_bytes=row[12],
            forward_to=tuple(json.loads(row[13])),
            keep_copy=bool(row[14]),
            addresses=tuple(text for (text,) in _ADDRESSES.all(self._driver, user_id=row[0])),
            devices=device_store.devices_of(self._driver, row[0]),
        )


class SqlUserChanges(SqlUserLookup):
    """Users in the open write transaction."""

    def __init__(self, core: Core, transaction: Transaction) -> None:
        super().__init__(transaction.driver)
        self._core = core
        self._transaction = transaction
        self._connection = transaction.connection
        self._now_ms = core.now_ms()

    def has_mark(self, mark: str) -> bool:
        """Whether something that is done once was done."""
        return _META.first(self._driver, key=f"mark:{mark}") is not None

    def set_mark(self, mark: str) -> None:
        """It is done now."""
        self._connection.execute(sa.insert(store_meta).values(key=f"mark:{mark}", value="done"))

    def create(self, user: NewUser) -> UserRecord:
        """Stores a user. The caller has checked that name and addresses are free."""
        self._connection.execute(
            sa.insert(users).values(
                context=user.context,
                name=user.name,
                name_key=user.name_key,
                # Above every epoch that an earlier user of this name can have had.
                credential_epoch=self._now_ms,
                quota_bytes=user.quota_bytes,
                created_at=self._now_ms // 1000,
                **_columns(user.credentials),
            )
        )
        created = self.by_name(user.context, user.name_key)
        if created is None:
            raise UserNotFound
        create_defaults(self._core, self._transaction, created.id)
        for key, address in user.addresses:
            self.add_address(created.id, key, address)
        return self.by_name(user.context, user.name_key) or created

    def set_credentials(self, user_id: int, credentials: Credentials) -> None:
        """Stores a new password; raises the credential epoch."""
        self._update(user_id, **_columns(credentials))
        self._revoke(user_id)

    def renew_credentials(self, user_id: int, old_hash: str, credentials: Credentials) -> None:
        """Stores the same password anew, if it is still the one of OLD_HASH; no epoch is raised."""
        self._connection.execute(
            sa.update(users)
            .where(users.c.id == user_id, users.c.password_hash == old_hash)
            .values(**_columns(credentials))
        )

    def set_disabled(self, user_id: int, *, disabled: bool) -> None:
        """Disables (raises the credential epoch) or enables."""
        self._update(user_id, disabled=disabled)
        if disabled:
            self._revoke(user_id)

    def delete(self, user_id: int) -> None:
        """Removes a user with all his mail; leaves a revocation behind."""
        self._revoke(user_id)
        remove_all(self._core, self._transaction, user_id)
        self._connection.execute(sa.delete(users).where(users.c.id == user_id))

    def add_address(self, user_id: int, key: str, address: str) -> None:
        """Adds a free address, behind the others."""
        last = self._connection.scalar(
            sa.select(sa.func.max(user_addresses.c.position)).where(
                user_addresses.c.user_id == user_id
            )
        )
        self._connection.execute(
            sa.insert(user_addresses).values(
                address_key=key,
                address=address,
                user_id=user_id,
                position=0 if last is None else last + 1,
            )
        )

    def remove_address(self, user_id: int, key: str) -> bool:
        """Removes an address; False: the user has no such one."""
        result = self._connection.execute(
            sa.delete(user_addresses).where(
                user_addresses.c.user_id == user_id, user_addresses.c.address_key == key
            )
        )
        return result.rowcount > 0

    def set_quota(self, user_id: int, quota_bytes: int) -> None:
        """Octets; 0: unlimited."""
        self._update(user_id, quota_bytes=quota_bytes)

    def set_forwarding(self, user_id: int, forward_to: Sequence[str], *, keep_copy: bool) -> None:
        """Where mail goes; empty: nowhere."""
        self._update(user_id, forward_to=json.dumps(list(forward_to)), keep_copy=keep_copy)

    def add_device(self, user_id: int, device: NewDevice) -> None:
        """Stores a device password. The caller has checked that the name is free."""
        device_store.insert_device(self._connection, user_id, device, self._now_ms // 1000)

    def remove_device(self, user_id: int, name_key: str) -> bool:
        """Removes a device password and raises the credential epoch; False: there is none."""
        removed = device_store.remove_device(self._connection, user_id, name_key)
        if removed:
            self._revoke(user_id)
        return removed

    def end_devices(self, now: int) -> int:
        """Raises the credential epoch of users whose device passwords have come to their end.

        Once for each password. Returns: how many users.
        """
        ended = sorted(device_store.due_devices(self._connection, now))
        for user_id in ended:
            self._revoke(user_id)
        return len(ended)

    def _update(self, user_id: int, **values: Any) -> None:
        self._connection.execute(sa.update(users).where(users.c.id == user_id).values(**values))

    def _revoke(self, user_id: int) -> None:
        """Raises the epoch, remembers to tell the Connection Managers, ends open sessions."""
        epoch = greater_of(users.c.credential_epoch + 1, self._now_ms)
        self._update(user_id, credential_epoch=epoch)
        self._connection.execute(
            sa.insert(pending_revocations).from_select(
                ["name", "context", "credential_epoch", "created_at"],
                sa.select(
                    users.c.name,
                    users.c.context,
                    users.c.credential_epoch,
                    sa.literal(self._now_ms // 1000),
                ).where(users.c.id == user_id),
            )
        )
        self._transaction.events.append(UserEnded(user_id))


class SqlDirectoryStore:
    """Implements `DirectoryStore` beside the mail store, in the same database."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def version(self) -> int | None:
        """Grows with each change of users; None: another process may have changed them."""
        return self._core.directory_version.value

    async def read(self, work: Callable[[UserLookup], T]) -> T:
        """Runs WORK on one snapshot, off the event loop.

        Raises: StoreUnavailable, and what WORK raises.
        """

        def on_snapshot(snapshot: Snapshot) -> T:
            return work(SqlUserLookup(snapshot.driver))

        return await self._core.readers.run(on_snapshot)

    async def write(self, work: Callable[[UserChanges], T]) -> T:
        """Runs WORK in one transaction; durable on return, without effect when it raises.

        Raises: StoreUnavailable, and what WORK raises.
        """

        def in_transaction(transaction: Transaction) -> T:
            transaction.events.append(DirectoryChanged())
            return work(SqlUserChanges(self._core, transaction))

        try:
            return await self._core.writer.run(in_transaction)
        finally:
            self._core.directory_version.changed()

    async def devices_used(self, uses: Mapping[int, tuple[int, str]]) -> None:
        """Stores when and from where devices were used; no login depends on it.

        Raises: StoreUnavailable.
        """
        await self._core.writer.run(
            lambda transaction: device_store.store_uses(transaction.driver, uses)
        )

    async def list_users(
        self, contexts: Sequence[str], after_id: int, limit: int
    ) -> list[UserRecord]:
        """Users by ascending id."""
        return await self._core.readers.run(
            lambda snapshot: SqlUserLookup(snapshot.driver).page(contexts, after_id, limit)
        )

    async def count_users(self, context: str) -> int:
        """How many users the context has in the storage."""
        row = await self._core.readers.run(
            lambda snapshot: _COUNT.first(snapshot.driver, context=context)
        )
        return int(row[0]) if row else 0

    async def secret(self, name: str) -> bytes:
        """32 random octets, the same ever after; made at the first call."""
        key = f"secret:{name}"

        def get_or_make(transaction: Transaction) -> str:
            row = _META.first(transaction.driver, key=key)
            if row is not None:
                return str(row[0])
            value = secrets.token_hex(32)
            transaction.connection.execute(sa.insert(store_meta).values(key=key, value=value))
            return value

        return bytes.fromhex(await self._core.writer.run(get_or_make))

    async def pending_revocations(self, limit: int) -> list[PendingRevocation]:
        """The oldest revocations that are not acknowledged."""
        rows = await self._core.readers.run(
            lambda snapshot: _PENDING.all(snapshot.driver, count=limit)
        )
        return [PendingRevocation(*row) for row in rows]

    async def revocations_acknowledged(self, ids: Sequence[int]) -> None:
        """Forgets revocations."""
        await self._core.writer.run(
            lambda transaction: _ACKNOWLEDGED.run(transaction.driver, ids=id_list(ids))
        )


def _columns(credentials: Credentials) -> dict[str, object]:
    scram = credentials.scram
    return {
        "password_hash": credentials.password_hash or None,
        "scram_salt": scram and scram.salt,
        "scram_iterations": scram and scram.iterations,
        "scram_stored_key": scram and scram.stored_key,
        "scram_server_key": scram and scram.server_key,
    }
