"""NMAP agents that run."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import Installation
from netmail_common.grpc_client import Channel
from netmail_common.nmap import DirectoryClient
from netmail_common.roles import Role
from netmail_nmap.app import Running, nmap_agent

from tests.nmap.agents import client_of, two_servers


@pytest.fixture
def installation(tmp_path: Path, certificates: Path) -> Installation:
    return two_servers(tmp_path, certificates)


@pytest.fixture
async def mail1(installation: Installation) -> AsyncIterator[Running]:
    async with nmap_agent(installation, "mail1") as running:
        yield running


@pytest.fixture
async def mail2(installation: Installation) -> AsyncIterator[Running]:
    async with nmap_agent(installation, "mail2") as running:
        yield running


@pytest.fixture
async def client(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[DirectoryClient]:
    async with client_of(installation, "mail1", identity_for(Role.SMTP)) as made:
        yield made


@pytest.fixture
async def admin(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> "AsyncIterator[directory_pb2_grpc.DirectoryServiceAsyncStub]":
    channel = Channel(
        installation.messaging_server("mail1").nmap.target,
        identity_for(Role.ADMIN),
        installation="netmail",
        expected_role=Role.NMAP,
    )
    yield directory_pb2_grpc.DirectoryServiceStub(channel.raw)
    await channel.close()
