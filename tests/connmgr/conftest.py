"""A Connection Manager on a clock of the test's own, and its clients in every role."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.adapters.grpc_service import SERVICE_NAME, ConnectionManagerService
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.one_manager import channel_to

IdentityFor = Callable[[Role], Identity]


class Clock:
    """Time that passes when told; `beat`, if set, is told too, as a running process would be."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.beat: Callable[[float], None] | None = None

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        """The process runs meanwhile."""
        self.time += seconds
        if self.beat is not None:
            self.beat(self.time)

    def stand_still(self, seconds: float) -> None:
        """The process is stopped meanwhile."""
        self.time += seconds


@dataclass(slots=True)
class Server:
    """A running service and ways to call it."""

    clock: Clock
    store: MemoryStore
    service: ConnectionManagerService
    port: int
    identity_for: IdentityFor
    channels: list[Channel] = field(default_factory=list)

    def channel(self, role: Role) -> Channel:
        channel = channel_to(self.port, self.identity_for(role))
        self.channels.append(channel)
        return channel

    def client(self, role: Role) -> ConnectionManagerClient:
        return ConnectionManagerClient(self.channel(role))

    def stub(self, role: Role) -> "connmgr_pb2_grpc.ConnectionManagerServiceAsyncStub":
        return connmgr_pb2_grpc.ConnectionManagerServiceStub(self.channel(role).raw)


ServeFactory = Callable[..., contextlib.AbstractAsyncContextManager[Server]]


@pytest.fixture
def serve(identity_for: IdentityFor) -> ServeFactory:
    """Starts Connection Managers: limits, rules, changes, listen, settle by keyword."""

    @contextlib.asynccontextmanager
    async def start(
        *,
        limits: TableLimits | None = None,
        rules: AddressRules | None = None,
        changes: ChangeLog | None = None,
        clock: Clock | None = None,
        listen: str = "127.0.0.1:0",
        max_users: int = 8,
        settle: float = 0.0,
    ) -> AsyncIterator[Server]:
        clock = clock or Clock()
        store = MemoryStore(limits or TableLimits(), clock=clock, changes=changes, settle=settle)
        service = ConnectionManagerService(
            store, NetworkMap(rules or AddressRules()), max_users_per_network=max_users
        )

        def run_meanwhile(now: float) -> None:
            service.desk.guard = StallGuard(now)

        clock.beat = run_meanwhile

        def register(server: grpc.aio.Server) -> None:
            connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(service, server)

        async with grpc_server(
            listen=[listen],
            identity=identity_for(Role.CONNMGR),
            role=Role.CONNMGR,
            installation="netmail",
            register=register,
            health=Health(),
            service_names=[SERVICE_NAME],
            drain_timeout=1.0,
        ) as bound:
            server = Server(clock, store, service, bound.ports[0], identity_for)
            try:
                yield server
            finally:
                service.drain()
                for channel in server.channels:
                    await channel.close()

    return start


@pytest.fixture
async def server(serve: ServeFactory) -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


def login(
    name: str = "alice",
    address: bytes = b"\xc0\x00\x02\x01",
    *,
    context: str = "users.demo",
    session: str = "",
    age_ms: int = 0,
    epoch: int = 1,
    renewal: bool = False,
    addresses: tuple[str, ...] | None = None,
    domains: tuple[str, ...] = ("example.org",),
    protocol: "pb.Protocol.ValueType" = pb.PROTOCOL_POP3,
) -> pb.LoginRegistration:
    """A registration as pop_imap sends it."""
    own = (f"{name}@example.org",) if addresses is None else addresses
    return pb.LoginRegistration(
        user=pb.UserKey(name=name, context=context),
        addresses=own,
        client_address=address,
        protocol=protocol,
        messaging_server="mail1",
        agent="pop_imap/1",
        session_id=session or f"session of {name[:20]}",
        age_ms=age_ms,
        credential_epoch=epoch,
        domains=domains,
        renewal=renewal,
    )


def check(
    *senders: str,
    address: bytes = b"\xc0\x00\x02\x01",
    binding: "pb.SenderBinding.ValueType" = pb.SENDER_BINDING_DOMAIN,
    owners: tuple[pb.SenderOwner, ...] = (),
) -> pb.SenderCheck:
    """A question as smtp asks it."""
    return pb.SenderCheck(
        client_address=address,
        senders=senders,
        binding=binding,
        messaging_server="mail1",
        owners=owners,
    )


def owned(address: str, name: str = "", context: str = "users.demo") -> pb.SenderOwner:
    """What the directory said about a sender: whose it is; nobody's without a name."""
    owner = pb.UserKey(name=name, context=context) if name else None
    return pb.SenderOwner(address=address, owner=owner, known=True)
