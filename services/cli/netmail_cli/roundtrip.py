"""Mail sent, relayed and fetched again through the public listeners of an installation."""

import contextlib
import imaplib
import poplib
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Account", "Differs", "Door", "Doors", "RoundTrip"]

T = TypeVar("T")

_STRANGER = "stranger@example.com"
_HELO = "roundtrip.invalid"
_POLL = 0.2

_BROKEN = (OSError, EOFError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto)


class Differs(Exception):
    """What happened is not what an installation does."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a listener is, and what its certificate must say."""

    host: str
    port: int
    name: str
    tls: ssl.SSLContext

    def connect(self, timeout: float) -> socket.socket:
        """Raises: OSError."""
        return socket.create_connection((self.host, self.port), timeout)


@dataclass(frozen=True, slots=True)
class Doors:
    """The listeners of a Messaging Server."""

    smtp: Door
    submission: Door
    pop3s: Door
    imaps: Door


@dataclass(frozen=True, slots=True)
class Account:
    """A user who has the mailbox to himself."""

    name: str
    password: str
    address: str


class _Smtp(smtplib.SMTP):
    def __init__(self, door: Door, timeout: float) -> None:
        self._door = door
        super().__init__(door.name, local_hostname=_HELO, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002
        return self._door.connect(timeout)


class _Pop3(poplib.POP3_SSL):
    def __init__(self, door: Door, timeout: float) -> None:
        self._door = door
        super().__init__(door.name, context=door.tls, timeout=timeout)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        raw = self._door.connect(timeout or 30)
        return self._door.tls.wrap_socket(raw, server_hostname=self._door.name)


class _Imap(imaplib.IMAP4_SSL):
    def __init__(self, door: Door, timeout: float) -> None:
        self._door = door
        super().__init__(door.name, ssl_context=door.tls, timeout=timeout)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        raw = self._door.connect(timeout or 30)
        return self._door.tls.wrap_socket(raw, server_hostname=self._door.name)


class RoundTrip:
    """The clients; each step raises `Differs`.

    Args:
        doors: where they connect to.
        account: a user without mail.
        remote: a recipient that is not the installation's, whose mail comes into SINK.
        sink: where messages appear as *.eml.
        patience: seconds that mail may be under way.
        say: is told what was done.
    """

    def __init__(
        self,
        doors: Doors,
        account: Account,
        remote: str,
        sink: Path,
        *,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        self._doors = doors
        self._account = account
        self._remote = remote
        self._sink = sink
        self._patience = patience
        self._say = say

    def play(self) -> None:
        """Every step. Raises: Differs."""
        self.mail_comes_in()
        self.a_stranger_may_not_relay()
        self.mail_is_fetched()
        self.a_login_may_let_the_address_relay()
        self.the_user_sends_to_the_world()
        self.the_user_sends_to_himself()

    def mail_comes_in(self) -> None:
        """SMTP without AUTH takes mail for a local user."""
        with _telling("SMTP"), self._smtp() as smtp:
            self._send(smtp, _STRANGER, self._account.address, "from a stranger")
        self._say(f"SMTP: mail for {self._account.address} is taken")

    def a_stranger_may_not_relay(self) -> None:
        """SMTP without AUTH and without a login takes no mail for the world."""
        code, text = self._ask_to_relay()
        if code < 500:
            raise Differs(f"SMTP: a stranger may send to {self._remote}: {code} {text}")
        self._say(f"SMTP: a stranger may not send to the world: {code} {text}")

    def mail_is_fetched(self) -> None:
        """POP3 and IMAP give out what came in."""
        with _telling("POP3"):
            self._until(lambda: self._by_pop3("from a stranger"), "POP3: the message is not there")
        self._say("POP3: the message is there")
        with _telling("IMAP"):
            self._until(lambda: self._by_imap("from a stranger"), "IMAP: the message is not there")
        self._say("IMAP: the message is there")

    def a_login_may_let_the_address_relay(self) -> None:
        """After the POP3 login the address may relay, unless others share it; both are well."""
        code, text = self._ask_to_relay(self._account.address)
        self._say(f"SMTP after POP3, from this address: {code} {text}")

    def the_user_sends_to_the_world(self) -> None:
        """A message submitted with AUTH leaves, with the user's name in its header."""
        with _telling("submission"), self._submission() as smtp:
            self._send(smtp, self._account.address, self._remote, "to the world")
        self._say(f"submission: mail for {self._remote} is taken")
        header = self._until(
            lambda: self._arrived("to the world"), f"no mail has come for {self._remote}"
        )
        named = re.findall(r"(?im)^X-Auth-OK: *(.*?)\r?$", header)
        if len(named) != 1 or self._account.name not in named[0]:
            raise Differs(f"X-Auth-OK does not name {self._account.name}: {named}")
        self._say(f"the message has come, with X-Auth-OK: {named[0]}")

    def the_user_sends_to_himself(self) -> None:
        """A message submitted for a local user is in his mailbox."""
        with _telling("submission"), self._submission() as smtp:
            self._send(smtp, self._account.address, self._account.address, "to himself")
        with _telling("IMAP"):
            self._until(lambda: self._by_imap("to himself"), "IMAP: the message is not there")
        self._say("submission: a local message is there too")

    def _smtp(self) -> smtplib.SMTP:
        smtp = _Smtp(self._doors.smtp, self._patience)
        smtp.ehlo()
        return smtp

    def _submission(self) -> smtplib.SMTP:
        door = self._doors.submission
        smtp = _Smtp(door, self._patience)
        smtp.starttls(context=door.tls)
        smtp.login(self._account.name, self._account.password)
        return smtp

    def _ask_to_relay(self, sender: str = _STRANGER) -> tuple[int, str]:
        with _telling("SMTP"), self._smtp() as smtp:
            smtp.mail(sender)
            code, text = smtp.rcpt(self._remote)
        return code, text.decode("utf-8", "replace")

    def _send(self, smtp: smtplib.SMTP, sender: str, recipient: str, subject: str) -> None:
        smtp.sendmail(
            sender,
            [recipient],
            f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\nround trip\r\n",
        )

    def _by_pop3(self, subject: str) -> bool | None:
        client = _Pop3(self._doors.pop3s, self._patience)
        try:
            client.user(self._account.name)
            client.pass_(self._account.password)
            count, _ = client.stat()
            found = any(
                f"Subject: {subject}".encode() in client.retr(number + 1)[1]
                for number in range(count)
            )
            client.quit()
        finally:
            client.close()
        return found or None

    def _by_imap(self, subject: str) -> bool | None:
        with _Imap(self._doors.imaps, self._patience) as client:
            client.login(self._account.name, self._account.password)
            client.select("INBOX", readonly=True)
            _, numbers = client.search(None, "SUBJECT", f'"{subject}"')
        return bool(numbers[0]) or None

    def _arrived(self, subject: str) -> str | None:
        for path in self._sink.glob("*.eml"):
            header = path.read_bytes().partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
            if f"Subject: {subject}" in header:
                return header
        return None

    def _until(self, look: Callable[[], T | None], otherwise: str) -> T:
        end = time.monotonic() + self._patience
        while (found := look()) is None:
            if time.monotonic() > end:
                raise Differs(otherwise)
            time.sleep(_POLL)
        return found


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Says in whose dialogue something broke. Raises: Differs."""
    try:
        yield
    except _BROKEN as error:
        raise Differs(f"{what}: {error or type(error).__name__}") from error
