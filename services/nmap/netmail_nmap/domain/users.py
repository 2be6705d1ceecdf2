"""Users as the directory keeps them, and what its storage must do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from netmail_nmap.domain.devices import Device, DeviceUse, NewDevice

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What SCRAM-SHA-256 needs to verify a user (RFC 5802 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is stored of a password.

    Attributes:
        password_hash: in the modular crypt format; empty: no password fits.
        scram: None where the backend keeps none.
    """

    password_hash: str
    scram: ScramVerifier | None = None


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user of a context.

    Attributes:
        id: unique within this NMAP agent and never used again; 0: known by his backend, but
            nothing was stored for him yet.
        name_key: the name folded: equal keys, same user.
        addresses: mail addresses in wire spelling, the primary one first.
        credential_epoch: grows with each change of the credentials, over removal and re-creation.
        quota_bytes: octets; 0: unlimited.
        forward_to: mail addresses in wire spelling.
        keep_copy: forwarded mail stays in the mailbox too.
        devices: passwords of single devices.
    """

    id: int
    context: str
    name: str
    name_key: str
    credentials: Credentials
    addresses: tuple[str, ...] = ()
    disabled: bool = False
    credential_epoch: int = 0
    quota_bytes: int = 0
    used_bytes: int = 0
    forward_to: tuple[str, ...] = ()
    keep_copy: bool = True
    devices: tuple[Device, ...] = ()

    def has_room_for(self, size: int) -> bool:
        """Whether a message of SIZE octets (0: unknown) fits into the quota."""
        if not self.quota_bytes:
            return True
        return self.used_bytes + max(size, 1) <= self.quota_bytes


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made.

    Attributes:
        addresses: key and wire spelling of each.
    """

    context: str
    name: str
    name_key: str
    credentials: Credentials
    addresses: tuple[tuple[str, str], ...] = ()
    quota_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """A revocation that the Connection Manager has not acknowledged yet."""

    id: int
    name: str
    context: str
    credential_epoch: int


class UserLookup(Protocol):
    """Reading users, within one snapshot of the storage."""

    def by_name(self, context: str, name_key: str) -> UserRecord | None:
        """The user of that folded name, disabled or not."""

    def by_address(self, address_key: str) -> UserRecord | None:
        """The user who has the address, disabled or not."""

    def first(self, context: str) -> UserRecord | None:
        """The first user of the context who is not disabled."""

    def devices_of(self, user_id: int) -> list[DeviceUse]:
        """The user's device passwords, in the order in which they were made."""

    def has_old_devices(self, now: int) -> bool:
        """Whether a device password has come to its end and its logins were not revoked yet."""


class UserChanges(UserLookup, Protocol):
    """Changing users, within one transaction of the storage.

    Methods that change what proves a user's identity raise the credential epoch, add a pending
    revocation and tell the user's sessions to end.
    """

    def has_mark(self, mark: str) -> bool:
        """Whether something that is done once was done."""

    def set_mark(self, mark: str) -> None:
        """It is done now."""

    def create(self, user: NewUser) -> UserRecord:
        """Stores a user. The caller has checked that name and addresses are free."""

    def set_credentials(self, user_id: int, credentials: Credentials) -> None:
        """Stores a new password; raises the credential epoch."""

    def renew_credentials(self, user_id: int, old_hash: str, credentials: Credentials) -> None:
        """Stores the same password anew, if it is still the one of OLD_HASH; no epoch is raised."""

    def set_disabled(self, user_id: int, *, disabled: bool) -> None:
        """Disables (raises the credential epoch) or enables."""

    def delete(self, user_id: int) -> None:
        """Removes a user with all his mail; leaves a revocation behind."""

    def add_address(self, user_id: int, key: str, address: str) -> None:
        """Adds a free address, behind the others."""

    def remove_address(self, user_id: int, key: str) -> bool:
        """Removes an address; False: the user has no such one."""

    def set_quota(self, user_id: int, quota_bytes: int) -> None:
        """Octets; 0: unlimited."""

    def set_forwarding(self, user_id: int, forward_to: Sequence[str], *, keep_copy: bool) -> None:
        """Where mail goes; empty: nowhere."""

    def all_of_context(self, context: str) -> list[UserRecord]:
        """Every user of a context."""

    def add_device(self, user_id: int, device: NewDevice) -> None:
        """Stores a device password. The caller has checked that the name is free."""

    def remove_device(self, user_id: int, name_key: str) -> bool:
        """Removes a device password and raises the credential epoch; False: there is none."""

    def end_devices(self, now: int) -> int:
        """Raises the credential epoch of users whose device passwords have come to their end.

        Once for each password. Returns: how many users.
        """


class DirectoryStore(Protocol):
    """Storage of the directory."""

    @property
    def version(self) -> int | None:
        """Grows with each change of users; None: others change them too, unseen.

        What users occupy changes without it.
        """

    async def read(self, work: Callable[[UserLookup], T]) -> T:
        """Runs WORK on one snapshot, off the event loop.

        Raises: StoreUnavailable, and what WORK raises.
        """

    async def write(self, work: Callable[[UserChanges], T]) -> T:
        """Runs WORK in one transaction; durable on return, without effect when it raises.

        Raises: StoreUnavailable, and what WORK raises.
        """

    async def devices_used(self, uses: Mapping[int, tuple[int, str]]) -> None:
        """Stores when (seconds since the epoch) and from where devices were used, by their ids.

        Raises: StoreUnavailable.
        """

    async def list_users(
        self, contexts: Sequence[str], after_id: int, limit: int
    ) -> list[UserRecord]:
        """Users by ascending id."""

    async def count_users(self, context: str) -> int:
        """How many users the context has in the storage."""

    async def secret(self, name: str) -> bytes:
        """32 random octets, the same ever after; made at the first call."""

    async def pending_revocations(self, limit: int) -> list[PendingRevocation]:
        """The oldest revocations that are not acknowledged."""

    async def revocations_acknowledged(self, ids: Sequence[int]) -> None:
        """Forgets revocations."""
