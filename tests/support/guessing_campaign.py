"""A day of guessing in virtual time: a crowd of addresses guesses, real users go on working.

What runs is ours, from the agents' guarded directory to the counters; only the network between
agent and Connection Manager is left out, and time is told. Streams are told of suspects as late as
LATENCY.
"""

import asyncio
import contextlib
import heapq
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import cast

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import RatesConfig
from netmail_common.connmgr import Connected, ConnectionManagerClient, Suspected, UserKey
from netmail_common.connmgr.gate import Door, Gate, Visitor
from netmail_common.connmgr.guarded_directory import GuardedDirectory
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.sasl import AuthenticatedUser, AuthFailed, IPAddress, ScramVerification
from netmail_connmgr.adapters.connection_checks import ConnectionChecker
from netmail_connmgr.adapters.event_desk import EventDesk
from netmail_connmgr.adapters.failure_counts import FailureCounts
from netmail_connmgr.adapters.grpc_service import ConnectionManagerService
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.guessing import Guessing, GuessingRules
from netmail_connmgr.domain.lists import AddressLists
from netmail_connmgr.domain.suspicions import SuspicionBook, SuspicionReader
from netmail_connmgr.domain.table import TableLimits

DAY = 86_400.0
LATENCY = 1.0
AGENTS = 4
RIGHT, WRONG = "right", "wrong"
_NOBODY = 0.2
"""Part of the guesses that are at names that nobody has."""


