"""A Connection Manager, a replica and everything that can happen to them, beside a model.

The model is the login table's rules written down a second time. It knows when each password was
really verified, and remembers whom it would have allowed when.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import ConnectionManagerClient, LoginReplica, UserKey, WatchMode
from netmail_common.connmgr.model import (
    Binding,
    CheckedSender,
    LoginProtocol,
    Profile,
    Registration,
    Revocation,
    SenderQuestion,
)
from netmail_common.connmgr.watcher import Watcher
from netmail_common.grpc_errors import RpcError
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters.grpc_service import ConnectionManagerService
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.marks import RevocationMarks
from netmail_connmgr.domain.store import Feed, Position, StoreUnavailable
from netmail_connmgr.domain.table import Registered, TableLimits

from tests.connmgr.conftest import check, login
from tests.connmgr.processes import Context, Process, Stream
from tests.connmgr.test_table_model import Entry, Model

LIFETIME = 30.0
MAX_STALENESS = 10.0
USERS = ("alice", "bob")
ADDRESSES = tuple(
    ip_address(text).packed
    for text in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1")
)
"""Two spellings of one client, another, one by IPv6, one that never grants."""
NETWORKS = NetworkMap(AddressRules())
_STEP = 0.5
_SKEW = 12_345.678
"""Seconds that the replica's clock is ahead of the table's."""


class StoreThatFails(MemoryStore):
    """The real store, which does not answer while it is `down`."""

    down = False

    async def register(self, registrations: Sequence[Registration]) -> Sequence[Registered]:
        self._answer()
        return await super().register(registrations)

    async def find(self, places: Sequence[bytes]) -> Any:
        self._answer()
        return await super().find(places)

    async def revoke(self, order: Any) -> int:
        self._answer()
        return await super().revoke(order)

    async def size(self) -> int:
        self._answer()
        return await super().size()

    @contextlib.asynccontextmanager
    async def watch(
        self, position: Position, *, revocations_only: bool, wake: asyncio.Event
    ) -> AsyncIterator[Any]:
        self._answer()
        inner = super().watch(position, revocations_only=revocations_only, wake=wake)
        async with inner as feed:
            yield _FeedThatFails(self, feed)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable


class _FeedThatFails:
    def __init__(self, store: StoreThatFails, feed: Feed) -> None:
        self._store = store
        self._feed = feed

    def __getattr__(self, name: str) -> Any:
        self._store._answer()
        return getattr(self._feed, name)


@dataclass(frozen=True, slots=True)
class Login:
    """A login of a user, as the agent that saw it remembers it."""

    user: str
    address: bytes
    session: str
    verified: float
    epoch: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The model's logins from a time on, until the next moment."""

    since: float
    entries: tuple[Entry, ...]


