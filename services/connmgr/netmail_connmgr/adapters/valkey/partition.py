"""One partition of the table: what the scripts do there, in the store's terms."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from netmail_common.connmgr.model import Login, Registration, Revocation, UserKey
from netmail_common.logging import get_logger
from netmail_common.networks import network_of

from netmail_connmgr.adapters.valkey import scripts
from netmail_connmgr.adapters.valkey.clock import MICROSECONDS, PartitionClock
from netmail_connmgr.adapters.valkey.connection import (
    Argument,
    Reply,
    Script,
    ScriptError,
    Valkey,
)
from netmail_connmgr.adapters.valkey.records import (
    BadEntry,
    place_and_user,
    read_login,
    read_members,
    read_revocation,
    registration_arguments,
    revocation_rest,
    user_field,
)
from netmail_connmgr.domain.store import StoreFull, StoreUnavailable
from netmail_connmgr.domain.table import Found, Outcome, Registered, TableLimits

__all__ = ["At", "Entry", "MissedEntries", "Partition", "UserLogin"]

log = get_logger(__name__)

_OUTCOMES = {
    b"registered": Outcome.REGISTERED,
    b"revoked": Outcome.REVOKED,
    b"expired": Outcome.EXPIRED,
    b"full": Outcome.TABLE_FULL,
}


class MissedEntries(Exception):
    """The log does not go on from the position: the table must be read anew."""


@dataclass(frozen=True, slots=True)
class At:
    """A position in the partition's log; the tag tells two histories apart."""

    revision: int = 0
    tag: bytes = b""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change as the log has it.

    Attributes:
        login: one that is new or was renewed.
        revocation: if it was one.
        gone: logins that ended before their time, by place and user.
    """

    login: Login | None
    revocation: Revocation | None
    gone: tuple[tuple[bytes, UserKey], ...]


class UserLogin(NamedTuple):
    """A user's login from a place, and when it ends."""

    user: UserKey
    place: bytes
    expires: float


