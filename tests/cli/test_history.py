"""`netmail login history` against a Connection Manager of this process."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from netmail_cli.exit_codes import ExitCode
from netmail_cli.main import app
from netmail_common.config import load_config
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from typer.testing import CliRunner, Result

from tests.connmgr.conftest import IdentityFor, login
from tests.connmgr.front_ends import grpc_client
from tests.support.installation import free_port

ADDRESS = b"\xcb\x00\x71\x01"


@pytest.fixture
def config(tmp_path: Path, certificates: Path) -> Path:
    """Two Connection Managers; the second one keeps no log. No NMAP agent runs."""
    path = tmp_path / "config.yaml"
    managers = [
        {
            "name": name,
            "listen": [f"127.0.0.1:{free_port()}"],
            "http": {"listen": None},
            "audit": {"directory": str(tmp_path / "audit") if name == "cm1" else None},
        }
        for name in ("cm1", "cm2")
    ]
    server = {
        "name": "mail1",
        "host_name": "mail.example.org",
        "domains": ["example.org"],
        "connection_manager": "cm1",
        "contexts": [{"name": "users.demo"}],
        "nmap": {"listen": [f"127.0.0.1:{free_port()}"]},
    }
    settings = {
        "state_dir": str(tmp_path / "state"),
        "grpc": {"certificates": str(certificates)},
        "connection_managers": managers,
        "messaging_servers": [server],
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def managers(config: Path, identity_for: IdentityFor) -> Iterator[None]:
    """Both Connection Managers, in a thread of their own.

    Alice logged in, was revoked and came again too late.
    """
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        settings = load_config(config)
        async with (
            connection_manager(settings, "cm1") as running,
            connection_manager(settings, "cm2"),
            grpc_client(running, identity_for, Role.POP_IMAP) as agent,
            grpc_client(running, identity_for) as admin,
        ):
            await agent.register_one(login("alice", ADDRESS))
            await admin.revoke(client_address=ADDRESS, reason="[/test]\x1b[31m")
            await agent.register_one(login("alice", ADDRESS, age_ms=60_000))
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    yield
    over.set()
    thread.join(60)


@pytest.fixture
def netmail(config: Path) -> Callable[..., Result]:
    def run(*argv: str) -> Result:
        return CliRunner().invoke(app, ["login", "history", *argv, "--config", str(config)])

    return run


def records(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("managers")
def test_the_history_of_a_user_and_of_an_address(netmail: Callable[..., Result]) -> None:
    for name in ("alice", "alice@users.demo"):
        found = records(netmail(name, "--json"))
        assert [one["event"] for one in found] == ["login registered", "login refused"]
        assert found[0]["connection_manager"] == "cm1"
        assert found == sorted(found, key=lambda one: one["time"])
    for argv in (["203.0.113.1"], ["--address", "::ffff:203.0.113.1"]):
        assert len(records(netmail(*argv, "--json"))) == 3
    both = records(netmail("alice", "--address", "203.0.113.1", "--json"))
    assert [one["user"] for one in both] == ["alice", "alice"]
    assert len(records(netmail("203.0.113.1", "--limit", "2", "--json"))) == 2
    assert len(records(netmail("203.0.113.1", "--within", "1h", "--json"))) == 3
    assert records(netmail("nobody", "--json")) == []

    table = netmail("203.0.113.1")
    assert table.exit_code == 0, table.output
    assert "revoked" in table.stdout
    assert "[/test]" in table.stdout


@pytest.mark.usefixtures("managers")
def test_what_comes_from_outside_says_nothing_to_the_terminal(
    netmail: Callable[..., Result],
) -> None:
    for argv in ((), ("--json",)):
        assert "\x1b" not in netmail("203.0.113.1", *argv).stdout


@pytest.mark.parametrize(
    "argv", [[], ["alice", "--address", "x"], ["alice", "--within", "soon"], ["--limit", "-1"]]
)
def test_questions_without_sense_are_refused(
    netmail: Callable[..., Result], argv: list[str]
) -> None:
    assert netmail(*argv).exit_code == ExitCode.USAGE
