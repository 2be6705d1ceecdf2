"""The six stages, played by clients outside the cluster."""

import itertools
import os
import re

from tests.cluster.support.outside import Outside
from tests.cluster.support.release import DOMAIN, USERS, Release
from tests.cluster.support.sink import Sink
from tests.support.waiting import eventually

REMOTE = "eve@example.net"
_NUMBERS = itertools.count()


def pop3_login(host: Outside, address: str, user: str, port: int = 995) -> None:
    """Logs in and out by POP3. Raises: poplib.error_proto."""
    client = host.pop3(address, port)
    try:
        client.user(user)
        client.pass_(USERS[user])
        client.quit()
    finally:
        client.close()


def imap_login(host: Outside, address: str, user: str, port: int = 993) -> None:
    """Logs in and out by IMAP. Raises: imaplib.IMAP4.error."""
    with host.imap(address, port) as client:
        client.login(user, USERS[user])


def ask_to_relay(host: Outside, address: str, user: str, port: int = 25) -> str:
    """The reply to a remote recipient, without AUTH."""
    with host.smtp(address, port) as client:
        code, text = client.mail(f"{user}@{DOMAIN}")
        assert code == 250, text
        code, text = client.rcpt(REMOTE)
        return f"{code} {text.decode()}"


def relay(host: Outside, address: str, user: str, sink: Sink, port: int = 25) -> str:
    """Sends to a remote recipient without AUTH; the message as it arrived there."""
    subject = _subject()
    with host.smtp(address, port) as client:
        client.sendmail(f"{user}@{DOMAIN}", [REMOTE], _message(user, REMOTE, subject))
    return sink.message_with(subject)


def submit(host: Outside, address: str, user: str, sink: Sink, port: int = 587) -> str:
    """Sends to a remote recipient with AUTH; the message as it arrived there."""
    subject = _subject()
    with host.smtp(address, port, starttls=True) as client:
        client.login(user, USERS[user])
        client.sendmail(f"{user}@{DOMAIN}", [REMOTE], _message(user, REMOTE, subject))
    return sink.message_with(subject)


def deliver_locally(host: Outside, release: Release, user: str) -> str:
    """A stranger's message to a user, without AUTH; as the user reads it by IMAP."""
    subject, recipient = _subject(), f"{user}@{DOMAIN}"
    with host.smtp(release.address("smtp")) as client:
        client.sendmail("eve@example.net", [recipient], _message("eve", recipient, subject))
    return in_mailbox(host, release.address("pop-imap"), user, subject)


def in_mailbox(host: Outside, address: str, user: str, subject: str, within: float = 60) -> str:
    """The message with this subject, as soon as it is in the user's INBOX."""

    def look() -> str:
        with host.imap(address) as client:
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


def forget_logins(release: Release, *hosts: Outside) -> None:
    """Revokes what hosts vouch for by an earlier test's logins."""
    for host in hosts:
        release.netmail("login", "revoke", "--address", host.address)


def play(
    release: Release, sink: Sink, alice: Outside, bob: Outside, stranger: Outside, *,
    seen_as: str | None = None,
) -> None:  # fmt: skip
    """All six stages; the clients' addresses must have arrived.

    Args:
        seen_as: the address that they arrive with, if not their own.
    """
    smtp, mail = release.address("smtp"), release.address("pop-imap")
    forget_logins(release, alice, bob, stranger)
    for host, user in ((alice, "alice"), (bob, "bob"), (stranger, "alice")):
        refused_politely(ask_to_relay(host, smtp, user))
    pop3_login(alice, mail, "alice")
    imap_login(bob, mail, "bob")
    for host, user in ((alice, "alice"), (bob, "bob")):
        traced(relay(host, smtp, user, sink), user, seen_as or host.address)
    refused_politely(ask_to_relay(stranger, smtp, "alice"))
    traced(submit(stranger, smtp, "alice", sink), "alice", seen_as or stranger.address)
    refused_politely(ask_to_relay(stranger, smtp, "alice"))
    deliver_locally(stranger, release, "bob")
    forget_logins(release, alice)
    refused_politely(ask_to_relay(alice, smtp, "alice"))


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
