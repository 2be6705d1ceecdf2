"""What a store of the login table does; the service knows no more of it than this."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from netmail_common.connmgr.model import Login, Registration, Revocation, UserKey
from netmail_common.connmgr.packed import LoginPacker

from netmail_connmgr.domain.changes import Change
from netmail_connmgr.domain.table import Found, Registered

__all__ = [
    "BadPageToken",
    "Feed",
    "LoginFilter",
    "LoginPage",
    "LoginStore",
    "Position",
    "RevokeOrder",
    "Snapshot",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
]


class StoreError(Exception):
    """The store could not do it."""


class StoreUnavailable(StoreError):
    """The store does not answer; nothing is known to have happened."""


class StoreFull(StoreError):
    """There is no room."""


class BadPageToken(StoreError):
    """The page token is none that the store gave."""


@dataclass(frozen=True, slots=True)
class LoginFilter:
    """Which logins; unset: all.

    Attributes:
        network: Located.key.
    """

    user: UserKey | None = None
    network: bytes | None = None


@dataclass(frozen=True, slots=True)
class LoginPage:
    """A page of live logins; the token is empty on the last one."""

    now: float
    logins: tuple[Login, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    """A revocation that is to be made; the fields are those of Revocation."""

    user: UserKey | None
    network: bytes | None
    credential_epoch: int
    client_address: bytes | None = None
    prefix_length: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watcher has come: its instance is empty if nowhere."""

    instance_id: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The table at the feed's revision: what still binds, and the logins if asked for.

    Attributes:
        records: packed logins; empty ones, and such that are over, may be among them.
    """

    now: float
    revision: int
    revocations: tuple[Revocation, ...]
    records: Sequence[bytes]


class Feed(Protocol):
    """A watcher's view of the changes. It holds a position, no queue."""

    resumed: bool
    """True: changes follow the watcher's position. False: it begins with a snapshot."""
    position: int
    """Everything up to this revision was given."""

    async def snapshot(self, *, logins: bool) -> Snapshot:
        """The table to begin with, with its logins or without; moves the position."""

    async def take(self, limit: int) -> list[Change]:
        """Changes behind the position, at most LIMIT; moves it. Empty: nothing new.

        Raises: MissedChanges, when the watcher was too slow; StoreUnavailable.
        """


class LoginStore(Protocol):
    """The login table, wherever it is. Every method may raise StoreUnavailable."""

    @property
    def instance_id(self) -> str:
        """Another one after the table has lost its memory."""

    @property
    def clock_id(self) -> str:
        """Whose clock the times of its records are on.

        A watcher that has times of another one does not resume.
        """

    packer: LoginPacker
    """Of the records that its feeds give."""
    login_lifetime: float
    """Seconds, as `live_for` says it."""

    def live_for(self, seconds: float) -> None:
        """Lets logins and renewals count so long from now on; what is in the table stays."""

    def now(self) -> float:
        """Seconds on the clock of the logins' times."""

    def settling(self) -> bool:
        """Whether the table began anew a moment ago: logins that it had may be missing still."""

    async def register(self, registrations: Sequence[Registration]) -> Sequence[Registered]:
        """Answers each by the result of the same index; durable as far as the store is."""

    async def find(self, places: Sequence[bytes]) -> Sequence[Found]:
        """Answers each by the result of the same index."""

    async def revoke(self, order: RevokeOrder) -> int:
        """Ends logins; how many. The store has the revocation's mark when this returns.

        Raises: StoreFull.
        """

    async def list_logins(self, which: LoginFilter, limit: int, token: str) -> LoginPage:
        """A page of live logins: each that is live throughout the listing comes exactly once.

        Raises: BadPageToken.
        """

    async def size(self) -> int:
        """How many logins it holds, about."""

    def watch(
        self, position: Position, *, revocations_only: bool, wake: asyncio.Event
    ) -> AbstractAsyncContextManager[Feed]:
        """Watches from a position on; WAKE is set when there may be something new."""
