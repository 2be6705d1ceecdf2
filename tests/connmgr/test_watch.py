"""WatchLogins from both ends: hello, snapshot, changes, heartbeats, loss."""

import asyncio
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import (
    Changed,
    Connected,
    ConnectionManagerClient,
    Lost,
    Revoked,
    SnapshotEnded,
    UserKey,
    WatchMode,
)
from netmail_common.connmgr.events import boot_time
from netmail_common.connmgr.packed import login_key
from netmail_common.grpc_errors import error_reason
from netmail_common.roles import Role
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.adapters.watch_batches import BATCH
from netmail_connmgr.domain.changes import ChangeLog, MissedChanges, RevisionLog
from netmail_connmgr.domain.store import Position
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import Clock, ServeFactory, Server, login
from tests.connmgr.watching import events_until, is_a, register, until_error, watching

ALICE = UserKey("alice", "users.demo")


async def test_a_full_watcher_gets_a_snapshot_then_changes(server: Server) -> None:
    await register(server, login("alice"), login("bob"))
    async with watching(server) as stream:
        hello = (await stream.expect("hello")).hello
        assert hello.instance_id == server.store.instance_id
        assert (hello.login_lifetime_seconds, hello.resumed) == (900, False)
        snapshot = await stream.logins()
        assert sorted(one.user.name for one in snapshot) == ["alice", "bob"]
        end = await stream.expect("snapshot_end")
        assert end.revision == 2
        await register(server, login("carol"))
        message = await stream.expect("changes")
        (one,) = stream.unpack(message.changes)
        assert (one.user.name, message.revision) == ("carol", 3)
        assert not message.changes.removed
        assert (one.place, one.client_address) == (b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x01")
        assert (one.expires, one.verified) == (server.clock() + 900, server.clock())
        assert (one.messaging_server, *one.profile.domains) == ("mail1", "example.org")


async def test_a_snapshot_leaves_out_what_is_over(server: Server) -> None:
    await register(server, login("alice"))
    server.clock.advance(500)
    await register(server, login("bob"))
    server.clock.advance(500)
    async with watching(server) as stream:
        await stream.expect("hello")
        (one,) = await stream.logins()
        assert (one.user.name, one.expires - server.clock()) == ("bob", 400)
        assert server.clock() - one.verified == 500


async def test_a_long_snapshot_comes_in_batches(server: Server) -> None:
    count = BATCH * 2 + 1
    for first in range(0, count, 900):
        numbers = range(first, min(first + 900, count))
        await register(server, *(login(f"u{n}", n.to_bytes(4, "big")) for n in numbers))
    async with watching(server) as stream:
        await stream.expect("hello")
        sizes = [len(await stream.logins()) for _ in range(3)]
        # The table's first slot is never used.
        assert sizes == [BATCH - 1, BATCH, 2]
        await stream.expect("snapshot_end")


async def test_a_revocation_reaches_a_full_watcher_with_what_it_removed(server: Server) -> None:
    await register(server, login("alice"), login("bob"))
    server.clock.advance(1)
    async with watching(server) as stream:
        for kind in ("hello", "changes", "snapshot_end"):
            await stream.expect(kind)
        await server.client(Role.NMAP).revoke(user=ALICE, credential_epoch=7, reason="disabled")
        message = await stream.expect("revocation")
        assert message.revocation.user == pb.UserKey(name="alice", context="users.demo")
        assert message.revocation.credential_epoch == 7
        assert message.revocation.reason == "disabled"
        removed = await stream.expect("changes")
        assert removed.changes.removed == [login_key(b"\xc0\x00\x02\x01", ALICE)]
        assert not removed.changes.records
        assert (message.revision, removed.revision) == (2, 3)


async def test_whoever_resumes_between_a_revocation_and_its_removals_gets_both(
    server: Server,
) -> None:
    await register(server, login("alice"))
    server.clock.advance(1)
    await server.client(Role.NMAP).revoke(user=ALICE)
    instance = server.store.instance_id
    async with watching(server, instance_id=instance, revision=1) as stream:
        assert (await stream.expect("hello")).hello.resumed
        message = await stream.expect("revocation")
    async with watching(server, instance_id=instance, revision=message.revision) as stream:
        await stream.expect("hello")
        await stream.expect("revocation")
        await stream.expect("changes")


async def test_a_login_that_gives_way_to_another_network_is_removed(serve: ServeFactory) -> None:
    async with serve(limits=TableLimits(max_networks_per_user=1)) as server:
        await register(server, login(address=b"\x0a\0\0\1", session="one"))
        async with watching(server) as stream:
            for kind in ("hello", "changes", "snapshot_end"):
                await stream.expect(kind)
            await register(server, login(address=b"\x0a\0\0\2", session="two"))
            changes = (await stream.expect("changes")).changes
            assert changes.removed == [login_key(b"\x0a\0\0\1", ALICE)]
            assert [one.session_id for one in stream.unpack(changes)] == ["two"]


async def test_a_watcher_of_revocations_hears_of_nothing_else(server: Server) -> None:
    await register(server, login("alice"))
    async with watching(server, WatchMode.REVOCATIONS, role=Role.POP_IMAP) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await register(server, login("bob"))
        server.clock.advance(1)
        await server.client(Role.NMAP).revoke(client_address=b"\xc0\x00\x02\x01")
        message = await stream.expect("revocation")
        assert not message.revocation.HasField("user")
        assert message.revocation.client_address == b"\xc0\x00\x02\x01"
        assert message.revocation.network == b"\xc0\x00\x02\x01"
        assert message.revocation.prefix_length == 32
        await stream.nonce(5)
        beat = await stream.expect("heartbeat")
        assert (beat.heartbeat.nonce, beat.revision) == (5, 3)


async def test_a_new_watcher_is_told_the_revocations_that_still_bind_with_their_age(
    server: Server,
) -> None:
    await server.client(Role.NMAP).revoke(user=ALICE)
    server.clock.advance(60)
    for mode in (WatchMode.REVOCATIONS, WatchMode.FULL):
        async with watching(server, mode) as stream:
            await stream.expect("hello")
            assert (await stream.expect("revocation")).revocation.age_ms == 60_000
            await stream.expect("snapshot_end")


async def test_a_watcher_resumes_where_it_was(server: Server) -> None:
    await register(server, login("alice"), login("bob"))
    instance = server.store.instance_id
    async with watching(server, instance_id=instance, revision=1) as stream:
        assert (await stream.expect("hello")).hello.resumed
        (one,) = await stream.logins()
        assert one.user.name == "bob"


@pytest.mark.parametrize(("own_instance", "revision"), [(False, 1), (True, 99)])
async def test_a_position_of_another_instance_or_of_the_future_gets_a_snapshot(
    server: Server, own_instance: bool, revision: int
) -> None:
    await register(server, login("alice"))
    instance = server.store.instance_id if own_instance else "another"
    async with watching(server, instance_id=instance, revision=revision) as stream:
        assert not (await stream.expect("hello")).hello.resumed
        await stream.expect("changes")
        await stream.expect("snapshot_end")


async def test_registrations_do_not_push_revocations_out_of_the_log(serve: ServeFactory) -> None:
    async with serve(changes=ChangeLog(capacity=4, revocation_capacity=4)) as server:
        await server.client(Role.NMAP).revoke(user=ALICE)
        instance = server.store.instance_id
        await register(server, *(login(f"u{n}") for n in range(10)))
        async with watching(
            server, WatchMode.REVOCATIONS, instance_id=instance, revision=0
        ) as stream:
            assert (await stream.expect("hello")).hello.resumed
            await stream.expect("revocation")
        async with watching(server, instance_id=instance, revision=1) as stream:
            assert not (await stream.expect("hello")).hello.resumed


async def test_a_heartbeat_follows_what_had_happened_when_the_nonce_came(server: Server) -> None:
    async with watching(server) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        await register(server, login("alice"))
        await stream.nonce(1)
        await stream.expect("changes")
        assert (await stream.expect("heartbeat")).heartbeat.nonce == 1


async def test_only_the_newest_nonce_need_be_returned(server: Server) -> None:
    async with watching(server) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        for number in range(1, 200):
            await stream.nonce(number)
        last = 0
        while last != 199:
            nonce = (await stream.expect("heartbeat")).heartbeat.nonce
            assert nonce > last
            last = nonce


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        (pb.WatchLoginsRequest(nonce=1), grpc.StatusCode.INVALID_ARGUMENT, "NO_START"),
        (pb.WatchLoginsRequest(), grpc.StatusCode.INVALID_ARGUMENT, "NO_START"),
        (
            pb.WatchLoginsRequest(start=pb.WatchStart()),
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_START",
        ),
        (
            pb.WatchLoginsRequest(hold=pb.HoldNetworks(add=[b"\xc0\0\2\1"])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_START",
        ),
    ],
)
async def test_a_stream_that_begins_otherwise_is_refused(
    server: Server, first: pb.WatchLoginsRequest, code: grpc.StatusCode, reason: str
) -> None:
    call = server.stub(Role.SMTP).WatchLogins()  # type: ignore[call-arg]
    await call.write(first)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 10)
    assert (caught.value.code(), error_reason(caught.value)) == (code, reason)


