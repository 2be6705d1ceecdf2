"""WatchLogins with held networks, the table's clock, origins, and messages of bounded size."""

import asyncio
from ipaddress import ip_address

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import UserKey, WatchMode
from netmail_common.connmgr.packed import login_key
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role

from tests.connmgr.conftest import Server, login
from tests.connmgr.watching import register, until_error, watching

HOME = b"\xc0\x00\x02\x01"
OFFICE = b"\xc0\x00\x02\x02"
ALICE = UserKey("alice", "users.demo")


async def test_a_watcher_that_holds_networks_hears_of_these_and_of_all_revocations(
    server: Server,
) -> None:
    await register(server, login("alice", HOME), login("bob", OFFICE))
    async with watching(server, WatchMode.HELD) as stream:
        hello = (await stream.expect("hello")).hello
        assert (hello.resumed, hello.logins) == (False, 2)
        await stream.expect("snapshot_end")
        await stream.hold(add=[HOME])
        held = (await stream.expect("held")).held
        assert held.addresses == [HOME]
        assert [one.user for one in stream.unpack(held)] == [ALICE]
        await register(server, login("carol", OFFICE), login("dave", HOME))
        (one,) = await stream.logins()
        assert one.user.name == "dave"
        server.clock.advance(1)
        await server.client(Role.NMAP).revoke(user=UserKey("bob", "users.demo"))
        await server.client(Role.NMAP).revoke(user=ALICE)
        assert (await stream.expect("revocation")).revocation.user.name == "bob"
        assert (await stream.expect("revocation")).revocation.user.name == "alice"
        assert (await stream.expect("changes")).changes.removed == [login_key(HOME, ALICE)]


async def test_a_network_that_was_let_go_is_told_of_no_more(server: Server) -> None:
    async with watching(server, WatchMode.HELD) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await stream.hold(add=[HOME, OFFICE])
        assert (await stream.expect("held")).held.addresses == [HOME, OFFICE]
        await stream.hold(remove=[HOME])
        await stream.expect("held")
        await register(server, login("alice", HOME), login("bob", OFFICE))
        (one,) = await stream.logins()
        assert one.user.name == "bob"


async def test_a_network_is_held_by_any_of_its_addresses(server: Server) -> None:
    first, second = (ip_address(f"2001:db8::{n}").packed for n in (1, 2))
    await register(server, login("alice", first))
    async with watching(server, WatchMode.HELD) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await stream.hold(add=[second])
        held = (await stream.expect("held")).held
        assert held.addresses == [second]
        assert len(held.records) == 1


async def test_a_network_with_too_many_logins_is_not_held(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_connmgr.adapters.watch_stream.MAX_AT_PLACE", 2)
    await register(server, *(login(f"u{n}", HOME) for n in range(3)), login("bob", OFFICE))
    async with watching(server, WatchMode.HELD) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await stream.hold(add=[HOME, OFFICE])
        held = (await stream.expect("held")).held
        assert held.addresses == [OFFICE]
        assert held.refused == [HOME]
        assert len(held.records) == 1


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        (pb.HoldNetworks(add=[b"abc"]), "BAD_ADDRESS"),
        (pb.HoldNetworks(remove=[b""]), "BAD_ADDRESS"),
        (pb.HoldNetworks(add=[b"\xc0\0\2\1"] * 1001), "TOO_MANY_NETWORKS"),
    ],
)
async def test_a_wish_that_makes_no_sense_ends_the_stream(
    server: Server, hold: pb.HoldNetworks, reason: str
) -> None:
    async with watching(server, WatchMode.HELD) as stream:
        await stream.call.write(pb.WatchLoginsRequest(hold=hold))
        assert await asyncio.wait_for(until_error(stream), 10) == reason


async def test_whoever_has_times_of_another_clock_gets_a_snapshot(server: Server) -> None:
    await register(server, login("alice"))
    instance = server.store.instance_id
    async with watching(server, instance_id=instance, revision=1, clock_id="another") as stream:
        assert not (await stream.expect("hello")).hello.resumed
        assert len(await stream.logins()) == 1


async def test_hello_and_heartbeats_tell_the_tables_clock(server: Server) -> None:
    async with watching(server) as stream:
        hello = (await stream.expect("hello")).hello
        assert (hello.table_time, hello.clock_id) == (server.clock(), server.store.clock_id)
        await stream.expect("snapshot_end")
        server.clock.advance(5)
        await stream.nonce(1)
        assert (await stream.expect("heartbeat")).heartbeat.table_time == server.clock()


async def test_a_stream_ends_when_the_rules_about_addresses_change(server: Server) -> None:
    own = ip_address("192.0.2.1")
    async with watching(server) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        server.service.use(NetworkMap(AddressRules(own_addresses=frozenset({own}))))
        assert await asyncio.wait_for(stream.call.read(), 5) is grpc.aio.EOF  # type: ignore[attr-defined]
    async with watching(server) as stream:
        assert (await stream.expect("hello")).hello.own_addresses == [own.packed]


async def test_origins_are_told_once_and_before_they_are_named(server: Server) -> None:
    await register(server, login("alice"))
    async with watching(server) as stream:
        await stream.expect("hello")
        assert len((await stream.expect("changes")).changes.origins) == 1
        await stream.expect("snapshot_end")
        await register(server, login("bob"))
        assert not (await stream.expect("changes")).changes.origins
        await register(server, login("carol", domains=("example.net",)))
        message = await stream.expect("changes")
        assert [one.domains for one in message.changes.origins] == [["example.net"]]


async def test_a_message_is_bounded_by_octets_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_connmgr.adapters.watch_batches.BATCH_OCTETS", 1000)
    monkeypatch.setattr("netmail_connmgr.adapters.watch_stream.BATCH_OCTETS", 1000)
    long = tuple(f"{'x' * 60}{n}@example.org" for n in range(5))
    homes = [bytes([10, 0, 0, n]) for n in range(10)]
    people = [login(f"u{n}", home, addresses=long) for n, home in enumerate(homes)]
    await register(server, *people)
    async with watching(server, WatchMode.FULL) as stream:
        await stream.expect("hello")
        sizes: list[int] = []
        while sum(sizes) < len(people):
            message = await stream.expect("changes")
            assert sum(map(len, message.changes.records)) <= 1000
            sizes.append(len(message.changes.records))
        await stream.expect("snapshot_end")
    async with watching(server, WatchMode.HELD) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await stream.hold(add=homes)
        seen: list[bytes] = []
        while len(seen) < len(homes):
            held = (await stream.expect("held")).held
            assert sum(map(len, held.records)) <= 1000
            assert len(held.records) == len(held.addresses)
            seen += held.addresses
        assert seen == homes
