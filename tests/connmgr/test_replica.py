"""A replica fed by the real stream has what the table has, whatever happens and however often the
stream breaks."""

import random
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import ConnectionManagerClient, UserKey
from netmail_common.networks import network_of
from netmail_common.roles import Role
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import Clock, ServeFactory, Server, login

USERS = ["alice", "bob", "carol"]
ADDRESSES = [bytes([192, 0, 2, n]) for n in range(4)] + [b"\x7f\x00\x00\x01"]

Key = tuple[str, bytes, bool]


@dataclass(slots=True)
class Replica:
    """What the smallest watcher that is right would keep."""

    clock: Clock
    instance_id: str = ""
    clock_id: str = ""
    pending_instance: str = ""
    revision: int = 0
    complete: bool = False
    expires: dict[Key, float] = field(default_factory=dict)

    def feed(self, message: pb.WatchLoginsResponse) -> None:
        match message.WhichOneof("event"):
            case "hello":
                self.complete = message.hello.resumed
                self.pending_instance = message.hello.instance_id
                self.clock_id = message.hello.clock_id
                if not message.hello.resumed:
                    self.expires.clear()
                    self.instance_id, self.revision = "", 0
            case "snapshot_end":
                self.complete = True
                self.instance_id = self.pending_instance
            case "changes":
                for key in message.changes.removed:
                    self.expires.pop(self.key(key), None)
                for record in message.changes.records:
                    one = pb.LoginRecord.FromString(record)
                    self.expires[self.key(record)] = one.expires
        if self.complete:
            assert message.revision >= self.revision or message.HasField("hello")
            self.revision = max(self.revision, message.revision)

    def key(self, record: bytes) -> Key:
        one = pb.LoginRecord.FromString(record)
        network = network_of(one.place)
        return one.user.name, network, network == one.place

    def live(self) -> set[Key]:
        return {key for key, expires in self.expires.items() if expires > self.clock()}


async def do_something(
    server: Server, admin: ConnectionManagerClient, dice: random.Random, number: int
) -> None:
    user, address = dice.choice(USERS), dice.choice(ADDRESSES)
    match dice.randrange(6):
        case 0:
            which: Any = dice.choice(
                [
                    {"user": UserKey(user, "users.demo")},
                    {"client_address": address},
                    {"user": UserKey(user, "users.demo"), "client_address": address},
                ]
            )
            await admin.revoke(**which)
        case 1:
            server.clock.advance(dice.choice([1, 100, 899, 900]))
        case _:
            await admin.register(
                [
                    login(
                        user,
                        address,
                        session=dice.choice([f"s{number}", f"s{user}"]),
                        age_ms=dice.choice([0, 0, 1000, 600_000]),
                        renewal=dice.random() < 0.3,
                    )
                ]
            )


async def catch_up(server: Server, replica: Replica, nonce: int, stub: Any) -> None:
    """One stream until its first heartbeat; then it breaks."""
    call = stub.WatchLogins()
    start = pb.WatchStart(
        mode=pb.WATCH_MODE_FULL,
        instance_id=replica.instance_id,
        revision=replica.revision,
        clock_id=replica.clock_id,
    )
    try:
        await call.write(pb.WatchLoginsRequest(start=start))
        await call.write(pb.WatchLoginsRequest(nonce=nonce))
        while True:
            message = await call.read()
            assert message is not grpc.aio.EOF  # type: ignore[attr-defined]
            replica.feed(message)
            if message.heartbeat.nonce == nonce:
                return
    finally:
        call.cancel()


@pytest.mark.parametrize("seed", range(4))
async def test_a_replica_has_the_tables_logins_at_every_heartbeat(
    serve: ServeFactory, seed: int
) -> None:
    dice = random.Random(seed)
    limits = TableLimits(max_networks_per_user=2)
    async with serve(limits=limits, changes=ChangeLog(capacity=6, revocation_capacity=4)) as server:
        replica = Replica(server.clock)
        stub, admin = server.stub(Role.SMTP), server.client(Role.ADMIN)
        resumed = 0
        for number in range(1, 41):
            for _ in range(dice.randrange(1, 6)):
                await do_something(server, admin, dice, number)
            before = replica.instance_id
            await catch_up(server, replica, number, stub)
            resumed += bool(before and replica.instance_id == before)
            listed = {(one.user.name, one.network, one.grants) async for one in admin.list_logins()}
            assert replica.live() == listed
        assert resumed