class World:
    """Two processes, the network, and time.

    Args:
        max_logins: of the replica; few make it hold networks instead of everything.
        between: called between any two messages that the agent reads.
    """

    def __init__(self, max_logins: int, between: Callable[[], None]) -> None:
        self.between = between
        self.now = 1_000_000.0
        self.server = Process(lambda: self.now)
        self.agent = Process(lambda: self.now + _SKEW)
        self.network_up = True
        self.streams: list[Stream] = []
        self.calls: list[Callable[[], None]] = []
        """Calls that lie in the server's socket."""
        self.faults: list[Exception] = []
        self.model = Model(64, 10**6, LIFETIME)
        self.moments = [Moment(self.now, ())]
        self._start_server(None)
        self.replica = LoginReplica(
            _Client(self),
            NETWORKS,
            max_staleness=MAX_STALENESS,
            max_logins=max_logins,
            clock=self.agent.time,
        )
        self._following = self.agent.create_task(self.replica.run())

    # What happens.

    def _start_server(self, marks: RevocationMarks | None) -> None:
        """A server that knows the revocations of the one before from its journal."""
        self.store = StoreThatFails(
            TableLimits(login_lifetime=LIFETIME),
            clock=lambda: self.now,
            changes=ChangeLog(capacity=6, revocation_capacity=4),
        )
        if marks is not None:
            self.store._table.marks = marks
        self.service = ConnectionManagerService(self.store, NETWORKS, max_users_per_network=8)

    def crash_server(self) -> None:
        """kill -9, and a start right afterwards."""
        self.tear()
        self.calls.clear()
        self.server.end()
        self.server = Process(lambda: self.now)
        self._start_server(self.store._table.marks)
        self.model.entries.clear()
        self._remember()

    def register(self, one: Login, *, renewal: bool) -> None:
        """A POP/IMAP agent sends a registration, which may have to wait in the socket."""
        message = pb.RegisterLoginRequest(
            items=[
                login(
                    one.user,
                    one.address,
                    session=one.session,
                    age_ms=round((self.now - one.verified) * 1000),
                    epoch=one.epoch,
                    renewal=renewal,
                )
            ]
        )

        def call() -> None:
            with contextlib.suppress(RpcError):
                self.server.run(self.service.RegisterLogin(message, None))
                self._model_registers(one, renewal=renewal)

        self.calls.append(call)

    def revoke(self, user: str, address: bytes, epoch: int) -> None:
        """An NMAP agent, or an administrator, revokes; that may have to wait too."""
        request = pb.RevokeLoginsRequest(client_address=address, credential_epoch=epoch)
        if user:
            request.user.CopyFrom(pb.UserKey(name=user, context="users.demo"))

        def call() -> None:
            with contextlib.suppress(RpcError):
                self.server.run(self.service.RevokeLogins(request, None))
                self.model.revoke(
                    Revocation(
                        made=self.now,
                        user=UserKey(user, "users.demo") if user else None,
                        network=NETWORKS.locate(address).key if address else None,
                        credential_epoch=epoch,
                    )
                )
                self._remember()

        self.calls.append(call)

    def ask(self, user: str, address: bytes) -> bool | None:
        """The SMTP agent asks by a call, and holds what was allowed; None: no answer."""
        if not (self.network_up and self.server.running):
            return None
        request = pb.CheckSenderRequest(
            items=[check(f"{user}@example.org", address=address, binding=pb.SENDER_BINDING_STRICT)]
        )
        try:
            (answer,) = self.server.run(self.service.CheckSender(request, None)).results
        except RpcError:
            return None
        allowed = answer.decision == pb.DECISION_ALLOWED
        if allowed:
            self.replica.hold(address)
        return allowed

    def tear(self) -> None:
        """Every connection is reset."""
        for stream in self.streams:
            stream.tear()
        self.streams.clear()

    def pass_time(self, seconds: float) -> None:
        """Time passes; who is not stopped does what is due."""
        until = self.now + seconds
        while self.now < until:
            timers = [p.next_timer() for p in (self.server,) if p.running]
            timers += [p.next_timer() - _SKEW for p in (self.agent,) if p.running]
            self.now = min(
                until, self.now + _STEP, max(self.now + 0.001, min(timers, default=until))
            )
            self.settle()

    def settle(self) -> None:
        """Who runs does what can be done now."""
        if self.server.running:
            self.service.desk.guard.beat(self.now)
        moved = True
        while moved:
            if self.server.running:
                calls, self.calls = self.calls, []
                for call in calls:
                    call()
                    self.now += 0.001  # it took its time
                self.server.settle()
            if self.agent.running:
                self.agent.settle()
            moved = bool(self.calls and self.server.running)
            if self.network_up:
                moved = sum(stream.flow() for stream in self.streams) > 0 or moved

        if self.faults:
            raise self.faults[0]
        assert not self._following.done()

    def open_stream(self) -> Stream:
        """The watcher calls."""
        stream = Stream(self.between)
        if not self.network_up:
            stream.tear()
            return stream
        self.streams.append(stream)
        self.server.create_task(self._serve(self.service, stream))
        return stream

    async def _serve(self, service: ConnectionManagerService, stream: Stream) -> None:
        context: Any = Context(stream)
        try:
            await service.WatchLogins(stream.requests(), context)
        except RpcError as error:
            stream.end(error.status)
        except Exception as error:  # noqa: BLE001 - the test's own flow raises it
            self.faults.append(error)
        else:
            stream.end(grpc.StatusCode.OK)

    def end(self) -> None:
        """Both processes end."""
        self.tear()
        self.agent.end()
        self.server.end()

    # What may be.

    def table_allows(self, user: str, address: bytes) -> bool:
        """Whether the model allows it now."""
        return self._vouched(self.moments[-1], user, address, self.now)

    def was_allowed(self, user: str, address: bytes, first: float) -> bool:
        """Whether the model allowed it at any time from FIRST to now."""
        ends = [moment.since for moment in self.moments[1:]] + [self.now]
        return any(
            end >= first and self._vouched(moment, user, address, max(first, moment.since))
            for moment, end in zip(self.moments, ends, strict=True)
        )

    def _vouched(self, moment: Moment, user: str, address: bytes, when: float) -> bool:
        located = NETWORKS.locate(address)
        return located.grants and any(
            entry.place == located.place and entry.user.name == user and entry.expires > when
            for entry in moment.entries
        )

    def replica_allows(self, user: str, address: bytes) -> bool:
        """What a client is told that comes now."""
        sender = f"{user}@example.org"
        question = SenderQuestion((CheckedSender(sender, sender, "example.org"),), Binding.STRICT)
        return self.replica.allows(address, question) is not None

    def _model_registers(self, one: Login, *, renewal: bool) -> None:
        self.model.register(
            Registration(
                profile=Profile(UserKey(one.user, "users.demo")),
                place=NETWORKS.locate(one.address).place,
                client_address=one.address,
                protocol=LoginProtocol.POP3,
                messaging_server="mail1",
                agent="",
                session_id=one.session,
                age=self.now - one.verified,
                credential_epoch=one.epoch,
                renewal=renewal,
            ),
            self.now,
        )
        self._remember()

    def _remember(self) -> None:
        entries = tuple(replace(entry) for entry in self.model.live(self.now))
        self.moments.append(Moment(self.now, entries))
        while len(self.moments) > 1 and self.moments[1].since < self.now - 2 * MAX_STALENESS:
            del self.moments[0]


class _Client(ConnectionManagerClient):
    """Watches through the world's network."""

    def __init__(self, world: World) -> None:
        self._world = world

    def watcher(self, mode: WatchMode, **settings: Any) -> Watcher:
        """Of the login table."""
        return Watcher(_Stub(self._world), mode, networks=NETWORKS, **settings)  # type: ignore[arg-type]


class _Stub:
    def __init__(self, world: World) -> None:
        self._world = world

    def WatchLogins(self) -> Stream:  # noqa: N802 - the API names it
        """Opens a stream."""
        return self._world.open_stream()


def granting(addresses: Iterable[bytes]) -> list[bytes]:
    """Those whose logins may grant."""
    return [address for address in addresses if NETWORKS.locate(address).grants]
