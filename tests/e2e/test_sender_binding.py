"""Which senders a login vouches for: POP3 login, SMTP without AUTH, the directory between them."""

import os
import signal
import smtplib
import time

from tests.e2e.test_logins import logged_in, logins
from tests.support.installation import RunningInstallation
from tests.support.waiting import eventually

REMOTE = "friend@example.net"


def send(running: RunningInstallation, source: str, envelope: str, header: str) -> str:
    """The reply that decides: to RCPT, or to the message."""
    with smtplib.SMTP(
        "127.0.0.1", running.port(2525), timeout=20, source_address=(source, 0)
    ) as client:
        client.ehlo()
        client.mail(envelope)
        code, text = client.rcpt(REMOTE)
        if code == 250:
            code, text = client.data(f"{header}\r\nTo: {REMOTE}\r\n\r\nHello\r\n")
        return f"{code} {text.decode()}"


ALICE_ALONE = [
    ("alice@example.org", "From: Alice <alice@example.org>", "250"),
    ("ALICE@EXAMPLE.ORG", "From: ALICE@Example.Org", "250"),
    ("alice+news@example.org", "From: alice+news@example.org", "250"),
    ("", "From: alice@example.org", "250"),
    ("nobody-at-all@example.org", "From: nobody-at-all@example.org", "250"),
    ("bob@example.org", "From: bob@example.org", "550 5.7.1"),
    ("alice@example.org", "From: bob@example.org", "550 5.7.1"),
    ("alice@example.org", "From: alice@example.org, bob@example.org", "550 5.7.1"),
    ("alice@example.org", "From: alice@example.org\r\nSender: bob+x@example.org", "550 5.7.1"),
    ("alice@example.org", "From: alice@example.org\r\nResent-From: bob@example.org", "550 5.7.1"),
    ("alice@example.net", "From: alice@example.net", "550 5.7.1"),
    ("x@sub.example.org", "From: x@sub.example.org", "550 5.7.1"),
    ("carol@branch.example.org", "From: carol@branch.example.org", "550 5.7.1"),
    ("alice@example.org", "Subject: no From", "550 5.6.0"),
    ("alice@example.org", "From: alice@example.org\r\nFrom: bob@example.org", "550 5.6.0"),
]


def test_a_login_vouches_for_its_users_addresses_and_for_nobodys(
    running: RunningInstallation,
) -> None:
    source = "127.88.0.1"
    with logged_in(running, source, "alice", "wonderland"):
        replies = [send(running, source, envelope, header) for envelope, header, _ in ALICE_ALONE]
    assert [
        reply[: len(wanted)] for reply, (_, _, wanted) in zip(replies, ALICE_ALONE, strict=True)
    ] == [wanted for _, _, wanted in ALICE_ALONE], replies
    refusal = replies[5]
    assert "bob@example.org" in refusal
    assert "alice" in refusal


def test_two_users_behind_one_address_vouch_for_each_other(running: RunningInstallation) -> None:
    source = "127.88.0.2"
    both = "From: alice@example.org, bob@example.org"
    with logged_in(running, source, "alice", "wonderland"):
        assert send(running, source, "bob@example.org", both).startswith("550 5.7.1")
        with logged_in(running, source, "bob", "builder"):
            assert send(running, source, "bob@example.org", both).startswith("250")


def test_a_revoked_login_does_not_come_back_with_a_killed_connection_manager(
    running: RunningInstallation,
) -> None:
    source = "127.88.0.3"
    own = ("alice@example.org", "From: alice@example.org")
    with logged_in(running, source, "alice", "wonderland"):
        assert send(running, source, *own).startswith("250")
        running.netmail("login", "revoke", "--address", source)
        (pid,) = running.pids("netmail_connmgr")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: running.pids("netmail_connmgr") not in ([], [pid]))
        eventually(lambda: running.netmail("login", "list", check=False).returncode == 0)
        # Whatever registers again does so within moments.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert logins(running, source) == []
            time.sleep(0.5)
        assert not send(running, source, *own).startswith("250")