async def test_the_drain_ends_every_stream(serve: ServeFactory) -> None:
    async with serve() as server, watching(server) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
        server.service.drain()
        assert await asyncio.wait_for(stream.call.read(), 5) is grpc.aio.EOF  # type: ignore[attr-defined]
        assert server.store._watchers == set()


async def test_a_watcher_that_goes_leaves_nothing_behind(server: Server) -> None:
    async with watching(server) as stream:
        await stream.expect("hello")
        assert len(server.store._watchers) == 1
    async with asyncio.timeout(5):
        while server.store._watchers:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.01)


async def test_a_feed_that_falls_behind_is_told_so_and_holds_no_queue() -> None:
    store = MemoryStore(TableLimits(), clock=Clock(), changes=ChangeLog(capacity=8))
    wake = asyncio.Event()
    position = Position(store.instance_id, 0)
    async with store.watch(position, revocations_only=False, wake=wake) as feed:
        assert feed.resumed
        for number in range(9):
            store._table.changes.changed(b"%d" % number)
        with pytest.raises(MissedChanges):
            await feed.take(100)


def test_the_log_keeps_the_newest_entries_in_order() -> None:
    log = RevisionLog[int](4)
    for revision in range(10, 100, 10):
        log.append(revision, revision)
    assert log.after(50, 10) == [60, 70, 80, 90]
    assert log.after(55, 2) == [60, 70]
    assert log.after(75, 10) == [80, 90]
    assert log.after(90, 10) == []
    with pytest.raises(MissedChanges):
        log.after(49, 10)


