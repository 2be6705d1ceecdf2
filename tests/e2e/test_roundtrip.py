"""`netmail roundtrip`: mail really goes in, out and back, and what does not work is said."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import RunningInstallation, free_port, installation

pytestmark = pytest.mark.timeout(600)
SINK = free_port()


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """One server of the demonstration, to which the world listens on a port of the test."""

    def change(data: dict[str, Any]) -> None:
        del data["messaging_servers"][1:]
        data["messaging_servers"][0]["deliver"]["smtp_port"] = SINK

    state = tmp_path_factory.mktemp("roundtrip")
    with installation(state, change=change, ready_within=240) as started:
        yield started


def netmail(running: RunningInstallation, *argv: str) -> subprocess.CompletedProcess[str]:
    """The command; on a busy machine its start alone takes a while."""
    command = [sys.executable, "-m", "netmail_cli", *argv]
    command += ["--config", str(running.config_path), "--state", str(running.state)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)


def roundtrip(
    running: RunningInstallation, *argv: str, sink: int = SINK
) -> subprocess.CompletedProcess[str]:
    doors = {"smtp": 2525, "submission": 2587, "pop3s": 2995, "imaps": 2993}
    given = [
        word
        for name, port in doors.items()
        for word in (f"--{name}", f"127.0.0.1:{running.port(port)}")
    ]
    where = ["--sink", f"127.0.0.1:{sink}", "--context", "users.demo"]
    return netmail(running, "roundtrip", *given, *where, *argv)


def authority(running: RunningInstallation) -> Path:
    return running.state / "ca" / "ca.pem"


def users(running: RunningInstallation) -> set[str]:
    listed = json.loads(netmail(running, "user", "list", "--json").stdout)
    return {one["name"] for one in listed}


def test_mail_goes_in_out_and_back_and_the_user_is_gone(sending: RunningInstallation) -> None:
    before = users(sending)
    done = roundtrip(sending, "--ca", str(authority(sending)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a stranger may not send to the world: 5" in done.stdout
    assert "X-Auth-OK: roundtrip-" in done.stdout
    assert done.stdout.endswith("everything is as it should be\n")
    assert users(sending) == before


def test_mail_that_does_not_leave_is_found(sending: RunningInstallation) -> None:
    before = users(sending)
    elsewhere = roundtrip(sending, "--insecure", "--patience", "5", sink=free_port())
    assert elsewhere.returncode == 1
    assert "no mail has come for world@[127.0.0.1]" in elsewhere.stderr
    assert users(sending) == before


def test_a_certificate_of_somebody_else_is_found(sending: RunningInstallation) -> None:
    done = roundtrip(sending)
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
