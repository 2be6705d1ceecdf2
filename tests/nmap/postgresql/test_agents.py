"""Two NMAP agents of one Messaging Server, as their clients see them."""

import asyncio
import contextlib
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import ConfigError, Installation
from netmail_common.grpc_client import Channel
from netmail_common.nmap import DirectoryClient
from netmail_common.roles import Role
from netmail_common.sasl import AuthFailed
from netmail_nmap.adapters.postgresql import Place
from netmail_nmap.app import nmap_agent

from tests.nmap.agents import client_of, login, two_servers
from tests.support.postgresql import postgresql

pytestmark = pytest.mark.server

Agents = list[tuple[Installation, DirectoryClient]]


@pytest.fixture
async def agents(
    place: Place, tmp_path: Path, certificates: Path, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[Agents]:
    """They start at the same time, so that the users of the configuration are made once."""
    made = [two_servers(tmp_path, certificates, store={"url": place.url}) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(
            *(stack.enter_async_context(nmap_agent(each, "mail1")) for each in made)
        )
        yield [
            (
                each,
                await stack.enter_async_context(client_of(each, "mail1", identity_for(Role.SMTP))),
            )
            for each in made
        ]


async def _refused(client: DirectoryClient, name: str, password: str) -> None:
    """It may take the moment in which the other agent is told."""
    async with asyncio.timeout(10):
        while True:
            try:
                await login(client, name, password)
            except AuthFailed:
                return


async def test_a_password_that_is_changed_at_one_opens_nothing_at_the_other(
    agents: Agents, identity_for: Callable[[Role], Identity]
) -> None:
    (first, _), (_, client) = agents
    before = await login(client, "alice", "wonderland")
    assert await login(client, "alice", "wonderland") == before
    channel = Channel(
        first.messaging_server("mail1").nmap.target,
        identity_for(Role.ADMIN),
        installation="netmail",
        expected_role=Role.NMAP,
    )
    admin = directory_pb2_grpc.DirectoryServiceStub(channel.raw)
    request = pb.SetPasswordRequest(user=pb.UserRef(name="alice"), password="looking-glass")
    await admin.SetPassword(request)
    await channel.close()
    await _refused(client, "alice", "wonderland")
    after = await login(client, "alice", "looking-glass")
    assert after.credential_epoch > before.credential_epoch


async def test_a_database_that_is_away_stops_the_start(tmp_path: Path, certificates: Path) -> None:
    away = {"url": "postgresql://netmail@127.0.0.1:1/nothing", "start_timeout": 0}
    with pytest.raises(ConfigError, match="cannot be opened"):
        async with nmap_agent(two_servers(tmp_path, certificates, store=away), "mail1"):
            pass


async def test_a_start_waits_for_a_database_that_is_still_away(
    tmp_path: Path, certificates: Path, identity_for: Callable[[Role], Identity]
) -> None:
    with postgresql() as server:
        made = two_servers(tmp_path, certificates, store={"url": await to_thread(server.create)})
        await to_thread(server.stop)
        async with contextlib.AsyncExitStack() as stack:
            start = asyncio.create_task(stack.enter_async_context(nmap_agent(made, "mail1")))
            done, _ = await asyncio.wait([start], timeout=3)
            assert not done
            await to_thread(server.start)
            await start
            client = await stack.enter_async_context(
                client_of(made, "mail1", identity_for(Role.SMTP))
            )
            assert await login(client, "alice", "wonderland")
