"""Steady load by clients outside, which retry as real ones do, and the count afterwards.

Every message has an id of its own. What got a 250 is looked for afterwards, per recipient: in the
mailboxes, at the sink, in the queue.
"""

import imaplib
import itertools
import json
import poplib
import re
import smtplib
import threading
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.cluster.support.cluster import CommandFailed
from tests.cluster.support.outside import Outside
from tests.cluster.support.release import DOMAIN, USERS, Release
from tests.cluster.support.sink import MARK, Sink

REMOTE = ("eve@example.net", "mallory@example.net")
_LOCAL = {f"{name}@{DOMAIN}": (name, password) for name, password in USERS.items()}


@dataclass(slots=True)
class Ledger:
    """What happened to one kind of client."""

    kind: str
    acknowledged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By message id, the recipients that a 250 covers."""
    repeated: set[str] = field(default_factory=set)
    """Message ids that were sent again after no answer to all of it, or one that is no yes: nobody
    can know then whether it was taken."""
    successes: list[float] = field(default_factory=list)
    """Monotonic time of each."""
    trouble: list[tuple[float, str]] = field(default_factory=list)
    """Time and text of each attempt that must be repeated."""
    failed: list[str] = field(default_factory=list)
    """What a client gave up, since the answer was final."""
    wrong: list[str] = field(default_factory=list)
    """What should have been refused and was not."""

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds without a success in a time that is given by its ends."""
        inside = sorted(t for t in self.successes if since <= t <= until)
        return max(b - a for a, b in itertools.pairwise([since, *inside, until]))

    def slowest_trouble(self, since: float, until: float) -> list[str]:
        """What clients saw in that time, each text once."""
        return sorted({text for at, text in self.trouble if since <= at <= until})


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found after the load."""

    acknowledged: int
    missing: list[tuple[str, str]]
    doubled: int
    """Messages twice in a mailbox that no client sent twice."""
    doubled_repeats: int
    """Messages twice in a mailbox that a client sent twice."""
    sink_duplicates: int
    queued: int


class _Client(threading.Thread, ABC):
    """Does one thing again and again, PAUSE seconds between two."""

    def __init__(self, ledger: Ledger, pause: float) -> None:
        super().__init__(daemon=True)
        self.ledger = ledger
        self._pause = pause
        self._asked = threading.Event()

    def stop(self) -> None:
        """Asks it to end after what it is at."""
        self._asked.set()

    def run(self) -> None:
        while not self._asked.is_set():
            try:
                self.once()
            except smtplib.SMTPResponseException as error:
                self._trouble(f"{error.smtp_code} {error.smtp_error!r}")
                if error.smtp_code >= 500:
                    self.ledger.failed.append(f"{error.smtp_code} {error.smtp_error!r}")
            except (OSError, EOFError, smtplib.SMTPException) as error:
                self._trouble(f"{type(error).__name__}: {error}")
            except (imaplib.IMAP4.error, poplib.error_proto) as error:
                self._trouble(f"{type(error).__name__}: {error}")
            except Exception:
                self.ledger.failed.append(traceback.format_exc())  # else it would be nobody's
                raise
            else:
                self.ledger.successes.append(time.monotonic())
                self._asked.wait(self._pause)

    @abstractmethod
    def once(self) -> None:
        """One round; raises what the client's library raises."""

    def _trouble(self, text: str) -> None:
        self.ledger.trouble.append((time.monotonic(), text))
        self._asked.wait(0.2)


