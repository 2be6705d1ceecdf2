"""The replica of a table that is larger than itself."""

import asyncio
from ipaddress import ip_address

from netmail_common.connmgr import UserKey
from netmail_common.connmgr.held import HeldPlaces
from netmail_common.connmgr.replica import LoginReplica
from netmail_common.roles import Role

from tests.connmgr.conftest import Clock, ServeFactory, Server, login
from tests.connmgr.test_login_replica import following, question
from tests.support.waiting import until

PLACES = [bytes([192, 0, 2, n]) for n in range(10)]
ALICE = UserKey("alice", "users.demo")


async def fill(server: Server, *, age_ms: int = 0) -> None:
    """More logins than a replica of five keeps; alice's from the first place."""
    people = [login("alice", PLACES[0], age_ms=age_ms)]
    people += [login(f"u{n}", place, age_ms=age_ms) for n, place in enumerate(PLACES)]
    await server.client(Role.ADMIN).register(people)


def knows(replica: LoginReplica, number: int) -> bool:
    return replica.allows(PLACES[number], question(f"u{number}")) is not None


async def test_it_knows_what_it_was_told_to_hold_and_nothing_else(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=5) as replica:
        assert not replica.holds_all
        assert not any(knows(replica, n) for n in range(10))
        replica.hold(PLACES[0])
        replica.hold(PLACES[3])
        await until(lambda: knows(replica, 0) and knows(replica, 3))
        assert replica.allows(PLACES[0], question()) is not None
        assert replica.logins == 3
        assert not knows(replica, 1)


async def test_changes_of_held_networks_follow(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=5) as replica:
        replica.hold(PLACES[0])
        await until(lambda: knows(replica, 0))
        await server.client(Role.ADMIN).register([login("zoe", PLACES[0]), login("x", PLACES[1])])
        await until(lambda: replica.allows(PLACES[0], question("zoe")) is not None)
        server.clock.advance(1)
        await server.client(Role.NMAP).revoke(user=ALICE)
        await until(lambda: replica.allows(PLACES[0], question()) is None)
        assert replica.allows(PLACES[0], question("zoe")) is not None
        assert replica.logins == 2


async def test_the_network_that_was_unused_for_longest_goes_for_a_new_one(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=5) as replica:
        for number in (1, 2, 3, 4, 5):
            replica.hold(PLACES[number])
        await until(lambda: all(knows(replica, n) for n in (2, 3, 4, 5, 1)))
        replica.hold(PLACES[6])
        await until(lambda: knows(replica, 6))
        assert not knows(replica, 2)
        assert [knows(replica, n) for n in (1, 3, 4, 5, 6)] == [True] * 5
        assert replica.logins == 5


async def test_a_held_network_that_grows_pushes_others_out(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=5) as replica:
        for number in (1, 2, 3):
            replica.hold(PLACES[number])
        await until(lambda: all(knows(replica, n) for n in (1, 2, 3)))
        crowd = [login(f"crowd{n}", PLACES[3]) for n in range(3)]
        await server.client(Role.ADMIN).register(crowd)
        await until(lambda: replica.allows(PLACES[3], question("crowd2")) is not None)
        assert not knows(replica, 1)
        assert replica.logins == 5


async def test_after_a_break_it_asks_for_the_same_networks(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=5) as replica:
        for number in (1, 2):
            replica.hold(PLACES[number])
        await until(lambda: knows(replica, 1) and knows(replica, 2))
        await server.client(Role.ADMIN).register([login("new", PLACES[2])])
        server.service._watchers.begin_anew()
        await until(lambda: replica.allows(PLACES[2], question("new")) is not None)
        await until(lambda: knows(replica, 1))
        assert replica.logins == 3


async def test_it_takes_the_whole_table_when_there_is_room_again(serve: ServeFactory) -> None:
    clock = Clock()
    async with serve(clock=clock) as server:
        await fill(server, age_ms=890_000)
        async with following(server, max_logins=5, max_staleness=0.2) as replica:
            assert not replica.holds_all
            clock.advance(15)
            await server.client(Role.ADMIN).register([login("late", PLACES[9])])
            server.store.drop_expired()
            await until(lambda: replica.holds_all and replica.fresh)
            assert replica.allows(PLACES[9], question("late")) is not None


async def test_it_gives_up_the_whole_when_the_table_outgrows_it(server: Server) -> None:
    await server.client(Role.ADMIN).register([login("alice", PLACES[0])])
    async with following(server, max_logins=5) as replica:
        assert replica.holds_all
        assert replica.allows(PLACES[0], question()) is not None
        await fill(server)
        await until(lambda: not replica.holds_all and replica.fresh)
        replica.hold(PLACES[0])
        await until(lambda: replica.allows(PLACES[0], question()) is not None)


async def test_without_room_for_any_login_it_never_answers(server: Server) -> None:
    await fill(server)
    async with following(server, max_logins=0) as replica:
        replica.hold(PLACES[0])
        await asyncio.sleep(0.05)
        assert (replica.logins, knows(replica, 0)) == (0, False)


async def test_a_network_that_never_grants_is_not_asked_for(server: Server) -> None:
    await fill(server)
    loopback = ip_address("127.0.0.1").packed
    async with following(server, max_logins=5) as replica:
        replica.hold(loopback)
        assert len(replica._held) == 0


def test_a_place_is_held_when_the_last_request_for_it_was_answered() -> None:
    held = HeldPlaces()
    assert held.want(b"home", b"1")
    assert not held.want(b"home", b"2")
    held.let_go(b"home")
    assert held.want(b"home", b"3")
    assert not held.answered(b"home")  # to the first request: changes may have been missed since
    assert b"home" not in held
    assert held.answered(b"home")
    assert b"home" in held


def test_an_answer_for_a_place_that_was_let_go_counts_for_nothing() -> None:
    held = HeldPlaces()
    held.want(b"home", b"1")
    held.let_go(b"home")
    assert not held.answered(b"home")
    assert held.want(b"home", b"2")
    assert held.answered(b"home")


def test_a_new_stream_is_asked_for_everything_once() -> None:
    held = HeldPlaces()
    held.want(b"home", b"1")
    held.want(b"office", b"2")
    assert held.answered(b"home")
    assert list(held.begin_anew()) == [b"1", b"2"]
    assert b"home" not in held
    assert held.answered(b"home")
