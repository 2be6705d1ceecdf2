"""Export, import, backup and restore of an installation that runs, as an operator does it."""

import imaplib
import json
import smtplib
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.imap_client import ImapClient
from tests.support.installation import RunningInstallation, installation

pytestmark = pytest.mark.timeout(300)

DATE = "25-Nov-2001 12:34:56 +0000"
BODY = b"Subject: kept\r\n\r\nFrom the start\r\n>From the middle\r\nno end"


def only_mail1(data: dict[str, Any]) -> None:
    data["messaging_servers"] = data["messaging_servers"][:1]


def append(running: RunningInstallation, user: str, password: str, mailbox: str) -> None:
    with imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=30) as client:
        client.login(user, password)
        client.create(mailbox)
        status, _ = client.append(mailbox, r"(\Seen \Flagged $Work)", f'"{DATE}"', BODY)
        assert status == "OK"


def seen_by_imap(running: RunningInstallation, user: str, password: str, mailbox: str) -> bytes:
    """Flags, internal date and octets as IMAP gives them."""
    client = ImapClient.connect(running.port(2143))
    try:
        client.login(user, password)
        client.command(f"EXAMINE {mailbox}")
        return b"".join(client.command("FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])"))
    finally:
        client.close()


def test_a_users_mail_goes_to_a_maildir_and_to_another_user(
    running: RunningInstallation, tmp_path: Path
) -> None:
    made = running.netmail("user", "add", "ines", "--context", "users.demo", "--generate", "--json")
    password = json.loads(made.stdout)["password"]
    append(running, "alice", "wonderland", "Kept/Deep")
    for form in ("--maildir", "--mbox"):
        place = str(tmp_path / form)
        running.netmail("export", "alice", form, place, "--mailbox", "Kept/Deep")
        for _ in range(2):
            running.netmail("import", "ines", form, place, "--skip-existing")
    there = seen_by_imap(running, "ines", password, "Kept/Deep")
    assert there == seen_by_imap(running, "alice", "wonderland", "Kept/Deep")
    assert there.count(BODY) == 1
    assert b'"25-Nov-2001 12:34:56 +0000"' in there
    running.netmail("user", "remove", "ines", "--yes")


def test_a_backup_under_load_has_every_message_that_was_taken_before_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    file = tmp_path / "backup.tar"
    taken: list[int] = []
    enough, over = threading.Event(), threading.Event()

    def load(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            number = 0
            while not over.is_set():
                text = f"From: eve@example.net\r\nSubject: number {number}\r\n\r\nhello\r\n"
                client.sendmail("eve@example.net", ["alice@example.org"], text.encode())
                taken.append(number)
                number += 1
                if number == 20:
                    enough.set()

    with installation(state, change=only_mail1) as first:
        append(first, "alice", "wonderland", "Kept")
        kept = seen_by_imap(first, "alice", "wonderland", "Kept")
        first.netmail("user", "device", "add", "alice", "scanner", "--service", "pop3")
        sender = threading.Thread(target=load, args=(first.port(2525),))
        sender.start()
        assert enough.wait(60)
        before = len(taken)
        first.netmail("backup", str(file))
        over.set()
        sender.join()
        refused = first.netmail("restore", str(file), "--replace", check=False)
        assert refused.returncode == 1
        assert "in use by another process" in refused.stderr
    for left in state.glob("nmap-*"):
        left.unlink()
    restored = first.netmail("restore", str(file))
    assert "mail1, as of " in restored.stdout
    with installation(state, change=only_mail1, ports=first.ports) as second:
        inbox = seen_by_imap(second, "alice", "wonderland", "INBOX")
        numbers = {n for n in taken if f"Subject: number {n}\r\n".encode() in inbox}
        assert set(range(before)) <= numbers
        assert seen_by_imap(second, "alice", "wonderland", "Kept") == kept
        devices = second.netmail("user", "device", "list", "alice").stdout
        assert "scanner" in devices
