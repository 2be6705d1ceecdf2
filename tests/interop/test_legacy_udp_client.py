"""A client in C, written from docs/legacy-udp.md, compiled for 64 and for 32 bits."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import parse_config
from netmail_common.connmgr import UserKey
from netmail_common.connmgr.model import LoginProtocol
from netmail_common.roles import Role
from netmail_connmgr.app.manager import Running, connection_manager

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH
from tests.connmgr.one_manager import client_of, manager_config
from tests.support.dns_server import Zone, dns_server

SOURCE = Path(__file__).with_name("legacy_udp_client.c")
CLIENT, STRANGER = "203.0.113.1", "203.0.113.2"


@dataclass(frozen=True, slots=True)
class Agent:
    """The C program and the files that it needs."""

    program: Path
    hash_file: Path
    word: int

    async def run(self, port: int, *words: str) -> list[str]:
        """Sends requests; what it printed, a line each."""
        process = await asyncio.create_subprocess_exec(
            *(str(self.program), str(port), str(self.hash_file), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), 60)
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        assert process.returncode == 0, errors.decode()
        return output.decode().splitlines()


@pytest.fixture(scope="module", params=[64, 32])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Agent:
    """The client for one size of unsigned long."""
    if shutil.which("gcc") is None:
        pytest.skip("needs the Debian packages gcc and libc6-dev")
    folder = tmp_path_factory.mktemp("client")
    bits: int = request.param
    argv = ["gcc", f"-m{bits}", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(folder / "client")]
    (folder / "probe.c").write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
    if subprocess.run(
        [*argv, str(folder / "probe.c")], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the Debian package gcc-multilib")
    subprocess.run([*argv, str(SOURCE)], check=True)
    (folder / "hash").write_text(ACCESS_HASH.hex(), encoding="ascii")
    return Agent(folder / "client", folder / "hash", bits // 8)


@contextlib.asynccontextmanager
async def serving(
    certificates: Path, hash_file: Path, udp: dict[str, Any] | None = None, **manager: Any
) -> AsyncIterator[tuple[Running, int]]:
    """A Connection Manager that speaks both protocols, and its UDP port."""
    legacy_udp = {
        "listen": ["127.0.0.1:0"],
        "allowed_sources": ["127.0.0.1/32"],
        "access_hash_file": str(hash_file),
        "plain": True,
        **(udp or {}),
    }
    data = manager_config(certificates, loopback_grants=True, legacy_udp=legacy_udp, **manager)
    config = parse_config({**data, "state_dir": str(hash_file.parent / "state")})
    async with connection_manager(config, "cm1") as running:
        yield running, running.front_end_ports["legacy_udp"][0]


async def test_the_compiler_lays_the_structs_out_as_the_page_says(agent: Agent) -> None:
    sizes = {8: "40 368 400", 4: "20 344 396"}[agent.word]
    assert await agent.run(1, "sizes") == [sizes]


async def test_logins_are_stored_and_checked_by_the_plain_protocol(
    agent: Agent, certificates: Path
) -> None:
    async with serving(certificates, agent.hash_file) as (_, port):
        assert await agent.run(port, "check", CLIENT, "check-name", CLIENT) == ["0 ", "0 "]
        await agent.run(port, "store", STRANGER, "store-name", CLIENT, "alice")
        lines = await agent.run(
            port, "check", CLIENT, "check-name", CLIENT, "check", STRANGER, "check-name", STRANGER
        )
        assert lines == ["1 ", "2 alice", "1 ", "1 "]
        for name in ("n" * 20, "x" * 255, ""):
            await agent.run(port, "store-name", CLIENT, name)
            expected = f"2 {name}" if name else f"2 {'x' * 255}"
            assert await agent.run(port, "check-name", CLIENT) == [expected]


async def test_logins_are_registered_and_relay_by_the_authenticated_protocol(
    agent: Agent, certificates: Path, identity_for: IdentityFor
) -> None:
    async with serving(certificates, agent.hash_file) as (running, port):
        assert await agent.run(port, "relay", CLIENT) == ["1 "]
        lines = await agent.run(
            port,
            *("notify", "AUTHENTICATED", CLIENT, "alice", "relay", CLIENT, "relay", STRANGER),
            *("notify", "Disconnected", CLIENT, "notify", "DELIVERED", CLIENT, "relay", CLIENT),
            *("connect", CLIENT, "notify", "authenticated", STRANGER, "", "relay", STRANGER),
        )
        assert lines == ["0", "3 alice", "1 ", "0", "0", "3 alice", "3 0 ", "0", "1 "]
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        (login,) = [one async for one in client.list_logins()]
        assert (login.user.name, login.user.context) == ("alice", "users.demo")
        assert login.protocol == LoginProtocol.LEGACY_UDP.value
        await client.revoke(user=UserKey("alice", "users.demo"))
        await channel.close()
        assert await agent.run(port, "relay", CLIENT) == ["1 "]


async def test_lists_and_reverse_names_decide_about_connections(
    agent: Agent, certificates: Path
) -> None:
    zone = Zone(
        {
            ("1.113.0.203.in-addr.arpa", "PTR"): ["client.example."],
            ("client.example", "A"): ["203.0.113.1"],
        }
    )
    async with (
        dns_server(zone) as dns,
        serving(
            certificates,
            agent.hash_file,
            lists={"allowed": ["203.0.113.77/32"], "blocked": ["203.0.113.66/32"]},
            reverse_dns={"enabled": True},
            dns_servers=[dns.address],
        ) as (_, port),
    ):
        connects = [word for n in (1, 2, 66, 77) for word in ("connect", f"203.0.113.{n}")]
        named, nameless, blocked, listed = await agent.run(port, *connects)
        assert named == "3 0 "
        assert nameless.startswith("3 1 ")
        assert len(nameless) > len("3 1 ")
        assert blocked.startswith("2 0 ")
        assert listed == "3 0 "
        relays = await agent.run(port, "relay", "203.0.113.77", "relay", "203.0.113.66")
        assert relays == ["3 ", "1 "]
        checks = await agent.run(port, "check-name", "203.0.113.77", "check", "203.0.113.66")
        assert checks == ["1 ", "0 "]


async def test_other_sources_wait_in_vain(agent: Agent, certificates: Path) -> None:
    """The library waits for 19 seconds; nobody waits so long here."""
    async with serving(certificates, agent.hash_file) as (_, port):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await agent.run(port, "-s", "127.0.0.2", "check", CLIENT)
        await agent.run(port, "-s", "127.0.0.2", "store-name", CLIENT, "mallory")
        assert await agent.run(port, "check", CLIENT) == ["0 "]


async def test_an_agent_with_another_secret_gives_up_after_four_datagrams(
    agent: Agent, certificates: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "hash"
    wrong.write_text("01" * 128, encoding="ascii")
    async with serving(certificates, agent.hash_file) as (_, port):
        other = Agent(agent.program, wrong, agent.word)
        assert await other.run(port, "notify", "AUTHENTICATED", CLIENT, "mallory") == ["4"]
        assert await agent.run(port, "relay", CLIENT) == ["1 "]