class Partition:
    """The table's logins of a part of all networks.

    Attributes:
        instance: of the table there; empty until it is attached.
        size: logins there, when last heard of.
        leapt: its clock was set; times given out before are wrong.

    Args:
        limits: of the table.
        now: the store's clock.
    """

    def __init__(
        self, valkey: Valkey, number: int, limits: TableLimits, now: Callable[[], float]
    ) -> None:
        parts = len(valkey.partitions)
        self._valkey = valkey
        self._number = number
        self._limits = limits
        self._max_networks = limits.max_networks_per_user if parts == 1 else 0
        self._max_logins = -(-limits.max_logins // parts)
        self._now = now
        self.clock = PartitionClock()
        self.instance = ""
        self.size = 0
        self.leapt = False

    def live_for(self, seconds: float) -> None:
        """Lets logins and renewals count so long from now on."""
        self._limits = replace(self._limits, login_lifetime=seconds)

    async def attach(self) -> bool:
        """Finds the table there, or begins one: then it has lost what it knew.

        Returns: whether it is another one than before.

        Raises: StoreUnavailable.
        """
        found, _ = await self._valkey.run(scripts.ATTACH, self._number, [secrets.token_hex(16)])
        earlier, self.instance = self.instance, found.decode()
        await self.marks(b"0", 1)  # whatever is asked tells what the clock shows
        return earlier != self.instance

    async def register(
        self, items: Sequence[tuple[Registration, float]], replicas: int
    ) -> list[Registered]:
        """Registers logins, each with the seconds that it has waited.

        Raises: StoreUnavailable.
        """
        args: list[Argument] = [
            secrets.token_hex(8),
            self._max_networks,
            self._max_logins,
        ]
        for registration, waited in items:
            args += registration_arguments(registration, self._limits.login_lifetime, waited)
        _, self.size, results = await self._run(scripts.REGISTER, args, replicas)
        return [
            _registered(registration, result)
            for (registration, _), result in zip(items, results, strict=True)
        ]

    async def find(self, places: Sequence[bytes]) -> list[Found]:
        """The live logins of places.

        Raises: StoreUnavailable.
        """
        shown, results = await self._run(scripts.FIND, places)
        now = self.clock.to_store(shown)
        found = []
        for place, (expired, *pairs) in zip(places, results, strict=True):
            members = [_prefixed(place, user) for user in pairs[::2]]
            logins = self._logins(members, pairs[1::2])
            found.append(Found(now, tuple(logins), expired=bool(expired)))
        return found

    async def revoke(self, revocation: Revocation, replicas: int, *, again: bool = False) -> int:
        """Ends logins and leaves a mark; how many live ones.

        Args:
            revocation: its time counts only if it is made once more.

        Raises: StoreFull; StoreUnavailable.
        """
        now = self._now()
        args: list[Argument] = [
            secrets.token_hex(8),
            max(1, int((now - revocation.made) * MICROSECONDS)) if again else 0,
            revocation.network or b"",
            user_field(revocation.user) if revocation.user is not None else b"",
            revocation.credential_epoch,
            self._max_logins,
            revocation_rest(revocation),
        ]
        _, ended = await self._run(scripts.REVOKE, args, replicas)
        return int(ended)

    async def count(self, logins: Sequence[UserLogin]) -> list[list[UserLogin]]:
        """Counts networks of users, whichever partitions these are in.

        Returns: for each login those of its user that are too many, the oldest first.

        Raises: StoreUnavailable.
        """
        args: list[Argument] = [self._limits.max_networks_per_user]
        for login in logins:
            args += [user_field(login.user), login.place, self.clock.to_partition(login.expires)]
        _, results = await self._run(scripts.COUNT, args)
        return [
            [
                UserLogin(login.user, place, self.clock.to_store(float(expires)))
                for place, expires in zip(oldest[::2], oldest[1::2], strict=True)
            ]
            for login, oldest in zip(logins, results, strict=True)
        ]

    async def evict(self, login: UserLogin) -> None:
        """Takes a login away, unless it was renewed meanwhile.

        Raises: StoreUnavailable.
        """
        expires = self.clock.to_partition(login.expires)
        args: list[Argument] = [
            *(secrets.token_hex(8), login.place, user_field(login.user), expires),
        ]
        await self._run(scripts.EVICT, args)

    async def of_user(self, user: UserKey) -> list[Login]:
        """A user's logins, some of them over maybe.

        Raises: StoreUnavailable.
        """
        _, found = await self._run(scripts.OF_USER, [user_field(user)])
        return list(self._logins(found[::2], found[1::2]))

    async def page(
        self, after: bytes, limit: int, prefix: bytes = b""
    ) -> tuple[At, list[Login], bytes]:
        """Logins behind a member, in the order of members, some of them over maybe.

        Args:
            after: a member; empty: from the first on.
            prefix: only members that begin so.

        Returns: the log's position at that time, the logins, the last member; empty at the end.

        Raises: StoreUnavailable.
        """
        first = b"(" + after if after else b"[" + prefix
        last = b"(" + prefix + b"\xff" * 600 if prefix else b"+"
        _, revision, tag, found = await self._run(scripts.PAGE, [first, last, limit])
        members = found[::2]
        end = members[-1] if len(members) == limit else b""
        return At(revision, tag), list(self._logins(members, found[1::2])), end

    async def marks(self, cursor: bytes, limit: int) -> tuple[list[Revocation], bytes]:
        """Revocations that may still bind, and the next cursor; `0` is the first and the last.

        Raises: StoreUnavailable.
        """
        _, following, found = await self._run(scripts.MARKS, [cursor, limit])
        revocations = []
        for subject, value in zip(found[::2], found[1::2], strict=True):
            try:
                revocations.append(read_revocation(subject, value, self.clock.to_store))
            except BadEntry as error:
                _complain(error)
                raise StoreUnavailable("a revocation is none") from None
        return revocations, following

    async def changes(self, at: At, limit: int, clean_up: int) -> tuple[At, list[Entry], bool]:
        """What the log has behind a position, at most LIMIT.

        Returns: the position behind that, the changes, whether there are more.

        Raises: MissedEntries; StoreUnavailable.
        """
        args: list[Argument] = [at.revision, at.tag, limit, clean_up]
        _, self.size, last, entries = await self._run(scripts.CHANGES, args)
        if entries is None:
            raise MissedEntries
        found = []
        for identifier, fields in entries:
            texts = dict(zip(fields[::2], fields[1::2], strict=True))
            at = At(int(identifier.partition(b"-")[0]), texts[b"tag"])
            try:
                found.append(self._entry(texts))
            except BadEntry as error:
                # It may be a revocation: who does not know it knows nothing.
                _complain(error)
                raise StoreUnavailable("a change is none") from None
        return at, found, at.revision < last

    async def wait(self, at: At, seconds: float) -> None:
        """Waits until the log has something behind a position, but not for ever.

        Raises: StoreUnavailable.
        """
        stream = self._valkey.key(self._number, "log")
        command = (
            *("XREAD", "COUNT", 1, "BLOCK", int(seconds * 1000)),
            *("STREAMS", stream, f"{at.revision}-1"),
        )
        await self._valkey.send(self._number, [command], seconds=seconds + self._valkey.timeout)

    async def replicas(self) -> int:
        """How many replicas there are.

        Raises: StoreUnavailable.
        """
        return await self._valkey.replicas(self._number)

    async def _run(self, script: Script, args: Sequence[Argument], replicas: int = 0) -> Reply:
        """Runs a script on the attached table; the first that it gives is its clock."""
        if not self.instance:
            raise StoreUnavailable("the table is not attached")
        lifetime = int(self._limits.login_lifetime * MICROSECONDS)
        sent = self._now()
        try:
            reply = await self._valkey.run(
                script,
                self._number,
                [self.instance, lifetime, self.clock.to_partition(sent), *args],
                replicas=replicas,
            )
        except ScriptError as error:
            if error.code == "NOINSTANCE":
                self.instance = ""
                raise StoreUnavailable("the table is another one") from None
            if error.code == "FULL":
                raise StoreFull("too many revocations in one day") from None
            log.error("a script of the store failed", error=str(error))  # noqa: TRY400 - no traceback
            raise StoreUnavailable("a script failed") from None
        if self.clock.observe(sent, self._now(), reply[0]):
            self.leapt = True
        return reply

    def _entry(self, fields: dict[bytes, bytes]) -> Entry:
        login = revocation = None
        gone: list[bytes] = []
        if b"login" in fields:
            place, user = place_and_user(fields[b"login"])
            login = read_login(place, user, fields[b"as"], self.clock.to_store)
            gone = [fields[b"gone"]] if fields[b"gone"] else []
        elif b"revoked" in fields:
            revocation = read_revocation(fields[b"revoked"], fields[b"as"], self.clock.to_store)
            gone = read_members(fields[b"gone"])
        elif b"evicted" in fields:
            gone = [fields[b"evicted"]]
        return Entry(login, revocation, tuple(place_and_user(member) for member in gone))

    def _logins(self, members: Sequence[bytes], values: Sequence[bytes]) -> list[Login]:
        """Logins that the store has; what is none is left out: it vouches for nobody."""
        found = []
        for member, value in zip(members, values, strict=True):
            if not value:
                continue
            try:
                place, user = place_and_user(member)
                found.append(read_login(place, user, value, self.clock.to_store))
            except BadEntry as error:
                _complain(error)
        return found


def _registered(registration: Registration, result: Sequence[Reply]) -> Registered:
    outcome = _OUTCOMES[result[0]]
    place = registration.place
    if outcome is Outcome.REGISTERED and network_of(place) != place:
        outcome = Outcome.SHARED_NETWORK
    return Registered(outcome, result[1] / MICROSECONDS, renewed=bool(result[2]))


def _prefixed(place: bytes, user: bytes) -> bytes:
    return bytes((len(place),)) + place + user


def _complain(error: BadEntry) -> None:
    log.warning("the store has something that is not ours", error=str(error))