class _Sender(_Client):
    """Keeps each message until it is taken; a broken connection means to send it again."""

    def __init__(self, ledger: Ledger, pause: float, sender: str, size: int) -> None:
        super().__init__(ledger, pause)
        self._sender = sender
        self._body = "\r\n".join(["x" * 70] * (size // 72))
        self._recipients = itertools.cycle(
            [(one,) for one in (*_LOCAL, *REMOTE)] + [("bob@example.org", REMOTE[0])]
        )
        self._waiting: tuple[str, tuple[str, ...]] | None = None

    @abstractmethod
    def client(self) -> smtplib.SMTP:
        """A connection that may send."""

    def once(self) -> None:
        if self._waiting is None:
            self._waiting = (uuid.uuid4().hex, next(self._recipients))
        mark, recipients = self._waiting
        message = (
            f"From: {self._sender}\r\nTo: {', '.join(recipients)}\r\nX-Load-Id: {mark}\r\n"
            f"Subject: load\r\n\r\n{self._body}\r\n"
        )
        client = self.client()
        with _closing(client):
            _ok(client.mail(self._sender))
            for recipient in recipients:
                _ok(client.rcpt(recipient))
            try:
                code, text = client.data(message)
            except (OSError, smtplib.SMTPServerDisconnected):
                self.ledger.repeated.add(mark)
                raise
            if code >= 400:
                self.ledger.repeated.add(mark)
            _ok((code, text))
        self.ledger.acknowledged[mark] = recipients
        self._waiting = None


class Submitter(_Sender):
    """Sends with SMTP AUTH on the submission port."""

    def __init__(
        self, ledger: Ledger, host: Outside, address: str, pause: float, size: int
    ) -> None:
        super().__init__(ledger, pause, f"alice@{DOMAIN}", size)
        self._host = host
        self._address = address

    def client(self) -> smtplib.SMTP:
        """A connection of its own for each message."""
        client = self._host.smtp(self._address, 587, starttls=True)
        try:
            client.login("alice", USERS["alice"])
        except BaseException:
            client.close()
            raise
        return client


class LoginThenSender(_Sender):
    """Logs in by POP3, then sends from the same address without AUTH."""

    def __init__(
        self, ledger: Ledger, host: Outside, smtp: str, mail: str, pause: float, size: int
    ) -> None:
        super().__init__(ledger, pause, f"bob@{DOMAIN}", size)
        self._host = host
        self._smtp = smtp
        self._mail = mail

    def client(self) -> smtplib.SMTP:
        """Logs in and out first."""
        pop3 = self._host.pop3(self._mail)
        try:
            pop3.user("bob")
            pop3.pass_(USERS["bob"])
            pop3.quit()
        finally:
            pop3.close()
        return self._host.smtp(self._smtp, 25)


class Reader(_Client):
    """Looks into a mailbox by IMAP."""

    def __init__(self, ledger: Ledger, host: Outside, address: str, pause: float) -> None:
        super().__init__(ledger, pause)
        self._host = host
        self._address = address

    def once(self) -> None:
        client = self._host.imap(self._address)
        try:
            client.login("alice", USERS["alice"])
            status, _ = client.select("INBOX", readonly=True)
            if status != "OK":
                raise imaplib.IMAP4.abort(f"SELECT: {status}")
            client.fetch("1:*", "(FLAGS)")
            client.logout()
        finally:
            with suppress(OSError):
                client.shutdown()


class Stranger(_Client):
    """Never logs in and asks for relaying: whoever lets him has opened the relay."""

    def __init__(self, ledger: Ledger, host: Outside, address: str, pause: float) -> None:
        super().__init__(ledger, pause)
        self._host = host
        self._address = address

    def once(self) -> None:
        client = self._host.smtp(self._address, 25)
        with _closing(client):
            _ok(client.mail(f"alice@{DOMAIN}"))
            code, text = client.rcpt(REMOTE[0])
            if code < 400:
                self.ledger.wrong.append(f"{code} {text!r}")
            elif code < 500:
                raise smtplib.SMTPResponseException(code, text)


def _ok(reply: tuple[int, bytes]) -> None:
    code, text = reply
    if code >= 400:
        raise smtplib.SMTPResponseException(code, text)


class _closing:  # noqa: N801 - like contextlib's
    def __init__(self, client: smtplib.SMTP) -> None:
        self._client = client

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        with suppress(OSError, smtplib.SMTPException):
            self._client.quit()
        self._client.close()


class SteadyLoad:
    """Clients of every kind, from `with` to its end.

    Args:
        hosts: four client hosts outside: submission, POP3 then SMTP, IMAP, and the stranger.
        pause: seconds between two rounds of a client.
        each: clients of each kind.
        size: octets of a message.
    """

    def __init__(
        self, release: Release, sink: Sink, hosts: Sequence[Outside], *, pause: float = 0.3,
        each: int = 1, size: int = 2000,
    ) -> None:  # fmt: skip
        self.release = release
        self.sink = sink
        self._reader = hosts[2]
        self.submission = Ledger("submission")
        self.login = Ledger("POP3, then SMTP")
        self.reading = Ledger("IMAP")
        self.strangers = Ledger("strangers")
        smtp, mail = release.address("smtp"), release.address("pop-imap")
        self._clients: list[_Client] = []
        for _ in range(each):
            self._clients += [
                Submitter(self.submission, hosts[0], smtp, pause, size),
                LoginThenSender(self.login, hosts[1], smtp, mail, pause, size),
                Reader(self.reading, hosts[2], mail, pause * 2),
            ]
        self._clients.append(Stranger(self.strangers, hosts[3], smtp, pause * 3))
        self.began = self.ended = 0.0

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """Of each kind of client."""
        return (self.submission, self.login, self.reading, self.strangers)

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops; a message under way is still sent."""
        for client in self._clients:
            client.stop()
        for client in self._clients:
            client.join(60)
        self.ended = time.monotonic()

    def wait_for(self, rounds: int, within: float = 120) -> None:
        """Waits until each kind of client has had so many further successes."""
        goals = {ledger.kind: len(ledger.successes) + rounds for ledger in self.ledgers}
        deadline = time.monotonic() + within
        while any(len(ledger.successes) < goals[ledger.kind] for ledger in self.ledgers):
            assert time.monotonic() < deadline, self.troubles()
            time.sleep(0.1)

    def gaps(self, since: float, until: float | None = None) -> dict[str, float]:
        """Seconds without service since a moment, by kind of client."""
        end = until or time.monotonic()
        return {ledger.kind: round(ledger.longest_gap(since, end), 1) for ledger in self.ledgers}

    def troubles(self, since: float = 0.0) -> dict[str, list[str]]:
        """What clients saw since a moment, by kind of client."""
        now = time.monotonic()
        return {ledger.kind: ledger.slowest_trouble(since, now) for ledger in self.ledgers}

    def look(self, within: float = 120) -> Finding:
        """Lets the queue drain, at most so long, and looks for every acknowledged recipient."""
        _drain(self.release, within)
        queued = queue_marks(self.release)
        mail = self.release.address("pop-imap")
        boxes = {
            recipient: mailbox_marks(self._reader, mail, *login)
            for recipient, login in _LOCAL.items()
        }
        arrived = self.sink.marks()
        covered = {**self.submission.acknowledged, **self.login.acknowledged}
        repeated = self.submission.repeated | self.login.repeated
        twice = [
            mark
            for box in boxes.values()
            for mark, count in box.items()
            if count > 1 and mark in covered  # others' are of an earlier load
        ]
        return Finding(
            acknowledged=sum(len(recipients) for recipients in covered.values()),
            missing=[
                (mark, recipient)
                for mark, recipients in covered.items()
                for recipient in recipients
                if not (boxes[recipient][mark] if recipient in boxes else arrived[mark, recipient])
                and (mark, recipient) not in queued
            ],
            doubled=sum(mark not in repeated for mark in twice),
            doubled_repeats=sum(mark in repeated for mark in twice),
            sink_duplicates=sum(count - 1 for count in arrived.values()),
            queued=len(queued),
        )

    def check(self, within: float = 120) -> Finding:
        """Looks, and insists: nothing lost or twice, no wrong relay, nothing refused for good."""
        finding = self.look(within)
        assert finding.acknowledged > 0
        assert finding.missing == []
        assert finding.doubled == 0
        assert self.strangers.wrong == []
        refused = {ledger.kind: ledger.failed for ledger in self.ledgers if ledger.failed}
        assert refused == {}, f"final answers: {refused}"
        return finding


def mailbox_marks(host: Outside, address: str, user: str, password: str) -> Counter[str]:
    """How often each X-Load-Id is in a user's INBOX."""
    client = host.imap(address, timeout=120)
    try:
        client.login(user, password)
        _, data = client.select("INBOX", readonly=True)
        if data == [b"0"]:
            return Counter()
        _, fetched = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (X-Load-Id)])")
        client.logout()
    finally:
        with suppress(OSError):
            client.shutdown()
    return Counter(_found_marks(fetched))


def _found_marks(fetched: Iterable[object]) -> Iterable[str]:
    for part in fetched:
        if isinstance(part, tuple) and (match := MARK.search(part[1])):
            yield match[1].decode()


def queue_marks(release: Release) -> set[tuple[str, str]]:
    """The (X-Load-Id, recipient) pairs that are still queued."""
    pairs: set[tuple[str, str]] = set()
    for message in json.loads(release.netmail("queue", "list", "--json")):
        try:
            shown = json.loads(release.netmail("queue", "show", message["message"], "--json"))
        except CommandFailed:
            continue  # delivered meanwhile
        match = re.search(r"(?i)X-Load-Id: ([0-9a-f]{32})", shown["header"])
        if match is not None:
            pairs.update((match[1], r["address"]) for r in message["recipients"])
    return pairs


def _drain(release: Release, within: float) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(CommandFailed):
            if json.loads(release.netmail("queue", "list", "--json")) == []:
                return
            release.netmail("queue", "retry", "--all")
        time.sleep(0.5)
