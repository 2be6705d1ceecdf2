"""The login table in Valkey or Redis, shared by any number of Connection Managers."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import ANONYMOUS, Login, Registration, Revocation
from netmail_common.gather import Gatherer
from netmail_common.networks import network_of

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.valkey.connection import Valkey, boot_time
from netmail_connmgr.adapters.valkey.feed import ValkeyFeed
from netmail_connmgr.adapters.valkey.follower import Follower
from netmail_connmgr.adapters.valkey.mirror import Mirror
from netmail_connmgr.adapters.valkey.partition import Partition, UserLogin
from netmail_connmgr.adapters.valkey.records import (
    member_of,
    members_of_network,
    user_field,
)
from netmail_connmgr.adapters.valkey.wire import Server
from netmail_connmgr.domain.store import (
    BadPageToken,
    LoginFilter,
    LoginPage,
    Position,
    RevokeOrder,
    StoreUnavailable,
)
from netmail_connmgr.domain.table import Found, Registered, TableLimits

__all__ = ["ValkeyStore"]

_REGISTRATIONS = 100
_PLACES = 200
_IN_FLIGHT = 4
_LOOK_EVERY = 1.0
"""Seconds between two looks at who is the primary."""
_TOKEN = re.compile(r"([0-9]{1,3})\.((?:[0-9a-f]{2}){1,600})")

T = TypeVar("T")
_Registering = tuple[Registration, float]


class ValkeyStore:
    """LoginStore over scripts. Belongs to one event loop.

    Args:
        valkey: where the table is.
        limits: of the table.
        config: of the section `valkey`.
        clock: seconds that never go back and count while the process is stopped.
    """

    def __init__(
        self,
        valkey: Valkey,
        limits: TableLimits,
        config: ValkeyConfig,
        *,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self.login_lifetime = limits.login_lifetime
        self._valkey = valkey
        self._limits = limits
        self._wait_replicas = config.wait_replicas
        self._clock = clock
        self._watchers: set[asyncio.Event] = set()
        numbers = valkey.partitions
        self.mirror = Mirror(len(numbers))
        self._followers = [
            Follower(
                valkey,
                Partition(valkey, number, limits, clock),
                number,
                mirror=self.mirror,
                now=clock,
                changed=self._wake,
                buffered=config.buffered_registrations // len(numbers),
            )
            for number in numbers
        ]
        self._registering = [self._registrar(follower) for follower in self._followers]
        self._finding = [self._finder(follower) for follower in self._followers]
        # One partition counts a user's networks by itself.
        several = self._followers if len(self._followers) > 1 else []
        self._counting = [self._counter(follower) for follower in several]
        self.packer = self.mirror.packer

    def live_for(self, seconds: float) -> None:
        """Lets logins and renewals count so long from now on; what is in the table stays."""
        self.login_lifetime = seconds
        for follower in self._followers:
            follower.partition.live_for(seconds)

    @property
    def instance_id(self) -> str:
        """Another one after the table, or a part of it, was lost; empty while it is not known."""
        instances = [follower.partition.instance for follower in self._followers]
        if not all(instances):
            return ""
        if len(instances) == 1:
            return instances[0]
        return hashlib.sha256(":".join(instances).encode()).hexdigest()[:32]

    @property
    def clock_id(self) -> str:
        """Whose clock the times of its records are on."""
        return self.mirror.clock_id

    def now(self) -> float:
        """Seconds on the clock of the logins' times."""
        return self._clock()

    def settling(self) -> bool:
        """Never: the table outlives its Connection Managers."""
        return False

    async def run(self) -> None:
        """Follows the table until cancelled."""
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.follow())
            group.create_task(self._watch_over())

    async def ready(self) -> None:
        """Waits until the whole table was read."""
        while not self._whole:
            wake = asyncio.Event()
            self._watchers.add(wake)
            try:
                await wake.wait()
            finally:
                self._watchers.discard(wake)

    async def register(self, registrations: Sequence[Registration]) -> Sequence[Registered]:
        """Answers each by the result of the same index.

        Raises: StoreUnavailable; those that failed are kept and made when the store is back.
        """
        now = self._clock()
        return await _all(self._register_one(one, now) for one in registrations)

    async def find(self, places: Sequence[bytes]) -> Sequence[Found]:
        """Answers each by the result of the same index."""
        return await _all(self._finding[self._number_of(place)](place) for place in places)

    async def revoke(self, order: RevokeOrder) -> int:
        """Ends logins; how many. A replica has it too, wherever there is one.

        Raises: StoreFull; StoreUnavailable: some partitions may have done it.
        """
        revocation = Revocation(
            made=self._clock(),
            user=order.user,
            network=order.network,
            credential_epoch=order.credential_epoch,
            client_address=order.client_address,
            prefix_length=order.prefix_length,
            reason=order.reason,
        )
        if order.network is None:
            partitions = [follower.partition for follower in self._followers]
        else:
            partitions = [self._followers[self._valkey.partition_of(order.network)].partition]
        return sum(await _all(self._revoke_in(one, revocation) for one in partitions))

    async def list_logins(self, which: LoginFilter, limit: int, token: str) -> LoginPage:
        """A page of live logins, by partitions, in each in the order of their members.

        Raises: BadPageToken.
        """
        number, after = _parse_token(token)
        if number >= len(self._followers):
            raise BadPageToken
        page: list[tuple[int, Login]] = []
        while number < len(self._followers):
            found = await self._logins_after(number, which, after, limit + 1 - len(page))
            page += [(number, login) for login in found]
            if len(page) > limit:
                break
            number, after = number + 1, b""
        logins = [login for _, login in page[:limit]]
        following = ""
        if len(page) > limit:
            last_number, last = page[limit - 1]
            following = f"{last_number}.{member_of(last.place, last.user).hex()}"
        return LoginPage(self._clock(), tuple(logins), following)

    async def size(self) -> int:
        """How many logins it holds, as the partitions last said."""
        return sum(follower.partition.size for follower in self._followers)

    @contextlib.asynccontextmanager
    async def watch(
        self, position: Position, *, revocations_only: bool, wake: asyncio.Event
    ) -> AsyncIterator[ValkeyFeed]:
        """Watches from a position on; WAKE is set when there may be something new.

        Raises: StoreUnavailable, while the table is not whole.
        """
        await self.sync()
        known = position.revision if position.instance_id == self.instance_id else None
        feed = ValkeyFeed(self, known, revocations_only=revocations_only)
        self._watchers.add(wake)
        try:
            yield feed
        finally:
            self._watchers.discard(wake)

    async def sync(self) -> None:
        """Everything that the table had when this was called is in the mirror afterwards.

        Raises: StoreUnavailable.
        """
        await _all(follower.sync() for follower in self._followers)

    @property
    def _whole(self) -> bool:
        return all(follower.loaded for follower in self._followers)

    def _wake(self) -> None:
        for wake in self._watchers:
            wake.set()

    async def _watch_over(self) -> None:
        """Looks now and then who is the primary: one that was cut off does not know it."""
        primaries: dict[int, Server] = {}
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self._valkey.route.look()
            except StoreUnavailable:
                # Nobody says who is the primary: then nothing may be decided.
                self._valkey.route.look_again()
            for number, follower in enumerate(self._followers):
                with contextlib.suppress(StoreUnavailable):
                    primary = await self._valkey.route.primary(number)
                    if primaries.setdefault(number, primary) != primary:
                        primaries[number] = primary
                        self._valkey.replaced()
                        follower.hurry()
            metrics.STORE_UP.set(all(one.loaded and one.answering for one in self._followers))
            metrics.WAITING.set(sum(len(one.waiting) for one in self._followers))
            metrics.LOGINS.set(await self.size())

    def _number_of(self, place: bytes) -> int:
        return self._valkey.partition_of(network_of(place))

    async def _register_one(self, registration: Registration, now: float) -> Registered:
        number = self._number_of(registration.place)
        registered = await self._registering[number]((registration, now))
        user = registration.profile.user
        if self._counting and registered.remaining and user != ANONYMOUS:
            login = UserLogin(user, registration.place, self._clock() + registered.remaining)
            await self._count(login)
        return registered

    async def _count(self, login: UserLogin) -> None:
        """Takes away the oldest logins of a user who comes from too many networks."""
        counting = self._counting[self._valkey.partition_of(user_field(login.user))]
        for oldest in await counting(login):
            partition = self._followers[self._number_of(oldest.place)].partition
            await partition.evict(oldest)

    def _registrar(self, follower: Follower) -> Gatherer[_Registering, Registered]:
        async def register(items: list[_Registering]) -> list[Registered]:
            try:
                follower.check_seeded()
                now = self._clock()
                waited = [(one, now - since) for one, since in items]
                results = await follower.partition.register(waited, self._wait_replicas)
            except StoreUnavailable:
                for registration, since in items:
                    follower.waiting.wait(registration, since)
                raise
            for registration, since in items:
                follower.waiting.made(registration, since)
            return results

        return Gatherer(register, _REGISTRATIONS, 1, lambda _: 0, _IN_FLIGHT)

    def _finder(self, follower: Follower) -> Gatherer[bytes, Found]:
        return Gatherer(follower.partition.find, _PLACES, 1, lambda _: 0, _IN_FLIGHT)

    def _counter(self, follower: Follower) -> Gatherer[UserLogin, list[UserLogin]]:
        return Gatherer(follower.partition.count, _REGISTRATIONS, 1, lambda _: 0, _IN_FLIGHT)

    async def _revoke_in(self, partition: Partition, revocation: Revocation) -> int:
        replicas = max(self._wait_replicas, min(1, await partition.replicas()))
        return await partition.revoke(revocation, replicas)

    async def _logins_after(
        self, number: int, which: LoginFilter, after: bytes, limit: int
    ) -> list[Login]:
        """Live logins of a partition that match, at most LIMIT."""
        partition = self._followers[number].partition
        if which.user is not None:
            found = await partition.of_user(which.user)
            members = {member_of(one.place, one.user): one for one in found}
            return self._live([members[one] for one in sorted(members) if one > after], which)[
                :limit
            ]
        prefixes = [b""]
        if which.network is not None:
            if number != self._valkey.partition_of(which.network):
                return []
            prefixes = [one for one in members_of_network(which.network) if after <= one + b"\xff"]
        page: list[Login] = []
        for prefix in prefixes:
            begin = after if after.startswith(prefix) else b""
            while len(page) < limit:
                _, some, begin = await partition.page(begin, limit, prefix)
                page += self._live(some, which)
                if not begin:
                    break
        return page[:limit]

    def _live(self, logins: Sequence[Login], which: LoginFilter) -> list[Login]:
        now = self._clock()
        return [
            login
            for login in logins
            if login.expires > now
            and (which.network is None or network_of(login.place) == which.network)
        ]


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """The results of calls that go at once; the first error when all have ended."""
    results: list[T] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def _parse_token(token: str) -> tuple[int, bytes]:
    if not token:
        return 0, b""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise BadPageToken
    return int(match[1]), bytes.fromhex(match[2])