async def test_the_client_follows_the_table(server: Server) -> None:
    events = server.client(Role.SMTP).watch(WatchMode.FULL)
    seen = await events_until(events, is_a(SnapshotEnded))
    assert [type(event) for event in seen] == [Connected, SnapshotEnded]
    await register(server, login("alice"))
    changed = (await events_until(events, is_a(Changed)))[-1]
    assert isinstance(changed, Changed)
    assert len(changed.changes.records) == 1
    await events.aclose()


async def test_the_client_comes_back_after_a_restart_and_says_so(serve: ServeFactory) -> None:
    async with serve() as first:
        client = first.client(Role.POP_IMAP)
        port = first.port
        events = client.watch(WatchMode.REVOCATIONS)
        (connected, _) = await events_until(events, is_a(SnapshotEnded))
        channels, first.channels = first.channels, []
        first.service.drain()
    await events_until(events, is_a(Lost))
    async with serve(listen=f"127.0.0.1:{port}") as second:
        (again,) = await events_until(events, is_a(Connected))
        assert isinstance(connected, Connected)
        assert isinstance(again, Connected)
        assert connected.instance_id == first.store.instance_id
        assert again.instance_id == second.store.instance_id != connected.instance_id
        assert not again.resumed
        await events.aclose()
        second.channels.extend(channels)


async def test_the_client_resumes_after_a_break_and_misses_no_revocation(
    serve: ServeFactory,
) -> None:
    async with serve() as server:
        events = server.client(Role.POP_IMAP).watch(WatchMode.REVOCATIONS, heartbeat=0.05)
        await events_until(events, is_a(SnapshotEnded))
        server.service.drain()  # streams end at once from now on
        await events_until(events, is_a(Lost))
        await server.client(Role.NMAP).revoke(user=ALICE, reason="while away")
        server.service._watchers._ending.clear()
        seen = await events_until(events, is_a(Revoked))
        connected = [event for event in seen if isinstance(event, Connected)]
        assert all(event.resumed for event in connected)
        assert connected
        await events.aclose()


