"""Registering logins with a real Connection Manager, over mutual TLS."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from netmail.connmgr.v1 import connmgr_pb2
from netmail_common.acceptor import ClientInfo
from netmail_common.certificates import Identity
from netmail_common.config import Installation, PopImapConfig, parse_config
from netmail_common.connmgr import ConnectionManagerClient, UserKey
from netmail_common.grpc_client import Channel
from netmail_common.nmap import AuthenticatedUser
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from netmail_pop_imap.adapters.logins import Agent, LoginRegistrar, boot_time
from netmail_pop_imap.domain.session import Ending
from netmail_pop_imap.protocol.errors import LoginRevoked

from tests.support.installation import free_port
from tests.support.waiting import until

ADDRESS = ip_address("192.0.2.7")
CLIENT = ClientInfo(ADDRESS, 40000, ip_address("192.0.2.1"), 110, via_proxy=False, may_grant=True)
ALICE = AuthenticatedUser(
    1, "alice", "users.demo", "mail1", ("alice@example.org",), ("example.org",), 1
)


@dataclass(eq=False)
class OpenSession:
    """What the registrar ends."""

    protocol_name: str = "pop3"
    endings: list[Ending] = field(default_factory=list)

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)

    def cut(self) -> None:
        raise AssertionError("nobody cuts it")


@dataclass
class Clock:
    """Our time: the machine's, and what a test adds to it."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return boot_time() + self.ahead


@pytest.fixture
def installed(certificates: Path, tmp_path: Path) -> Installation:
    """One Connection Manager on a port of its own; the lifetime is the shortest there is."""
    return parse_config(
        {
            "grpc": {"certificates": str(certificates)},
            "connection_managers": [
                {"name": "main", "listen": [f"127.0.0.1:{free_port()}"], "login_lifetime": 300}
            ],
            "messaging_servers": [
                {
                    "name": "mail1",
                    "host_name": "mail1.example.org",
                    "domains": ["example.org"],
                    "contexts": [{"name": "users.demo"}],
                    "connection_manager": "main",
                    "nmap": {"listen": ["127.0.0.1:1"]},
                }
            ],
        },
        state=tmp_path,
    )


Clients = Callable[[Role], AbstractAsyncContextManager[ConnectionManagerClient]]


@pytest.fixture
def clients(installed: Installation, identity_for: Callable[[Role], Identity]) -> Clients:
    """Clients of any role."""

    @asynccontextmanager
    async def connect(role: Role) -> AsyncIterator[ConnectionManagerClient]:
        channel = Channel(
            installed.connection_manager("main").target,
            identity_for(role),
            installation="netmail",
            expected_role=Role.CONNMGR,
        )
        try:
            yield ConnectionManagerClient(channel)
        finally:
            await channel.close()

    return connect


@asynccontextmanager
async def registering(
    clients: Clients, clock: Clock | None = None, patience: float = 1.0, tick: float = 0.02
) -> AsyncIterator[LoginRegistrar]:
    """A registrar that runs."""
    async with clients(Role.POP_IMAP) as client:
        registrar = LoginRegistrar(
            client,
            agent=Agent("mail1", "test"),
            config=PopImapConfig(register_timeout=patience),
            clock=clock or Clock(),
            tick=tick,
        )
        task = asyncio.create_task(registrar.run())
        try:
            yield registrar
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def known(clients: Clients) -> list[connmgr_pb2.Login]:
    async with clients(Role.ADMIN) as client:
        return [login async for login in client.list_logins()]


def watching(registrar: LoginRegistrar) -> Callable[[], Awaitable[bool]]:
    async def connected() -> bool:
        return bool(registrar.instance_id)

    return connected


async def test_a_login_is_known_when_register_returns(
    installed: Installation, clients: Clients
) -> None:
    async with connection_manager(installed, "main"), registering(clients) as registrar:
        await registrar.register(OpenSession(), ALICE, CLIENT)
        (login,) = await known(clients)
    assert (login.user.name, login.user.context) == ("alice", "users.demo")
    assert login.client_address == ADDRESS.packed
    assert login.protocol == connmgr_pb2.PROTOCOL_POP3
    assert login.messaging_server == "mail1"
    assert list(login.addresses) == ["alice@example.org"]
    assert login.grants


async def test_an_address_that_a_proxy_did_not_say_is_not_registered(
    installed: Installation, clients: Clients
) -> None:
    unknown = ClientInfo(ADDRESS, 1, ADDRESS, 110, via_proxy=False, may_grant=False)
    async with connection_manager(installed, "main"), registering(clients) as registrar:
        assert await registrar.register(OpenSession(), ALICE, unknown) is None
        assert await known(clients) == []


async def test_without_a_connection_manager_logins_work_and_are_registered_nowhere() -> None:
    registrar = LoginRegistrar(None, agent=Agent("mail1", "test"), config=PopImapConfig())
    await registrar.run()
    login = await registrar.register(OpenSession(), ALICE, CLIENT)
    registrar.end(login)
    assert login is None


async def test_a_connection_manager_that_comes_late_is_told_by_a_retry_with_the_logins_age(
    installed: Installation, clients: Clients
) -> None:
    clock = Clock()
    async with registering(clients, clock) as registrar:
        login = await registrar.register(OpenSession(), ALICE, CLIENT)
        registrar.end(login)
        clock.ahead += 30
        async with connection_manager(installed, "main"):

            async def told() -> bool:
                return len(await known(clients)) == 1

            await until(told)
            (entry,) = await known(clients)
    assert entry.age_ms >= 30_000
    assert entry.remaining_seconds <= 270


