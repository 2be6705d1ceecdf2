"""The directory of one Messaging Server: finds users for logins, recipients and deliveries."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from netmail_common.mail_address import AddressError, MailAddress
from netmail_common.nmap import ResolveOutcome

from netmail_nmap.adapters.htpasswd import PasswordFileSource
from netmail_nmap.domain.delivery import Expansion
from netmail_nmap.domain.directory_errors import AddressTaken
from netmail_nmap.domain.errors import InvalidRequest
from netmail_nmap.domain.password_file import FileAwareLookup, PasswordFile, default_addresses
from netmail_nmap.domain.recipients import (
    DirectorySettings,
    Recipients,
    is_role_address,
    to_expansion,
)
from netmail_nmap.domain.users import (
    Credentials,
    DirectoryStore,
    NewUser,
    UserChanges,
    UserLookup,
    UserRecord,
)
from netmail_nmap.domain.versioned import VersionedCache

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """What becomes of mail to an address.

    Attributes:
        user: with LOCAL and MAILBOX_FULL.
        catch_all: it is nobody's address; the user gets what nobody has.
    """

    outcome: ResolveOutcome
    user: UserRecord | None = None
    catch_all: bool = False


class UserDirectory:
    """Reads the users of the contexts that this NMAP agent holds.

    Args:
        settings: of the Messaging Server.
        store: users of internal contexts, and what the users of the others need stored.
        files: the contexts that are kept in password files.
        default_quota: octets; 0: unlimited.
    """

    def __init__(
        self,
        settings: DirectorySettings,
        store: DirectoryStore,
        files: Mapping[str, PasswordFileSource],
        default_quota: int,
    ) -> None:
        self.settings = settings
        self.store = store
        self.files = files
        self.default_quota = default_quota
        self._generation = 0
        self._gone: set[str] = set()
        self._logins: VersionedCache[UserRecord] = VersionedCache(self._version)
        self._resolved: VersionedCache[ResolvedAddress] = VersionedCache(self._version)
        self._expanded: VersionedCache[Expansion] = VersionedCache(self._version)
        self._expanded_handed_over: VersionedCache[Expansion] = VersionedCache(self._version)

    def use(
        self,
        settings: DirectorySettings,
        files: Mapping[str, PasswordFileSource],
        default_quota: int,
    ) -> None:
        """Goes on with other settings; what was read with the old ones is forgotten.

        Users of contexts that are gone are there no more; `end_users_who_are_gone` is next.
        """
        self._gone |= set(self.settings.contexts)
        self._gone -= set(settings.contexts)
        self.settings = settings
        self.files = files
        self.default_quota = default_quota
        self._generation += 1

    async def end_users_who_are_gone(self) -> None:
        """Raises the credential epochs of contexts that are gone: logins and sessions end.

        Raises: StoreUnavailable; it may be called again then.
        """
        gone = sorted(self._gone)

        def end(changes: UserChanges) -> None:
            for context in gone:
                for user in changes.all_of_context(context):
                    changes.set_credentials(user.id, user.credentials)

        if gone:
            await self.store.write(end)
            self._gone.difference_update(gone)

    def lookup(self, stored: UserLookup) -> FileAwareLookup:
        """Users of the storage and of the files as one."""
        return FileAwareLookup(
            stored, self._file_contents(), self.settings.domains, self.default_quota
        )

    async def find_login(self, username: str) -> UserRecord | None:
        """The user who logs in with this bare name or mail address.

        What he occupies may be out of date.

        Raises: StoreUnavailable.
        """
        known = self._logins.get(username)
        if known is not None:
            return known
        version = self._logins.version()
        user = await self._read(lambda recipients: recipients.for_login(username))
        if user is not None:
            self._logins.put(username, user, version)
        return user

    async def resolve(
        self, addresses: Sequence[str], sizes: Sequence[int]
    ) -> list[ResolvedAddress]:
        """What becomes of mail to each address, by the size of its message (0: unknown).

        Raises: StoreUnavailable.
        """
        known = [self._resolved.get(address) for address in addresses]
        missing = [index for index, result in enumerate(known) if result is None]
        if not missing:
            return [result for result in known if result is not None]
        version = self._resolved.version()

        def resolve_missing(recipients: Recipients) -> list[ResolvedAddress]:
            return [_resolve(recipients, addresses[index], sizes[index]) for index in missing]

        found = dict(zip(missing, await self._read(resolve_missing), strict=True))
        results: list[ResolvedAddress] = []
        for index, result in enumerate(known):
            if result is None:
                result = await self._with_id(found[index])  # noqa: PLW2901 - the same result
                # A quota makes the answer depend on what he occupies now.
                if result.user is not None and not result.user.quota_bytes:
                    self._resolved.put(addresses[index], result, version)
            results.append(result)
        return results

    async def expand(
        self, addresses: Sequence[str], *, handed_over: bool = False
    ) -> list[Expansion]:
        """Implements `RecipientResolver`.

        Raises: StoreUnavailable.
        """
        cache = self._expanded_handed_over if handed_over else self._expanded
        known = [cache.get(address) for address in addresses]
        missing = [a for a, result in zip(addresses, known, strict=True) if result is None]
        if missing:
            version = cache.version()
            read = await self._read(
                lambda recipients: [
                    recipients.expand(address, handed_over=handed_over) for address in missing
                ]
            )
            found = {}
            for address, (users, remote) in zip(missing, read, strict=True):
                stored = [await self.ensure_stored(user) for user in users]
                found[address] = to_expansion(stored, remote)
                if users:
                    cache.put(address, found[address], version)
        return [
            result if result is not None else found[address]
            for address, result in zip(addresses, known, strict=True)
        ]

    async def ensure_stored(self, user: UserRecord) -> UserRecord:
        """Gives a user whom only his password file knew a place in the storage.

        Raises: StoreUnavailable.
        """
        if user.id:
            return user
        return await self.store.write(lambda changes: self.store_file_user(changes, user))

    def store_file_user(self, changes: UserChanges, user: UserRecord) -> UserRecord:
        """The same within a transaction."""
        stored = changes.by_name(user.context, user.name_key)
        if stored is None:
            stored = self.create_user(
                changes, user.context, user.name, user.name_key, user.credentials
            )
        return self.lookup(changes).by_name(user.context, user.name_key) or stored

    def create_user(
        self,
        changes: UserChanges,
        context: str,
        name: str,
        name_key: str,
        credentials: Credentials,
        *,
        extra: Sequence[MailAddress] = (),
        quota_bytes: int | None = None,
    ) -> UserRecord:
        """Stores a user with name@domain wherever that is free, and the extra addresses.

        Raises: AddressTaken for an extra address.
        """
        lookup = self.lookup(changes)
        addresses: dict[str, str] = {}
        for address in default_addresses(name, self.settings.domains):
            if self._is_free(lookup, address, context, name_key):
                addresses[address.key()] = address.wire
        for address in extra:
            if not self._is_free(lookup, address, context, name_key):
                raise AddressTaken
            addresses[address.key()] = address.wire
        return changes.create(
            NewUser(
                context,
                name,
                name_key,
                credentials,
                tuple(addresses.items()),
                self.default_quota if quota_bytes is None else quota_bytes,
            )
        )

    async def list_users(
        self, contexts: Sequence[str], token: str, limit: int
    ) -> tuple[list[UserRecord], str]:
        """A page of users: those of internal contexts, then each password file's.

        Args:
            contexts: held by this agent.
            token: where the last page ended; empty: the beginning.
            limit: users of a page.

        Raises: InvalidRequest for an odd token; StoreUnavailable.
        """
        part, _, position = (token or "s:0").partition(":")
        if not position.isdecimal() or part not in {"s", "f"}:
            raise InvalidRequest("page_token")
        if part == "s":
            internal = [context for context in contexts if context not in self.files]
            page = await self.store.list_users(internal, int(position), limit)
            return page, f"s:{page[-1].id}" if len(page) == limit else self._first_file_page(
                contexts
            )
        listed = [
            (context, user.name_key)
            for context in contexts
            if context in self.files
            for user in self.files[context].current.users.values()
        ]
        start = int(position)
        places = listed[start : start + limit]

        def join(stored: UserLookup) -> list[UserRecord]:
            lookup = self.lookup(stored)
            found = (lookup.by_name(context, key) for context, key in places)
            return [user for user in found if user is not None]

        more = start + limit < len(listed)
        return await self.store.read(join), f"f:{start + limit}" if more else ""

    def _first_file_page(self, contexts: Sequence[str]) -> str:
        return "f:0" if any(context in self.files for context in contexts) else ""

    async def take_in_file(self, source: PasswordFileSource) -> None:
        """Compares a password file with what is stored of its users.

        Whose hash has changed, or who is no longer listed, gets a higher credential epoch, and
        his logins are revoked.

        Raises: StoreUnavailable.
        """
        content = source.current

        def compare(changes: UserChanges) -> None:
            for user in changes.all_of_context(source.context):
                listed = content.get(user.name_key)
                password_hash = "" if listed is None else listed.password_hash
                if password_hash != user.credentials.password_hash:
                    changes.set_credentials(user.id, Credentials(password_hash))

        await self.store.write(compare)

    def a_file_hash(self, context: str) -> str | None:
        """Some user's hash of a context kept in a file; None: the context is not, or is empty."""
        source = self.files.get(context)
        if source is None:
            return None
        return next((user.password_hash for user in source.current.users.values()), None)

    async def _with_id(self, result: ResolvedAddress) -> ResolvedAddress:
        if result.user is None or result.user.id:
            return result
        return replace(result, user=await self.ensure_stored(result.user))

    def _is_free(
        self, lookup: UserLookup, address: MailAddress, context: str, name_key: str
    ) -> bool:
        owner = lookup.by_address(address.key())
        return owner is None or (owner.context, owner.name_key) == (context, name_key)

    async def _read(self, work: Callable[[Recipients], T]) -> T:
        return await self.store.read(
            lambda stored: work(Recipients(self.settings, self.lookup(stored)))
        )

    def _version(self) -> Hashable | None:
        stored = self.store.version
        if stored is None:
            return None
        return stored, self._generation, *(source.version for source in self.files.values())

    def _file_contents(self) -> dict[str, PasswordFile]:
        return {context: source.current for context, source in self.files.items()}


def _resolve(recipients: Recipients, text: str, size: int) -> ResolvedAddress:
    try:
        address = MailAddress.from_wire(text)
    except AddressError:
        return ResolvedAddress(ResolveOutcome.UNKNOWN_USER)
    if not recipients.is_local(address):
        return ResolvedAddress(ResolveOutcome.NOT_LOCAL)
    owner = recipients.owner(address)
    user = owner or recipients.for_address(address)
    if user is None:
        return ResolvedAddress(ResolveOutcome.UNKNOWN_USER)
    keeps = not user.forward_to or user.keep_copy
    if keeps and not is_role_address(address) and not user.has_room_for(size):
        return ResolvedAddress(ResolveOutcome.MAILBOX_FULL, user, catch_all=owner is None)
    return ResolvedAddress(ResolveOutcome.LOCAL, user, catch_all=owner is None)
