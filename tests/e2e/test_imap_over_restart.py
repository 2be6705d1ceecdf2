"""IMAP sessions outlive the NMAP agent: they hear what happened meanwhile, without asking."""

import os
import signal
import time

from tests.support.imap_client import ImapClient, Refused, fetched
from tests.support.installation import RunningInstallation

MESSAGE = b"From: a@example.net\r\nSubject: restart\r\n\r\nbody\r\n"


def until_it_works(client: ImapClient, command: str) -> list[bytes]:
    """The agent is restarted with back-off."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.command(command)
        except Refused as refused:
            if "[UNAVAILABLE]" not in str(refused) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_an_idle_session_hears_of_mail_after_the_nmap_agent_was_killed(
    running: RunningInstallation,
) -> None:
    idle, other = (ImapClient.connect(running.port(2143)) for _ in range(2))
    for client in (idle, other):
        client.login("bob", "builder")
    for client in (idle, other):
        client.command("SELECT Drafts")
    tag = idle.send("IDLE")
    assert idle.response().startswith(b"+")
    (pid,) = running.pids("netmail_nmap", "mail1")
    os.kill(pid, signal.SIGKILL)
    until_it_works(other, "STATUS Drafts (MESSAGES)")
    other.append("Drafts", MESSAGE)
    assert idle.response().endswith(b" EXISTS\r\n")
    idle.connection.sendall(b"DONE\r\n")
    _, tagged = idle.finish(tag)
    assert b"OK" in tagged
    (row,) = fetched(idle.command("FETCH * (UID BODY.PEEK[HEADER.FIELDS (Subject)])")).values()
    assert b"Subject: restart" in row
    idle.command("STORE 1:* +FLAGS.SILENT (\\Deleted)")
    idle.command("EXPUNGE")
    for client in (idle, other):
        client.close()
