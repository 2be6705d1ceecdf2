"""Administration of users: what `netmail user` does."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from netmail_common.mail_address import AddressError, MailAddress, fold, parse_mail_address
from netmail_common.sasl import check_user_name, prepare_password

from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.domain.directory_errors import (
    AddressNotFound,
    AddressTaken,
    BackendReadOnly,
    ContextNotFound,
    DomainNotLocal,
    InvalidAddress,
    InvalidPassword,
    InvalidUserName,
    UserExists,
)
from netmail_nmap.domain.errors import UserNotFound
from netmail_nmap.domain.users import Credentials, UserChanges, UserLookup, UserRecord

T = TypeVar("T")
MAX_FORWARD_TARGETS = 20


class UserAdministration:
    """Changes users. Every method is durable on return.

    A user is named by name and context, by name alone where only one context has it, or by a mail
    address in place of the name.
    """

    def __init__(self, directory: UserDirectory, hasher: PasswordHasher) -> None:
        self._directory = directory
        self._hasher = hasher

    async def create(
        self,
        name: str,
        context: str,
        password: str,
        *,
        addresses: Sequence[str] = (),
        quota_bytes: int | None = None,
    ) -> UserRecord:
        """Makes a user of an internal context. `context` empty: the first.

        Raises: ContextNotFound, BackendReadOnly, InvalidUserName, InvalidPassword, InvalidAddress,
            DomainNotLocal, UserExists, AddressTaken, HashingBusy, StoreUnavailable.
        """
        context = self._writable(context or self._directory.settings.contexts[0])
        name = _checked_name(name)
        key = fold(name)
        extra = [self._own_address(text) for text in addresses]
        credentials = await self._credentials(password)

        def create(changes: UserChanges) -> UserRecord:
            if changes.by_name(context, key) is not None:
                raise UserExists
            return self._directory.create_user(
                changes, context, name, key, credentials, extra=extra, quota_bytes=quota_bytes
            )

        return await self._directory.store.write(create)

    async def create_initial(
        self, name: str, context: str, password: str, addresses: Sequence[str]
    ) -> bool:
        """Makes a user that the configuration wants from the beginning; whether it did.

        Once: who was removed since does not come back with the password of the configuration.

        Raises: as `create`.
        """
        context = self._writable(context)
        name = _checked_name(name)
        key = fold(name)
        mark = f"initial user {context} {key}"
        extra = [self._own_address(text) for text in addresses]
        store = self._directory.store
        if await store.write(lambda changes: changes.has_mark(mark)):
            return False
        credentials = await self._credentials(password)

        def create(changes: UserChanges) -> bool:
            if changes.has_mark(mark):  # another agent was quicker
                return False
            changes.set_mark(mark)
            if changes.by_name(context, key) is not None:
                return False
            self._directory.create_user(changes, context, name, key, credentials, extra=extra)
            return True

        return await store.write(create)

    async def get(self, name: str, context: str) -> UserRecord:
        """Raises: UserNotFound, StoreUnavailable."""
        return await self._directory.store.read(lambda stored: self._find(stored, name, context))

    async def set_password(self, name: str, context: str, password: str) -> UserRecord:
        """Changes a password; logins and sessions with the old one end.

        Raises: UserNotFound, BackendReadOnly, InvalidPassword, HashingBusy, StoreUnavailable.
        """
        self._writable((await self.get(name, context)).context)
        credentials = await self._credentials(password)
        return await self.change(
            name, context, lambda changes, user: changes.set_credentials(user.id, credentials)
        )

    async def set_disabled(self, name: str, context: str, *, disabled: bool) -> UserRecord:
        """Disables (logins and sessions end) or enables a user, of whatever backend.

        Raises: UserNotFound, StoreUnavailable.
        """

        def change(changes: UserChanges, user: UserRecord) -> None:
            if user.disabled != disabled:
                changes.set_disabled(user.id, disabled=disabled)

        return await self.change(name, context, change)

    async def delete(self, name: str, context: str) -> None:
        """Removes a user with all his mail; logins and sessions end.

        Raises: UserNotFound, BackendReadOnly, StoreUnavailable.
        """

        def delete(changes: UserChanges) -> None:
            user = self._find(changes, name, context)
            self._writable(user.context)
            changes.delete(user.id)

        await self._directory.store.write(delete)

    async def add_address(self, name: str, context: str, text: str) -> UserRecord:
        """Raises: UserNotFound, InvalidAddress, DomainNotLocal, AddressTaken, StoreUnavailable."""
        address = self._own_address(text)

        def add(changes: UserChanges, user: UserRecord) -> None:
            owner = self._directory.lookup(changes).by_address(address.key())
            if owner is not None:
                raise AddressTaken
            changes.add_address(user.id, address.key(), address.wire)

        return await self.change(name, context, add)

    async def remove_address(self, name: str, context: str, text: str) -> UserRecord:
        """Raises: UserNotFound, InvalidAddress, AddressNotFound, StoreUnavailable."""
        address = _address(text)

        def remove(changes: UserChanges, user: UserRecord) -> None:
            if not changes.remove_address(user.id, address.key()):
                raise AddressNotFound

        return await self.change(name, context, remove)

    async def set_quota(self, name: str, context: str, quota_bytes: int) -> UserRecord:
        """Octets; 0: unlimited. Raises: UserNotFound, StoreUnavailable."""
        return await self.change(
            name, context, lambda changes, user: changes.set_quota(user.id, quota_bytes)
        )

    async def set_forwarding(
        self, name: str, context: str, forward_to: Sequence[str], *, keep_copy: bool
    ) -> UserRecord:
        """Forwards a user's mail; an empty list ends it.

        Raises: UserNotFound, InvalidAddress, StoreUnavailable.
        """
        if len(forward_to) > MAX_FORWARD_TARGETS:
            raise InvalidAddress(f"at most {MAX_FORWARD_TARGETS} addresses to forward to")
        targets = list(dict.fromkeys(_address(text).wire for text in forward_to))
        return await self.change(
            name,
            context,
            lambda changes, user: changes.set_forwarding(user.id, targets, keep_copy=keep_copy),
        )

    async def read(self, name: str, context: str, work: Callable[[UserLookup, UserRecord], T]) -> T:
        """Reads something of a user, on one snapshot.

        Raises: UserNotFound, StoreUnavailable.
        """
        return await self._directory.store.read(
            lambda stored: work(stored, self._find(stored, name, context))
        )

    async def change(
        self, name: str, context: str, work: Callable[[UserChanges, UserRecord], None]
    ) -> UserRecord:
        """Changes something of a user, who has a place in the storage then; the user after it.

        Raises: UserNotFound, StoreUnavailable, and what WORK raises.
        """

        def change(changes: UserChanges) -> UserRecord:
            user = self._find(changes, name, context)
            if not user.id:
                user = self._directory.store_file_user(changes, user)
            work(changes, user)
            lookup = self._directory.lookup(changes)
            return lookup.by_name(user.context, user.name_key) or user

        return await self._directory.store.write(change)

    def _find(self, stored: UserLookup, name: str, context: str) -> UserRecord:
        lookup = self._directory.lookup(stored)
        if context and context not in self._directory.settings.contexts:
            raise ContextNotFound
        contexts = (context,) if context else self._directory.settings.contexts
        key = fold(name)
        found = [user for c in contexts if (user := lookup.by_name(c, key)) is not None]
        if not found and not context and "@" in name:
            owner = lookup.by_address(_address(name).key())
            if owner is not None and owner.context in contexts:
                found = [owner]
        if not found:
            raise UserNotFound
        if len(found) > 1:
            raise UserNotFound("several contexts have a user of that name: name the context")
        return found[0]

    def _writable(self, context: str) -> str:
        if context not in self._directory.settings.contexts:
            raise ContextNotFound
        if context in self._directory.files:
            raise BackendReadOnly
        return context

    def _own_address(self, text: str) -> MailAddress:
        address = _address(text)
        if address.domain not in self._directory.settings.domains:
            raise DomainNotLocal
        return address

    async def _credentials(self, password: str) -> Credentials:
        try:
            prepared = prepare_password(password)
        except ValueError as error:
            raise InvalidPassword(str(error)) from error
        return await self._hasher.make(prepared)


def _checked_name(name: str) -> str:
    try:
        return check_user_name(name)
    except ValueError as error:
        raise InvalidUserName(str(error)) from error


def _address(text: str) -> MailAddress:
    try:
        return parse_mail_address(text)
    except AddressError as error:
        raise InvalidAddress(str(error)) from error