async def test_a_server_that_goes_silent_is_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the connection and answers no nonce, as a stopped process would."""
    events = server.client(Role.POP_IMAP).watch(WatchMode.REVOCATIONS, heartbeat=0.05, silence=0.3)
    await events_until(events, is_a(SnapshotEnded))
    monkeypatch.setattr(
        "netmail_connmgr.adapters.watch_requests.WatchRequests.take", lambda _self: (None, [])
    )
    await events_until(events, is_a(Lost))
    await events.aclose()


async def test_the_client_tells_which_logins_a_revocation_covers(server: Server) -> None:
    client: ConnectionManagerClient = server.client(Role.POP_IMAP)
    events = client.watch(WatchMode.REVOCATIONS)
    await events_until(events, is_a(SnapshotEnded))
    nmap = server.client(Role.NMAP)

    async def told(**order: Any) -> Revoked:
        await nmap.revoke(**order)
        event = (await events_until(events, is_a(Revoked)))[-1]
        assert isinstance(event, Revoked)
        return event

    home, office = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    bob = UserKey("bob", "users.demo")
    before, after = boot_time() - 60, boot_time() + 60
    by_epoch = await told(user=ALICE, credential_epoch=3)
    assert by_epoch.covers(ALICE, home, after, 2)
    assert not by_epoch.covers(ALICE, home, before, 3)
    assert not by_epoch.covers(bob, home, before, 2)
    by_age = await told(user=ALICE)
    assert by_age.covers(ALICE, home, before, 9)
    assert not by_age.covers(ALICE, home, after, 9)
    by_address = await told(client_address=home.packed)
    assert by_address.covers(bob, home, before, 9)
    assert by_address.covers(bob, ip_address("::ffff:192.0.2.1"), before, 9)
    assert not by_address.covers(bob, office, before, 9)
    v6 = ip_address("2001:db8::1")
    by_prefix = await told(user=bob, client_address=v6.packed)
    assert by_prefix.covers(bob, ip_address("2001:db8::2"), before, 9)
    assert not by_prefix.covers(ALICE, v6, before, 9)
    assert not by_prefix.covers(bob, ip_address("2001:db8:0:1::1"), before, 9)
    await events.aclose()


async def test_a_watcher_that_reads_nothing_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_connmgr.adapters.grpc_watch.WRITE_TIMEOUT", 0.2)
    addresses = tuple(f"{'x' * 60}{n}@example.org" for n in range(90))
    client = server.client(Role.ADMIN)
    for first in range(0, 2500, 500):
        numbers = range(first, first + 500)
        await client.register(
            [login(f"u{n}", n.to_bytes(4, "big"), addresses=addresses) for n in numbers]
        )
    async with watching(server) as stream, asyncio.timeout(20):
        await stream.expect("hello")
        while server.store._watchers:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.05)
        assert await until_error(stream) == "WATCHER_TOO_SLOW"


async def test_a_snapshot_that_is_read_too_slowly_is_cut_off(server: Server) -> None:
    for first in range(0, 3000, 600):
        await register(
            server, *(login(f"u{n}", n.to_bytes(4, "big")) for n in range(first, first + 600))
        )

    def slow_now() -> float:
        server.clock.advance(20.0)
        return server.clock()

    server.store._clock = slow_now
    async with watching(server) as stream:
        assert await until_error(stream) == "WATCHER_TOO_SLOW"


async def test_watchers_of_revocations_do_not_wait_for_the_snapshots_of_others(
    server: Server,
) -> None:
    snapshots = server.service._watchers._snapshots
    await snapshots.acquire()
    await snapshots.acquire()
    async with watching(server, WatchMode.REVOCATIONS) as stream:
        await stream.expect("hello")
        await stream.expect("snapshot_end")
    async with watching(server) as stream:
        await stream.expect("hello")
        snapshots.release()
        await stream.expect("snapshot_end")
