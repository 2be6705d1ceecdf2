"""The replica of the login table over the real stream: what it answers, and when it is silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from netmail_common.connmgr import Revoked, UserKey
from netmail_common.connmgr.model import Binding, CheckedSender, Decision, SenderQuestion
from netmail_common.connmgr.replica import LoginReplica
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role

from tests.connmgr.conftest import Clock, ServeFactory, Server, login
from tests.support.waiting import until

HOME = b"\xc0\x00\x02\x01"
OFFICE = b"\xc0\x00\x02\x02"
ALICE = UserKey("alice", "users.demo")


def question(name: str = "alice", binding: Binding = Binding.STRICT) -> SenderQuestion:
    address = f"{name}@example.org"
    return SenderQuestion((CheckedSender(address, address, "example.org"),), binding)


@contextlib.asynccontextmanager
async def following(
    server: Server,
    *,
    max_logins: int = 1000,
    max_staleness: float = 10.0,
    revoked: list[Revoked] | None = None,
) -> AsyncIterator[LoginReplica]:
    replica = LoginReplica(
        server.client(Role.SMTP),
        NetworkMap(AddressRules()),
        max_staleness=max_staleness,
        max_logins=max_logins,
        clock=server.clock,
        on_revoked=revoked.append if revoked is not None else None,
    )
    task = asyncio.create_task(replica.run())
    try:
        await until(lambda: replica.fresh)
        yield replica
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_allows_what_the_table_allows_and_is_silent_about_the_rest(
    server: Server,
) -> None:
    await server.client(Role.ADMIN).register([login("alice", HOME)])
    async with following(server) as replica:
        found = replica.allows(HOME, question())
        assert found is not None
        assert found.decision is Decision.ALLOWED
        assert found.login is not None
        assert (found.login.user, found.user_count) == (ALICE, 1)
        assert replica.allows(HOME, question("bob")) is None
        assert replica.allows(OFFICE, question()) is None
        assert replica.logins == 1


async def test_a_login_is_over_in_the_replica_when_it_is_over_in_the_table(server: Server) -> None:
    await server.client(Role.ADMIN).register([login("alice", HOME, age_ms=895_000)])
    async with following(server) as replica:
        assert replica.allows(HOME, question()) is not None
        server.clock.advance(5.0)
        assert replica.fresh
        assert replica.allows(HOME, question()) is None


async def test_it_is_silent_when_it_has_heard_nothing_for_too_long(server: Server) -> None:
    await server.client(Role.ADMIN).register([login("alice", HOME)])
    async with following(server) as replica:
        server.clock.advance(10.001)
        assert replica.allows(HOME, question()) is None
        assert not replica.fresh


@pytest.mark.parametrize("order", [{"user": ALICE}, {"client_address": HOME}])
async def test_a_revocation_ends_it_and_is_passed_on(
    server: Server, order: dict[str, object]
) -> None:
    revoked: list[Revoked] = []
    await server.client(Role.ADMIN).register([login("alice", HOME)])
    server.clock.advance(1)
    async with following(server, revoked=revoked) as replica:
        assert replica.allows(HOME, question()) is not None
        await server.client(Role.NMAP).revoke(**order)  # type: ignore[arg-type]
        await until(lambda: replica.allows(HOME, question()) is None)
        assert len(revoked) == 1
        assert replica.logins == 0


async def test_more_users_than_the_table_lets_be_lenient_make_it_strict(
    serve: ServeFactory,
) -> None:
    async with serve(max_users=2) as server:
        people = [login(name, HOME) for name in ("alice", "bob")]
        await server.client(Role.ADMIN).register(people)
        asked = SenderQuestion(
            (CheckedSender("x@example.org", "x@example.org", "example.org", known=True),),
            Binding.DOMAIN,
        )
        async with following(server) as replica:
            assert replica.allows(HOME, asked) is not None
            await server.client(Role.ADMIN).register([login("carol", HOME)])
            await until(lambda: replica.logins == 3)
            assert replica.allows(HOME, asked) is None


async def test_logins_of_networks_that_never_grant_are_not_kept(server: Server) -> None:
    await server.client(Role.ADMIN).register([login("alice", b"\x7f\0\0\1"), login("bob", HOME)])
    async with following(server) as replica:
        assert replica.logins == 1
        assert replica.allows(b"\x7f\0\0\1", question()) is None


async def test_it_comes_back_after_a_restart_without_what_the_table_forgot(
    serve: ServeFactory,
) -> None:
    clock = Clock()
    async with serve(clock=clock) as first:
        await first.client(Role.ADMIN).register([login("alice", HOME)])
        port = first.port
        stack = contextlib.AsyncExitStack()
        replica = await stack.enter_async_context(following(first))
        kept, first.channels = first.channels, []
        first.service.drain()
    async with stack, serve(clock=clock, listen=f"127.0.0.1:{port}") as second:
        second.channels.extend(kept)
        await until(lambda: replica.logins == 0)
        await until(lambda: replica.fresh)
        assert replica.allows(HOME, question()) is None
