"""Two Messaging Servers of one installation, each with a Connection Manager of its own."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.installation import ROOT, RunningInstallation, installation

ALICE, CAROL = "127.0.0.7", "127.0.0.8"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    def apart(data: dict[str, Any]) -> None:
        data["connection_managers"].append(
            {"name": "branch", "listen": ["127.0.0.1:7701"], "loopback_grants": True}
        )
        data["messaging_servers"][1]["connection_manager"] = "branch"

    with installation(tmp_path_factory.mktemp("two"), change=apart) as running:
        yield running


def act(server: RunningInstallation, action: str, source: str, port: int, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.mail_client", action, source, "127.0.0.1",
         str(server.port(port)), *argv],
        check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    return done.stdout.strip()


def relay(server: RunningInstallation, source: str, port: int, sender: str) -> str:
    return act(server, "send", source, port, sender, "eve@example.net")


def test_they_share_no_logins(server: RunningInstallation) -> None:
    assert act(server, "pop3", ALICE, 2110, "alice", "wonderland").startswith("+OK")
    assert act(server, "imap", CAROL, 3143, "carol", "branch-office") == "OK"
    assert relay(server, ALICE, 2525, "alice@example.org").startswith("250")
    assert relay(server, CAROL, 3525, "carol@branch.example.org").startswith("250")
    unknown = "550 5.7.1 Relaying to <eve@example.net> denied: log in by POP3 or IMAP4 first"
    assert relay(server, ALICE, 3525, "alice@example.org").startswith(unknown)
    assert relay(server, CAROL, 2525, "carol@branch.example.org").startswith(unknown)
