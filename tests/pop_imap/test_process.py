"""The agent as a process: workers that share its ports, readiness, drain."""

import os
import poplib
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml
from netmail_common.certificates import LocalAuthority

from tests.pop_imap.agents import configuration
from tests.support.installation import free_port


def start(
    folder: Path, authority: LocalAuthority, certificates: Path, *, workers: int
) -> tuple[subprocess.Popen[bytes], int, int]:
    """The process once it is ready, its POP3 port and its health port."""
    pair = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
    authority.issue_server("mail1.example.org", folder / "server.pem", folder / "server.key")
    data = configuration(folder / "state", certificates, pair)
    pop3, http = free_port(), free_port()
    settings = data["messaging_servers"][0]["pop_imap"]
    settings["workers"] = workers
    settings["http"] = {"listen": f"127.0.0.1:{http}"}
    settings["listeners"] = [
        {"name": "pop3", "protocol": "pop3", "listen": [f"127.0.0.1:{pop3}", f"[::1]:{pop3}"]}
    ]
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(data))
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "netmail_pop_imap", "--config", str(config), "--server", "mail1"],
        pass_fds=(writable,),
        env={**os.environ, "NETMAIL_READY_FD": str(writable)},
        stderr=subprocess.DEVNULL,
    )
    os.close(writable)
    with os.fdopen(readable, "rb") as ready:
        assert ready.readline() == b"ready\n"
    return process, pop3, http


def test_two_workers_share_the_ports_and_drain_together(
    tmp_path: Path, authority: LocalAuthority, certificates: Path
) -> None:
    process, port, http = start(tmp_path, authority, certificates, workers=2)
    try:
        for host in ("127.0.0.1", "::1"):
            client = poplib.POP3(host, port, timeout=20)
            assert b"mail1.example.org" in client.getwelcome()
            client.quit()
        for worker in range(2):
            with urllib.request.urlopen(
                f"http://127.0.0.1:{http + worker}/healthz/ready", timeout=20
            ) as answer:
                assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_an_unknown_messaging_server_is_a_configuration_error(
    tmp_path: Path, certificates: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(tmp_path, certificates, {})))
    done = subprocess.run(
        [sys.executable, "-m", "netmail_pop_imap", "--config", str(config), "--server", "mail9"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78
    assert "mail9" in done.stderr
    assert "Traceback" not in done.stderr
