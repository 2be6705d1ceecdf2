"""A Connection Manager goes on with another configuration; what it knows stays."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ConfigError
from netmail_common.connmgr import Connected, ConnectionManagerClient, WatchMode
from netmail_common.roles import Role
from netmail_connmgr.app.manager import Running, connection_manager

from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.front_ends import ask_udp, grpc_client, settings
from tests.support.installation import free_port

HOME = b"\xcb\x00\x71\x01"
WHOSON = {"listen": ["127.0.0.1:0"], "allowed_sources": ["127.0.0.0/8"], "udp_login": True}


@dataclass
class Manager:
    """A Connection Manager that serves, and an administrator's client."""

    running: Running
    client: ConnectionManagerClient
    certificates: Path

    async def use(self, **manager: Any) -> None:
        await self.running.use(settings(self.certificates, **manager))

    async def decision(self) -> "pb.Decision.ValueType":
        answer = await self.client.check_sender(check("alice@example.org", address=HOME))
        return answer.decision

    async def whoson(self, line: str) -> bytes | None:
        port = self.running.front_end_ports["whoson"][0]
        return await ask_udp(port, f"{line}\n\n".encode(), patience=5)


@pytest.fixture
async def manager(certificates: Path, identity_for: IdentityFor) -> AsyncIterator[Manager]:
    async with (
        connection_manager(settings(certificates, whoson=WHOSON), "cm1") as running,
        grpc_client(running, identity_for) as client,
    ):
        yield Manager(running, client, certificates)


async def test_a_network_that_becomes_shared_loses_its_logins(manager: Manager) -> None:
    await manager.client.register_one(login(address=HOME))
    assert await manager.decision() == pb.DECISION_ALLOWED
    await manager.use(shared_networks=["203.0.113.0/24"])
    assert await manager.decision() != pb.DECISION_ALLOWED
    await asyncio.sleep(0.1)
    await manager.use()
    assert await manager.decision() != pb.DECISION_ALLOWED
    await manager.client.register_one(login(address=HOME, session="again"))
    assert await manager.decision() == pb.DECISION_ALLOWED


async def test_other_logins_stay(manager: Manager) -> None:
    await manager.client.register_one(login(address=HOME))
    await manager.use(shared_networks=["192.0.2.0/24"], login_lifetime=300)
    assert await manager.decision() == pb.DECISION_ALLOWED


async def test_lists_count_at_once(manager: Manager) -> None:
    assert await manager.decision() != pb.DECISION_ALLOWED
    await manager.use(lists={"allowed": ["203.0.113.0/24"]})
    assert await manager.decision() == pb.DECISION_ALLOWED
    await manager.use(lists={"blocked": ["203.0.113.0/24"]})
    assert await manager.decision() != pb.DECISION_ALLOWED
    question = pb.ConnectionCheck(client_address=HOME, service=pb.SERVICE_SMTP)
    verdict = (await manager.client.check_connection(question)).verdict
    assert verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT
    await manager.use()
    verdict = (await manager.client.check_connection(question)).verdict
    assert verdict == pb.CONNECTION_VERDICT_ALLOWED


async def test_watchers_are_told_what_has_changed(
    manager: Manager, identity_for: IdentityFor
) -> None:
    hellos: asyncio.Queue[Connected] = asyncio.Queue()

    async def follow(client: ConnectionManagerClient) -> None:
        async for event in client.watch(WatchMode.REVOCATIONS):
            if isinstance(event, Connected):
                hellos.put_nowait(event)

    async with grpc_client(manager.running, identity_for, Role.SMTP) as client:
        task = asyncio.create_task(follow(client))
        async with asyncio.timeout(20):
            first = await hellos.get()
            await manager.use(
                login_lifetime=600, max_users_per_network=3, lists={"blocked": ["192.0.2.0/24"]}
            )
            second = await hellos.get()
        task.cancel()
    assert (first.lifetime, first.max_users_per_network, first.check_connections) == (900, 8, False)
    assert (second.lifetime, second.max_users_per_network) == (600, 3)
    assert second.check_connections
    assert second.instance_id == first.instance_id
    result = await manager.client.register_one(login(address=HOME))
    assert result.remaining_seconds in {599, 600}