async def test_what_could_not_be_told_is_told_as_soon_as_it_is_there(
    installed: Installation, clients: Clients
) -> None:
    async with registering(clients, tick=3600) as registrar:
        await registrar.register(OpenSession(), ALICE, CLIENT)
        async with connection_manager(installed, "main"):

            async def told() -> bool:
                return len(await known(clients)) == 1

            await until(told)


async def test_a_connection_manager_that_hangs_keeps_nobody_waiting_longer_than_the_timeout(
    installed: Installation, clients: Clients
) -> None:
    port = int(installed.connection_manager("main").target.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        async with registering(clients, patience=0.2) as registrar:
            begin = time.monotonic()
            assert await registrar.register(OpenSession(), ALICE, CLIENT) is not None
            assert time.monotonic() - begin < 1.0


async def test_after_a_restart_logins_are_registered_again_with_their_original_time(
    installed: Installation, clients: Clients
) -> None:
    clock = Clock()
    bob = AuthenticatedUser(2, "bob", "users.demo", "mail1", (), (), 1)
    async with registering(clients, clock) as registrar:
        async with connection_manager(installed, "main"):
            ended = await registrar.register(OpenSession(), ALICE, CLIENT)
            await registrar.register(OpenSession(), bob, CLIENT)
            registrar.end(ended)
            assert len(await known(clients)) == 2
            await until(watching(registrar))
        clock.ahead += 50
        async with connection_manager(installed, "main"):

            async def told() -> bool:
                return len(await known(clients)) == 2

            await until(told)
            entries = {entry.user.name: entry for entry in await known(clients)}
    assert entries["alice"].remaining_seconds <= 250
    assert entries["bob"].remaining_seconds >= 295  # his session is open


async def test_an_open_session_is_renewed_after_a_third_of_the_lifetime(
    installed: Installation, clients: Clients
) -> None:
    clock = Clock()
    async with connection_manager(installed, "main"), registering(clients, clock) as registrar:
        await registrar.register(OpenSession(), ALICE, CLIENT)

        async def remaining() -> int:
            (entry,) = await known(clients)
            return entry.remaining_seconds

        async def dropped() -> bool:
            return await remaining() <= 298

        await until(dropped)
        clock.ahead += 101

        async def renewed() -> bool:
            return await remaining() >= 299

        await until(renewed)


async def test_a_revocation_ends_the_session_and_its_renewals(
    installed: Installation, clients: Clients
) -> None:
    session, other = OpenSession(), OpenSession()
    bob = AuthenticatedUser(2, "bob", "users.demo", "mail1", (), (), 1)
    async with (
        connection_manager(installed, "main"),
        registering(clients) as registrar,
        clients(Role.ADMIN) as admin,
    ):
        await registrar.register(session, ALICE, CLIENT)
        await registrar.register(other, bob, CLIENT)
        await until(watching(registrar))
        await admin.revoke(user=UserKey("alice", "users.demo"), credential_epoch=2, reason="test")

        async def ended() -> bool:
            return session.endings == [Ending.REVOKED]

        await until(ended)
        assert other.endings == []
        assert len(registrar) == 1


async def test_a_revocation_by_address_ends_every_session_from_that_network(
    installed: Installation, clients: Clients
) -> None:
    near, far = OpenSession(), OpenSession()
    elsewhere = ClientInfo(
        ip_address("198.51.100.1"), 1, ADDRESS, 110, via_proxy=False, may_grant=True
    )
    async with (
        connection_manager(installed, "main"),
        registering(clients) as registrar,
        clients(Role.ADMIN) as admin,
    ):
        await registrar.register(near, ALICE, CLIENT)
        await registrar.register(far, ALICE, elsewhere)
        await until(watching(registrar))
        await admin.revoke(client_address=ADDRESS.packed, reason="test")

        async def ended() -> bool:
            return near.endings == [Ending.REVOKED]

        await until(ended)
        assert far.endings == []


async def test_a_login_with_an_old_password_is_refused_after_the_revocation(
    installed: Installation, clients: Clients
) -> None:
    async with (
        connection_manager(installed, "main"),
        registering(clients) as registrar,
        clients(Role.ADMIN) as admin,
    ):
        await admin.revoke(user=UserKey("alice", "users.demo"), credential_epoch=2, reason="test")
        with pytest.raises(LoginRevoked):
            await registrar.register(OpenSession(), ALICE, CLIENT)
        assert len(registrar) == 0


async def test_a_client_that_goes_while_its_login_is_registered_leaves_no_open_session(
    installed: Installation, clients: Clients
) -> None:
    port = int(installed.connection_manager("main").target.rpartition(":")[2])
    clock = Clock()
    with socket.create_server(("127.0.0.1", port)):
        async with registering(clients, clock, patience=5.0) as registrar:
            task = asyncio.create_task(registrar.register(OpenSession(), ALICE, CLIENT))
            await until(_held(registrar))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            clock.ahead += 1000
            registrar.expire()
            assert len(registrar) == 0


def _held(registrar: LoginRegistrar) -> Callable[[], Awaitable[bool]]:
    async def held() -> bool:
        return len(registrar) == 1

    return held
