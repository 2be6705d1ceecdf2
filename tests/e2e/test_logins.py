"""A POP3 login opens the relay for its address: the whole way, through every agent."""

import json
import os
import poplib
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.installation import ROOT, RunningInstallation
from tests.support.waiting import eventually

REMOTE = "friend@example.net"


class Pop(poplib.POP3):
    """A POP3 client on a loopback address of its own."""

    def __init__(self, source: str, port: int) -> None:
        self._source = source
        super().__init__("127.0.0.1", port, timeout=20)

    def _create_socket(self, timeout: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout, (self._source, 0))


@contextmanager
def logged_in(
    running: RunningInstallation, source: str, user: str, password: str, port: int = 2110
) -> Iterator[Pop]:
    client = Pop(source, running.port(port))
    try:
        client.user(user)
        client.pass_(password)
        yield client
    finally:
        client.close()


def relay(running: RunningInstallation, source: str, sender: str, port: int = 2525) -> str:
    """Asks for a recipient elsewhere without AUTH; gives the reply to RCPT or to the message."""
    with smtplib.SMTP(
        "127.0.0.1", running.port(port), timeout=20, source_address=(source, 0)
    ) as client:
        client.ehlo()
        client.mail(sender)
        code, text = client.rcpt(REMOTE)
        if code == 250:
            code, text = client.data(f"From: {sender}\r\nTo: {REMOTE}\r\n\r\nHello\r\n")
        return f"{code} {text.decode()}"


def is_refused_for_good(running: RunningInstallation, source: str) -> bool:
    """Whether an address without a login is; otherwise it must be told to try again later."""
    reply = relay(running, source, "alice@example.org")
    assert reply.startswith(("451 4.", "550 5.7.1")), reply
    return reply.startswith("550")


def logins(running: RunningInstallation, address: str) -> list[dict[str, Any]]:
    """What `netmail login list` shows; waits for a Connection Manager that is just restarting."""
    eventually(lambda: running.netmail("login", "list", check=False).returncode != 69)
    done = running.netmail("login", "list", "--address", address, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def is_closed(client: Pop, within: float = 15.0) -> bool:
    client.sock.settimeout(within)
    try:
        return client.sock.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_login_opens_the_relay_for_its_address_and_for_no_other(
    running: RunningInstallation,
) -> None:
    assert relay(running, "127.0.0.31", "alice@example.org").startswith("550 5.7.1")
    with logged_in(running, "127.0.0.31", "alice", "wonderland") as client:
        client.quit()
    assert relay(running, "127.0.0.31", "alice@example.org").startswith("250")
    assert relay(running, "127.0.0.32", "alice@example.org").startswith("550 5.7.1")


def test_the_login_is_registered_before_the_client_hears_ok(running: RunningInstallation) -> None:
    for number in range(20):
        source = f"127.0.1.{number + 1}"
        with logged_in(running, source, "bob", "builder"):
            assert relay(running, source, "bob@example.org").startswith("250"), source


def test_ipv6_is_like_ipv4(running: RunningInstallation) -> None:
    def reply() -> str:
        with smtplib.SMTP("::1", running.port(2525), timeout=20) as client:
            client.ehlo()
            client.mail("bob@example.org")
            code, text = client.rcpt(REMOTE)
            return f"{code} {text.decode()}"

    assert reply().startswith("550 5.7.1")
    pop = poplib.POP3("::1", running.port(2110), timeout=20)
    pop.user("bob")
    pop.pass_("builder")
    pop.quit()
    assert reply().startswith("250")


def test_a_failed_login_opens_nothing(running: RunningInstallation) -> None:
    client = Pop("127.0.0.33", running.port(2110))
    client.user("alice")
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        client.pass_("wrong")
    client.close()
    assert relay(running, "127.0.0.33", "alice@example.org").startswith("550 5.7.1")


def test_a_user_of_the_other_messaging_server_logs_in_and_sends_here(
    running: RunningInstallation,
) -> None:
    with logged_in(running, "127.0.0.34", "carol", "branch-office") as client:
        assert client.stat()[0] >= 0
        assert relay(running, "127.0.0.34", "carol@branch.example.org").startswith("250")


def test_a_standalone_messaging_server_knows_only_its_own_users(
    running: RunningInstallation,
) -> None:
    with (
        pytest.raises(poplib.error_proto, match=r"\[AUTH\]"),
        logged_in(running, "127.0.0.35", "alice", "wonderland", 3110),
    ):
        pass
    with logged_in(running, "127.0.0.35", "carol", "branch-office", 3110) as client:
        client.quit()


def test_after_a_crash_of_the_connection_manager_logins_are_there_again(
    running: RunningInstallation,
) -> None:
    with logged_in(running, "127.0.0.36", "alice", "wonderland") as client:
        client.quit()
    with logged_in(running, "127.0.0.37", "bob", "builder"):
        (pid,) = running.pids("netmail_connmgr")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: running.pids("netmail_connmgr") not in ([], [pid]))
        for source, sender in (
            ("127.0.0.36", "alice@example.org"),
            ("127.0.0.37", "bob@example.org"),
        ):
            eventually(
                lambda source=source, sender=sender: (  # type: ignore[misc]
                    relay(running, source, sender).startswith("250")
                )
            )
    # Until the agents have told it of all logins (settle_time) nobody is told that there is none.
    eventually(lambda: is_refused_for_good(running, "127.0.0.32"), pause=0.3)