async def test_rates_and_guessing_go_on_counting(manager: Manager) -> None:
    async def recipients(number: int, count: int) -> bool:
        event = pb.Event(
            event_id=f"event {number}",
            client_address=HOME,
            service=pb.SERVICE_SUBMISSION,
            messaging_server="mail1",
            user=pb.UserKey(name="alice", context="users.demo"),
            relay_wanted=pb.RelayWanted(authenticated=True, recipients=count, session_id="one"),
        )
        return (await manager.client.report_event(event)).accepted

    assert await recipients(1, 20)
    await manager.use(rates={"after_auth": {"recipients": 30}})
    assert not await recipients(2, 20)
    assert await recipients(3, 10)
    await manager.use(rates={"after_auth": {"recipients": 50}}, guessing={"enabled": False})
    assert await recipients(4, 20)
    failure = pb.Event(
        client_address=HOME,
        service=pb.SERVICE_POP3,
        messaging_server="mail1",
        typed_name="nobody",
        login_failed=pb.LoginFailed(),
    )
    for _ in range(8):
        assert (await manager.client.report_event(failure)).delay_ms == 0
    await manager.use(guessing={"address_delay_from": 1, "max_delay": 1})
    assert (await manager.client.report_event(failure)).delay_ms > 0


async def test_a_front_end_is_opened_anew_when_it_is_told_something_else(manager: Manager) -> None:
    before = manager.running.front_end_ports["whoson"]
    await manager.use(whoson=WHOSON, login_lifetime=300)
    assert manager.running.front_end_ports["whoson"] == before
    login_line = "LOGIN 203.0.113.1 alice"
    assert await manager.whoson(login_line) == b"+LOGIN OK\r\n\r\n"
    await manager.use(whoson={**WHOSON, "udp_login": False})
    answer = await manager.whoson("LOGIN 203.0.113.2 bob")
    assert answer is not None
    assert answer.startswith(b"*")
    assert await manager.whoson("QUERY 203.0.113.1") == b"+alice\r\n\r\n"
    await manager.use()
    assert "whoson" not in manager.running.front_end_ports
    await manager.use(whoson=WHOSON)
    assert await manager.whoson(login_line) == b"+LOGIN OK\r\n\r\n"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"lists": {"allowed": ["100.64.1.0/24"]}}, "100.64"),
        ({"dns_servers": ["dns.example:53"]}, "dns_servers"),
        ({"whoson": {**WHOSON, "allowed_sources": ["169.254.0.0/16"]}}, "allowed_sources"),
    ],
)
async def test_what_is_not_usable_changes_nothing(
    manager: Manager, bad: dict[str, Any], said: str
) -> None:
    await manager.client.register_one(login(address=HOME))
    with pytest.raises(ConfigError, match=said):
        await manager.use(**{"whoson": WHOSON, "shared_networks": ["203.0.113.0/24"], **bad})
    assert await manager.decision() == pb.DECISION_ALLOWED
    assert await manager.whoson("QUERY 203.0.113.1") == b"+alice\r\n\r\n"


async def test_a_front_end_whose_new_address_is_taken_serves_where_it_was(
    manager: Manager,
) -> None:
    port = free_port()
    await manager.use(whoson={**WHOSON, "listen": [f"127.0.0.1:{port}"]})
    taken = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    other = taken.sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError, match="whoson"):
            await manager.use(whoson={**WHOSON, "listen": [f"127.0.0.1:{other}"]})
        assert manager.running.front_end_ports["whoson"][0] == port
        assert await manager.whoson("QUERY 203.0.113.9") == b"-not logged in\r\n\r\n"
    finally:
        taken.close()
