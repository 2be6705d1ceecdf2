"""`netmail run`, `netmail demo` and the administrator's commands, as a person meets them."""

import contextlib
import json
import poplib
import re
import shutil
import signal
import smtplib
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import ROOT, RunningInstallation, installation
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)


def run_json(running: RunningInstallation, *argv: str) -> Any:
    return json.loads(running.netmail(*argv, "--json").stdout)


def pop3_count(running: RunningInstallation, user: str, password: str, port: int = 2110) -> int:
    client = poplib.POP3("127.0.0.1", running.port(port), timeout=20)
    with contextlib.closing(client):
        client.user(user)
        client.pass_(password)
        count = client.stat()[0]
        client.quit()
    return count


def send_local(running: RunningInstallation, recipient: str, port: int = 2525) -> None:
    with smtplib.SMTP("127.0.0.1", running.port(port), timeout=20) as client:
        client.sendmail("eve@example.net", [recipient], b"From: eve@example.net\r\n\r\nhello\r\n")


def test_the_six_stages_are_as_designed(running: RunningInstallation) -> None:
    done = running.netmail("demo", check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Everything is as designed." in done.stdout


def test_one_table_then_a_line_that_is_exactly_ready(running: RunningInstallation) -> None:
    lines = running.text().splitlines()
    assert lines.count("ready") == 1
    head = next(line for line in lines if re.fullmatch("service +address +what to try", line))
    table = lines[lines.index(head) : lines.index("ready")]
    assert len(table) > 20
    assert any(f"127.0.0.1:{running.port(2525)}" in line for line in table)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_command_of_the_table_can_be_pasted(running: RunningInstallation) -> None:
    text = running.text()
    table = text[text.index("what to try\n") : text.index("\nready\n")].splitlines()[2:]
    commands = [re.split(r" {2,}", line)[2] for line in table if not line.startswith("{")]
    assert commands
    for command in commands:
        pasted = re.sub(r"^netmail ", ".venv/bin/netmail ", command)
        done = subprocess.run(
            pasted, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_readiness_and_metrics_are_served(running: RunningInstallation) -> None:
    import urllib.request

    for port in (7780, 7781, 7782, 7783, 7784, 7785, 7786):
        base = f"http://127.0.0.1:{running.port(port)}"
        with urllib.request.urlopen(f"{base}/healthz/ready") as answer:
            assert answer.status == 200, port
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            assert b"python_info" in answer.read()


def test_users_are_made_changed_and_removed(running: RunningInstallation) -> None:
    done = run_json(running, "user", "add", "dora", "--context", "users.demo", "--generate")
    assert done["addresses"] == ["dora@example.org"]
    assert pop3_count(running, "dora", done["password"]) == 0
    again = running.netmail(
        "user", "add", "dora", "--context", "users.demo", "--generate", check=False
    )
    assert again.returncode == 4
    changed = run_json(running, "user", "passwd", "dora", "--generate")
    with pytest.raises(poplib.error_proto):
        pop3_count(running, "dora", done["password"])
    assert pop3_count(running, "dora@example.org", changed["password"]) == 0
    added = run_json(running, "user", "address", "add", "dora", "theodora@example.org")
    assert added["addresses"] == ["dora@example.org", "theodora@example.org"]
    send_local(running, "theodora@example.org")
    assert pop3_count(running, "dora", changed["password"]) == 1
    running.netmail("user", "address", "remove", "dora", "theodora@example.org")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_local(running, "theodora@example.org")
    assert run_json(running, "user", "disable", "dora")["disabled"]
    with pytest.raises(poplib.error_proto):
        pop3_count(running, "dora", changed["password"])
    assert not run_json(running, "user", "enable", "dora")["disabled"]
    assert run_json(running, "user", "show", "dora@users.demo")["name"] == "dora"
    running.netmail("user", "remove", "dora", "--yes")
    assert running.netmail("user", "show", "dora", check=False).returncode == 3


def test_mail_is_forwarded_as_set(running: RunningInstallation) -> None:
    made = run_json(running, "user", "add", "gil", "--context", "users.demo", "--generate")
    done = run_json(
        running, "user", "set", "gil", "--forward-to", "carol@branch.example.org", "--quota", "9000"
    )
    assert done["forward_to"] == ["carol@branch.example.org"]
    assert done["quota_bytes"] == 9000
    before = pop3_count(running, "carol", "branch-office", 3110)
    send_local(running, "gil@example.org")
    eventually(lambda: pop3_count(running, "carol", "branch-office", 3110) == before + 1)
    assert pop3_count(running, "gil", made["password"]) == 0
    assert run_json(running, "user", "set", "gil", "--no-forward")["forward_to"] == []
    send_local(running, "gil@example.org")
    assert pop3_count(running, "gil", made["password"]) == 1
    assert running.netmail("user", "set", "gil", check=False).returncode == 2
    running.netmail("user", "remove", "gil", "--yes")


def test_users_and_contexts_are_listed(running: RunningInstallation) -> None:
    users = {(user["name"], user["context"]) for user in run_json(running, "user", "list")}
    assert {("alice", "users.demo"), ("carol", "branch.demo")} <= users
    contexts = {one["name"]: one for one in run_json(running, "context", "list")}
    assert set(contexts) == {"users.demo", "branch.demo"}
    assert contexts["users.demo"]["messaging_server"] == "mail1"
    assert "carol" in running.netmail("user", "list", "--context", "branch.demo").stdout


def test_logins_are_listed_and_revoked(running: RunningInstallation) -> None:
    pop3_count(running, "bob", "builder")
    which = ("--user", "bob", "--address", "127.0.0.1")
    logins = run_json(running, "login", "list", *which)
    assert [login["client_address"] for login in logins] == ["127.0.0.1"]
    assert run_json(running, "login", "revoke", *which)["revoked"] == 1
    assert run_json(running, "login", "list", *which) == []
    assert running.netmail("login", "revoke", check=False).returncode == 2


def test_failed_logins_are_forgotten(running: RunningInstallation) -> None:
    which = ("--user", "bob", "--address", "127.0.0.1")
    for _ in range(2):
        with pytest.raises(poplib.error_proto):
            pop3_count(running, "bob", "a wrong one")
    assert run_json(running, "login", "unblock", *which)["forgotten"] >= 1
    assert run_json(running, "login", "unblock", *which)["forgotten"] == 0
    assert running.netmail("login", "unblock", check=False).returncode == 2


def test_the_queue_is_shown_held_released_and_removed(running: RunningInstallation) -> None:
    pop3_count(running, "alice", "wonderland")
    with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=20) as client:
        text = b"From: alice@example.org\r\nSubject: stuck\r\n\r\nhello\r\n"
        client.sendmail("alice@example.org", ["x@unreachable.invalid", "y@[127.0.0.99]"], text)

    def waiting() -> list[Any]:
        queued = run_json(running, "queue", "list", "--sender", "alice@example.org")
        return [m for m in queued if any(r["state"] == "deferred" for r in m["recipients"])]

    eventually(waiting)
    message = waiting()[0]["message"]
    shown = run_json(running, "queue", "show", message)
    assert "Subject: stuck" in shown["header"]
    assert run_json(running, "queue", "hold", message)["changed"] >= 1
    held = run_json(running, "queue", "show", message)
    assert {recipient["state"] for recipient in held["recipients"]} == {"held"}
    assert run_json(running, "queue", "release", message)["changed"] >= 1
    assert run_json(running, "queue", "hold", message)["changed"] >= 1
    assert run_json(running, "queue", "remove", message)["changed"] >= 1
    assert running.netmail("queue", "show", message, check=False).returncode == 3
    assert running.netmail("queue", "retry", check=False).returncode == 2


def test_a_killed_agent_is_restarted_and_said_so(running: RunningInstallation) -> None:
    victim = running.pids("netmail_pop_imap", "mail2")[0]
    before = running.text().count("agent died, restarting")
    subprocess.run(["kill", "-9", str(victim)], check=True)
    eventually(lambda: running.text().count("agent died, restarting") == before + 1)

    def answers() -> bool:
        try:
            return pop3_count(running, "carol", "branch-office", 3110) >= 0
        except OSError:
            return False

    eventually(answers)
    assert running.pids("netmail_pop_imap", "mail2")[0] != victim


def test_a_second_run_in_the_same_state_directory_is_refused(running: RunningInstallation) -> None:
    done = running.netmail("run", check=False)
    assert done.returncode == 78
    assert "another netmail run" in done.stderr


def only_mail1(data: dict[str, Any]) -> None:
    data["messaging_servers"] = data["messaging_servers"][:1]


def test_a_drain_is_not_disturbed_and_a_second_start_finds_everything(tmp_path: Path) -> None:
    with installation(tmp_path, change=only_mail1) as first:
        send_local(first, "alice@example.org")
        first.netmail("user", "add", "erin", "--generate")
        password = run_json(first, "user", "passwd", "alice", "--generate")["password"]
        started = first.pids()
        first.process.send_signal(signal.SIGTERM)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            time.sleep(0.05)
            first.process.send_signal(number)
        assert first.process.wait(60) == 0, first.text()[-3000:]
        assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    with installation(tmp_path, change=only_mail1, ports=first.ports) as second:
        assert pop3_count(second, "alice", password) == 1
        names = [user["name"] for user in run_json(second, "user", "list")]
        assert names == ["alice", "bob", "erin"]


def test_a_start_that_cannot_listen_ends_and_names_the_address(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(AssertionError, match="netmail run ended") as caught,
            installation(
                tmp_path,
                change=lambda data: data["connection_managers"][0].update(listen=[address]),
                ports={taken.getsockname()[1]: taken.getsockname()[1]},
            ),
        ):
            pass
    assert address in str(caught.value)