@dataclass(frozen=True)
class Plan:
    """How large it is.

    Attributes:
        attempts: guesses in all, spread over `days`.
        addresses: that guess, each for itself.
        users: who are guessed at, and work meanwhile.
        infected: of the guessing addresses, those that a user's home is behind.
        logins_a_day: of each user, from his known addresses.
        trips: logins from addresses that are new to their user, in all.
        forgotten: telephones with an old password, which try it every ten minutes at home.
    """

    attempts: int = 1_000_000
    addresses: int = 10_000
    users: int = 1000
    infected: int = 100
    logins_a_day: int = 72
    trips: int = 1000
    forgotten: int = 20
    days: float = 1.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        looked_at_guesses: whose password the directory looked at.
        tried: of each user and day, guesses that would have been let in had they been right.
        tried_at_home: the same, from a network where the user is known.
        known: real logins from known addresses; `known_refused` of them were refused.
        slowest_known: seconds that one of them had to wait.
        new: real logins from new addresses; `new_refused` of them were refused.
        calls: to the Connection Manager, by what they were about.
    """

    looked_at_guesses: int = 0
    tried: Counter[tuple[int, int]] = field(default_factory=Counter)
    tried_at_home: int = 0
    known: int = 0
    known_refused: int = 0
    slowest_known: float = 0.0
    new: int = 0
    new_refused: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def most_tried(self) -> int:
        """The most guesses at one user within one day."""
        return max(self.tried.values(), default=0)


class Directory:
    """Knows the users by name and by alias; looks at passwords."""

    def __init__(self, users: int) -> None:
        self.looked_at = 0
        self._names = {f"user{number}": number for number in range(users)}
        self._names |= {f"alias{number}@example.org": number for number in range(users)}

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        self.looked_at += 1
        number = self._names.get(username)
        if number is None:
            raise AuthFailed
        if password != RIGHT:
            raise AuthFailed(user_key(number))
        return AuthenticatedUser(number, *user_key(number), "mail1", (), (), 1)

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> ScramVerification:
        raise NotImplementedError


class DirectClient:
    """Calls the service in this process."""

    def __init__(self, service: ConnectionManagerService, calls: Counter[str]) -> None:
        self._service = service
        self._calls = calls

    async def check_connection(self, check: pb.ConnectionCheck) -> pb.ConnectionDecision:
        self._calls["check"] += 1
        request = pb.CheckConnectionRequest(items=[check])
        return (await self._service.CheckConnection(request, None)).results[0]

    async def report_event(self, event: pb.Event) -> pb.EventResult:
        self._calls[event.WhichOneof("event") or ""] += 1
        request = pb.ReportEventRequest(items=[event])
        return (await self._service.ReportEvent(request, None)).results[0]


class Agent:
    """A gate and its stream."""

    def __init__(self, client: DirectClient, reader: SuspicionReader, clock: "Clock") -> None:
        self.gate = Gate(
            cast("ConnectionManagerClient", client),
            NetworkMap(AddressRules()),
            messaging_server="mail1",
            agent="agent",
            clock=clock,
        )
        self.gate.take(Connected("instance", 900.0))
        self._reader = reader

    def catch_up(self) -> None:
        """Reads its stream."""
        while (step := self._reader.take()) is not None:
            self.gate.take(
                Suspected(
                    frozenset(step.added), frozenset(step.removed), step.complete, step.everybody
                )
            )


class Clock:
    """Time that is told."""

    def __init__(self) -> None:
        self.now = 10 * DAY

    def __call__(self) -> float:
        return self.now


class Campaign:
    """One day of it.

    Args:
        plan: how large.
        seed: of everything that is left to chance.
    """

    def __init__(self, plan: Plan, seed: int = 1) -> None:
        self._plan = plan
        self._chance = random.Random(seed)
        self._clock = Clock()
        self.outcome = Outcome()
        self._counters = MemoryCounters(self._clock)
        self._book = SuspicionBook(self._clock)
        self._directory = Directory(plan.users)
        self._homes = [self._home(number) for number in range(plan.users)]
        first = int(IPv4Address("203.0.0.0"))
        strangers = [first + number for number in range(plan.addresses - plan.infected)]
        infected = self._chance.sample(range(plan.users), min(plan.infected, plan.users))
        self._guessing = [*map(IPv4Address, strangers), *(self._homes[n][0] for n in infected)]
        self._caught_up = self._start = 0.0

    async def run(self) -> Outcome:
        """Plays it to its end."""
        async with self._manager() as agents:
            for number, homes in enumerate(self._homes):
                for home in homes:
                    await self._real_login(agents, number, home, known=True)
            await asyncio.sleep(0)
            self._clock.now += DAY / 2
            self._start = self._clock.now
            for when, what, number in heapq.merge(*self._schedule()):
                self._clock.now = self._start + when
                self._pass_on(agents)
                await getattr(self, f"_{what}")(agents, number)
        return self.outcome

    @contextlib.asynccontextmanager
    async def _manager(self) -> AsyncIterator[list[Agent]]:
        store = MemoryStore(TableLimits(), clock=self._clock)
        service = ConnectionManagerService(
            store, NetworkMap(AddressRules()), max_users_per_network=8, suspicions=self._book
        )
        guessing = Guessing(
            self._counters,
            self._book,
            lambda: service.desk.networks,
            GuessingRules(),
            clock=self._clock,
        )
        failures = FailureCounts(guessing)
        checker = ConnectionChecker(store, lambda: service.desk.networks, AddressLists())
        checker.guessing = failures
        service.desk.connections = checker
        service.events = EventDesk(
            self._counters,
            failures,
            RatesConfig(),
            store,
            lambda: service.desk.networks,
            self._clock,
        )
        remembering = asyncio.create_task(failures.run())
        client = DirectClient(service, self.outcome.calls)
        with contextlib.ExitStack() as stack:
            wake = asyncio.Event()
            yield [
                Agent(client, stack.enter_context(self._book.watch(wake)), self._clock)
                for _ in range(AGENTS)
            ]
        remembering.cancel()
        await asyncio.gather(remembering, return_exceptions=True)

    def _home(self, number: int) -> list[IPv4Address]:
        """A user's known addresses; three users share an office."""
        office = IPv4Address(int(IPv4Address("198.18.0.0")) + number // 3)
        own = IPv4Address(int(IPv4Address("198.19.0.0")) + number)
        return [own, office] if number % 2 else [own]

    def _schedule(self) -> Iterator[Iterator[tuple[float, str, int]]]:
        """What happens when, each kind in order of time."""
        plan, length = self._plan, self._plan.days * DAY
        yield self._spread("guess", plan.attempts, length)
        yield self._spread("work", int(plan.users * plan.logins_a_day * plan.days), length)
        yield self._spread("trip", plan.trips, length)
        yield self._spread("forgotten", int(plan.forgotten * 144 * plan.days), length)

    def _spread(self, what: str, times: int, length: float) -> Iterator[tuple[float, str, int]]:
        for number in range(times):
            yield number * length / times, what, number

    def _pass_on(self, agents: list[Agent]) -> None:
        if self._clock.now - self._caught_up < LATENCY:
            return
        self._caught_up = self._clock.now
        self._book.drop_expired()
        for agent in agents:
            agent.catch_up()

    async def _guess(self, agents: list[Agent], _number: int) -> None:
        chance = self._chance
        address = chance.choice(self._guessing)
        target = chance.randrange(self._plan.users)
        if chance.random() < _NOBODY:
            name = f"nobody{target}"
        else:
            name = chance.choice((f"user{target}", f"alias{target}@example.org"))
            await self._count_tried(chance.choice(agents), address, target, name)
        before = self._directory.looked_at
        await self._log_in(chance.choice(agents), address, name, WRONG)
        self.outcome.looked_at_guesses += self._directory.looked_at - before

    async def _count_tried(
        self, agent: Agent, address: IPv4Address, target: int, name: str
    ) -> None:
        """Counts a guess that would be let in if its password were right."""
        visitor = visitor_at(address)
        if not (await agent.gate.may_try(visitor, name)).allowed:
            return
        if not (await agent.gate.succeeded(visitor, user_key(target))).allowed:
            return
        if address in self._homes[target]:
            self.outcome.tried_at_home += 1
        else:
            self.outcome.tried[target, int((self._clock.now - self._start) // DAY)] += 1

    async def _work(self, agents: list[Agent], number: int) -> None:
        number %= self._plan.users
        home = self._chance.choice(self._homes[number])
        if self._chance.random() < 0.01:
            await self._log_in(self._chance.choice(agents), home, f"user{number}", WRONG)
        await self._real_login(agents, number, home, known=True)

    async def _trip(self, agents: list[Agent], number: int) -> None:
        hotel = IPv4Address(int(IPv4Address("100.0.0.0")) + number)
        await self._real_login(agents, self._chance.randrange(self._plan.users), hotel, known=False)

    async def _forgotten(self, agents: list[Agent], number: int) -> None:
        user = number % self._plan.forgotten
        await self._log_in(self._chance.choice(agents), self._homes[user][0], f"user{user}", WRONG)

    async def _real_login(
        self, agents: list[Agent], number: int, address: IPv4Address, *, known: bool
    ) -> None:
        agent = self._chance.choice(agents)
        waited = await self._log_in(agent, address, f"user{number}", RIGHT)
        outcome = self.outcome
        if known:
            outcome.known += 1
            outcome.known_refused += waited is None
            outcome.slowest_known = max(outcome.slowest_known, waited or 0.0)
        else:
            outcome.new += 1
            outcome.new_refused += waited is None

    async def _log_in(
        self, agent: Agent, address: IPv4Address, name: str, password: str
    ) -> float | None:
        """Seconds that a login had to wait; None: it was refused."""
        waited = 0.0

        async def sleep(seconds: float) -> None:
            nonlocal waited
            waited += seconds

        visitor = visitor_at(address, Door.SUBMISSION if password == RIGHT else Door.IMAP)
        guard = GuardedDirectory(self._directory, agent.gate, visitor, sleep=sleep)
        try:
            await guard.authenticate_password(
                name, password, service="imap", client_address=address
            )
        except AuthFailed:
            return None
        finally:
            await asyncio.sleep(0)
        return waited


def user_key(number: int) -> UserKey:
    return UserKey(f"user{number}", "users")


def visitor_at(address: IPv4Address, door: Door = Door.IMAP) -> Visitor:
    return Visitor(address, door, door.name.lower())