def test_a_login_while_the_connection_manager_is_away_succeeds_and_is_registered_later(
    running: RunningInstallation,
) -> None:
    (pid,) = running.pids("netmail_connmgr")
    os.kill(pid, signal.SIGSTOP)
    try:
        with logged_in(running, "127.0.0.38", "bob", "builder") as client:
            client.quit()
        assert relay(running, "127.0.0.38", "bob@example.org").startswith("451 4.4.3")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: relay(running, "127.0.0.38", "bob@example.org").startswith("250"))


def test_a_revocation_ends_the_session_and_closes_the_relay(running: RunningInstallation) -> None:
    with logged_in(running, "127.0.0.39", "alice", "wonderland") as client:
        assert len(logins(running, "127.0.0.39")) == 1
        running.netmail("login", "revoke", "--address", "127.0.0.39")
        assert is_closed(client)
    assert logins(running, "127.0.0.39") == []
    assert relay(running, "127.0.0.39", "alice@example.org").startswith("550 5.7.1")


def test_a_new_password_ends_sessions_and_logins_of_the_old_one(
    running: RunningInstallation,
) -> None:
    add = ("user", "add", "petra", "--context", "users.demo")
    _with_password(running, *add, password="old-password")
    with logged_in(running, "127.0.0.40", "petra", "old-password") as client:
        _with_password(running, "user", "passwd", "petra", password="new-password")
        assert is_closed(client)
    assert relay(running, "127.0.0.40", "petra@example.org").startswith("550 5.7.1")
    with logged_in(running, "127.0.0.40", "petra", "new-password") as client:
        client.quit()
    assert relay(running, "127.0.0.40", "petra@example.org").startswith("250")


def test_a_crash_of_the_nmap_agent_ends_sessions_and_nothing_is_removed(
    running: RunningInstallation,
) -> None:
    with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=20) as client:
        client.sendmail(
            "x@example.com", ["bob@example.org"], "From: x@example.com\r\nSubject: y\r\n\r\nz\r\n"
        )
    with logged_in(running, "127.0.0.41", "bob", "builder") as pop:
        messages, _ = pop.stat()
        pop.dele(1)
        (pid,) = running.pids("netmail_nmap", "mail1")
        os.kill(pid, signal.SIGKILL)
        assert is_closed(pop)
    eventually(lambda: _can_log_in(running), within=60)
    with logged_in(running, "127.0.0.41", "bob", "builder") as pop:
        assert pop.stat()[0] == messages
        pop.dele(1)
        pop.quit()


def _can_log_in(running: RunningInstallation) -> bool:
    """False while the agent behind is away."""
    try:
        with logged_in(running, "127.0.0.41", "bob", "builder") as pop:
            pop.quit()
    except poplib.error_proto as error:
        if "[SYS/TEMP]" not in str(error):
            raise
        return False
    return True


def _with_password(running: RunningInstallation, *argv: str, password: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "netmail_cli", *argv, "--password-stdin",
         "--config", str(running.config_path), "--state", str(running.state)],
        input=password + "\n", check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
