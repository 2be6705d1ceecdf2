"""The six stages, played by clients outside the cluster."""

import itertools
import json
import os
import re

from tests.cluster.support.doors import Door, Doors
from tests.cluster.support.outside import Outside
from tests.cluster.support.release import DOMAIN, USERS, Release
from tests.cluster.support.sink import Sink
from tests.support.waiting import eventually

REMOTE = "eve@example.net"
_NUMBERS = itertools.count()


def pop3_login(host: Outside, door: Door, user: str) -> None:
    """Logs in and out by POP3 over TLS. Raises: poplib.error_proto."""
    client = host.pop3(*door)
    try:
        client.user(user)
        client.pass_(USERS[user])
        client.quit()
    finally:
        client.close()


def imap_login(host: Outside, door: Door, user: str) -> None:
    """Logs in and out by IMAP over TLS. Raises: imaplib.IMAP4.error."""
    with host.imap(*door) as client:
        client.login(user, USERS[user])


def ask_to_relay(host: Outside, door: Door, user: str) -> str:
    """The reply to a remote recipient, without AUTH."""
    with host.smtp(*door) as client:
        code, text = client.mail(f"{user}@{DOMAIN}")
        assert code == 250, text
        code, text = client.rcpt(REMOTE)
        return f"{code} {text.decode()}"


def relay(host: Outside, door: Door, user: str, sink: Sink) -> str:
    """Sends to a remote recipient without AUTH; the message as it arrived there."""
    subject = _subject()
    with host.smtp(*door) as client:
        client.sendmail(f"{user}@{DOMAIN}", [REMOTE], _message(user, REMOTE, subject))
    return sink.message_with(subject)


def submit(host: Outside, door: Door, user: str, sink: Sink) -> str:
    """Sends to a remote recipient with AUTH over STARTTLS; the message as it arrived there."""
    subject = _subject()
    with host.smtp(*door, starttls=True) as client:
        client.login(user, USERS[user])
        client.sendmail(f"{user}@{DOMAIN}", [REMOTE], _message(user, REMOTE, subject))
    return sink.message_with(subject)


def receive(sender: Outside, reader: Outside, doors: Doors, user: str) -> str:
    """A stranger's message to a user, without AUTH; as the user reads it by IMAP."""
    subject, recipient = _subject(), f"{user}@{DOMAIN}"
    with sender.smtp(*doors.smtp) as client:
        client.sendmail("eve@example.net", [recipient], _message("eve", recipient, subject))
    return in_mailbox(reader, doors.imaps, user, subject)


def in_mailbox(host: Outside, door: Door, user: str, subject: str, within: float = 60) -> str:
    """The message with this subject, as soon as it is in the user's INBOX."""

    def look() -> str:
        with host.imap(*door) as client:
            client.login(user, USERS[user])
            client.select("INBOX", readonly=True)
            _, found = client.search(None, "SUBJECT", f'"{subject}"')
            if not found[0]:
                return ""
            _, fetched = client.fetch(found[0].split()[0].decode(), "(BODY.PEEK[])")
            part = fetched[0]
            assert isinstance(part, tuple)
            return bytes(part[1]).decode(errors="replace")

    return eventually(look, within)


def subject_of(message: str) -> str:
    """The subject of one of the messages here."""
    found = re.search(r"(?m)^Subject: (.*?)\r?$", message)
    assert found is not None
    return found[1]


def forget_logins(release: Release) -> None:
    """Revokes every login that is remembered."""
    logins = json.loads(release.netmail("login", "list", "--json"))
    for address in {login["client_address"] for login in logins}:
        release.netmail("login", "revoke", "--address", address)


def play(
    release: Release, sink: Sink, alice: Outside, bob: Outside, stranger: Outside, *,
    doors: Doors | None = None,
) -> None:  # fmt: skip
    """All six stages; the clients' own addresses must have arrived.

    Args:
        doors: where clients connect to; default: the load balancers.
    """
    doors = doors or Doors.of(release)
    forget_logins(release)
    # A Connection Manager that has just started lets agents tell their logins first (settle_time).
    eventually(lambda: not ask_to_relay(alice, doors.smtp, "alice").startswith("451"))
    for host, user in ((alice, "alice"), (bob, "bob"), (stranger, "alice")):
        refused_politely(ask_to_relay(host, doors.smtp, user))
    pop3_login(alice, doors.pop3s, "alice")
    imap_login(bob, doors.imaps, "bob")
    for host, user in ((alice, "alice"), (bob, "bob")):
        traced(relay(host, doors.smtp, user, sink), user, host.address)
    refused_politely(ask_to_relay(stranger, doors.smtp, "alice"))
    traced(submit(stranger, doors.submission, "alice", sink), "alice", stranger.address)
    refused_politely(ask_to_relay(stranger, doors.smtp, "alice"))
    assert f"[{stranger.address}]" in receive(stranger, bob, doors, "bob")
    release.netmail("login", "revoke", "--address", alice.address)
    refused_politely(ask_to_relay(alice, doors.smtp, "alice"))


def refused_politely(reply: str) -> None:
    """A refusal that says what to do."""
    assert reply.startswith("550 5.7.1"), reply
    assert "log in by POP3 or IMAP4 first" in reply, reply


def traced(message: str, user: str, address: str) -> None:
    """The user's name and the client's address are in the header."""
    header = message.replace("\r\n", "\n").partition("\n\n")[0]
    assert re.search(rf"(?m)^X-Auth-OK: {user}$", header), header
    assert f"[{address}]" in header, header


def _subject() -> str:
    return f"stage {next(_NUMBERS)} of {os.getpid()}"


def _message(user: str, recipient: str, subject: str) -> str:
    sender = f"{user}@{DOMAIN}" if user in USERS else f"{user}@example.net"
    return f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\nHello\r\n"
