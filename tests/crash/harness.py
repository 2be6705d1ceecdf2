"""Load, kills, and the count afterwards: is everything that got a 250 somewhere?"""

import contextlib
import imaplib
import json
import os
import random
import re
import signal
import smtplib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.installation import RunningInstallation

_MARK = re.compile(rb"^X-Crash-Id: ([0-9a-f]{32})\r?$", re.MULTILINE)

LOCAL = {
    "alice@example.org": ("alice", "wonderland"),
    "bob@example.org": ("bob", "builder"),
    "carol@branch.example.org": ("carol", "branch-office"),
}
REMOTE = ("eve@example.net", "mallory@example.net")
AGENTS = {
    "nmap": ("netmail_nmap",),
    "smtp serve": ("netmail_smtp", "serve"),
    "smtp deliver": ("netmail_smtp", "deliver"),
    "connmgr": ("netmail_connmgr",),
}


@dataclass(slots=True)
class Ledger:
    """What was sent: by id, the recipients that a 250 covers, and what became unknown."""

    acknowledged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, mark: str, recipients: tuple[str, ...]) -> None:
        """Notes a 250 after the final dot."""
        with self.lock:
            self.acknowledged[mark] = recipients

    def lose_sight(self, mark: str) -> None:
        """Notes a connection that broke before its answer."""
        with self.lock:
            self.unknown.add(mark)


class Sender(threading.Thread):
    """Sends small messages as fast as they are taken, with SMTP AUTH, until stopped."""

    def __init__(self, port: int, ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._ledger = ledger
        self._random = random.Random(seed)
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Asks it to end after the message under way."""
        self._stop_asked.set()

    def run(self) -> None:
        """Keeps one connection until it breaks, then the next."""
        while not self._stop_asked.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, timeout=20) as client:
                    client.login("alice", "wonderland")
                    while not self._stop_asked.is_set():
                        self._send(client)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)

    def _send(self, client: smtplib.SMTP) -> None:
        mark = uuid.UUID(int=self._random.getrandbits(128)).hex
        recipients = tuple(self._random.sample([*LOCAL, *REMOTE], k=self._random.randint(1, 3)))
        body = "x" * self._random.choice([100, 4_000, 90_000, 1_500_000])
        lines = "\r\n".join(body[at : at + 72] for at in range(0, len(body), 72))
        message = (
            f"From: alice@example.org\r\nTo: {', '.join(recipients)}\r\n"
            f"X-Crash-Id: {mark}\r\nSubject: crash test\r\n\r\n{lines}\r\n"
        )
        try:
            refused = client.sendmail("alice@example.org", recipients, message)
        except smtplib.SMTPResponseException:
            raise  # answered: not accepted
        except smtplib.SMTPRecipientsRefused:
            client.rset()
            return
        except (OSError, smtplib.SMTPException):
            self._ledger.lose_sight(mark)
            raise
        self._ledger.acknowledge(mark, tuple(r for r in recipients if r not in refused))


@dataclass(frozen=True, slots=True)
class Count:
    """What was found afterwards."""

    missing: list[tuple[str, str]]
    doubled: list[tuple[str, str]]
    sink_duplicates: int
    queued: int


def kill_one(running: RunningInstallation, agent: str, rng: random.Random) -> bool:
    """Sends SIGKILL to one process of an agent; False when none is up at the moment."""
    pids = running.pids(*AGENTS[agent])
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGKILL)
    return True


def wait_until_serving(running: RunningInstallation, within: float = 60.0) -> None:
    """Waits until a message can be sent and each mailbox opened."""
    deadline = time.monotonic() + within
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=10) as client:
                client.login("alice", "wonderland")
            for user, password in LOCAL.values():
                with imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=10) as imap:
                    imap.login(user, password)
                    imap.select("INBOX", readonly=True)
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.error):
            assert time.monotonic() < deadline, running.text()[-4000:]
            time.sleep(0.2)
        else:
            return


def mailbox_marks(running: RunningInstallation, user: str, password: str) -> Counter[str]:
    """How often each message is in a user's INBOX."""
    with imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=60) as imap:
        imap.login(user, password)
        _, data = imap.select("INBOX", readonly=True)
        if data == [b"0"]:
            return Counter()
        _, fetched = imap.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (X-Crash-Id)])")
    found: Counter[str] = Counter()
    for part in fetched:
        if isinstance(part, tuple) and (match := _MARK.search(part[1])):
            found[match[1].decode()] += 1
    return found


def sink_marks(folder: Path) -> Counter[tuple[str, str]]:
    """How often each (message, recipient) reached the sink."""
    found: Counter[tuple[str, str]] = Counter()
    for path in folder.glob("*.eml"):
        data = path.read_bytes()
        match = _MARK.search(data)
        if match is None:
            continue
        header = data.partition(b"\r\n\r\n")[0].decode(errors="replace")
        for address in set(re.findall(r"(?m)^Delivered-To: (.*?)\r?$", header)):
            found[match[1].decode(), address] += 1
    return found


def queue_marks(running: RunningInstallation) -> set[tuple[str, str]]:
    """The (message, recipient) pairs still queued, on both NMAP agents."""
    listed = running.netmail("queue", "list", "--json")
    pairs: set[tuple[str, str]] = set()
    for message in json.loads(listed.stdout):
        shown = running.netmail("queue", "show", message["message"], "--json", check=False)
        if shown.returncode != 0:
            continue  # delivered meanwhile
        match = re.search(r"X-Crash-Id: ([0-9a-f]{32})", json.loads(shown.stdout)["header"])
        if match is not None:
            pairs.update((match[1], r["address"]) for r in message["recipients"])
    return pairs


def wait_for_queue(running: RunningInstallation, within: float) -> None:
    """Lets the queue drain, at most so long; what is left counts as kept."""
    deadline = time.monotonic() + within
    running.netmail("queue", "retry", "--all", check=False)
    while time.monotonic() < deadline:
        if json.loads(running.netmail("queue", "list", "--json").stdout) == []:
            return
        time.sleep(0.5)
        running.netmail("queue", "retry", "--all", check=False)


def take_count(running: RunningInstallation, ledger: Ledger, sink: Path) -> Count:
    """Looks for every acknowledged (message, recipient) in mailbox, sink and queue."""
    # The queue first: what leaves it while we count is then found where it went.
    queued = queue_marks(running)
    boxes = {address: mailbox_marks(running, *login) for address, login in LOCAL.items()}
    arrived = sink_marks(sink)
    missing = [
        (mark, recipient)
        for mark, recipients in ledger.acknowledged.items()
        for recipient in recipients
        if not (boxes[recipient][mark] if recipient in boxes else arrived[mark, recipient])
        and (mark, recipient) not in queued
    ]
    doubled = [
        (mark, address) for address, box in boxes.items() for mark, n in box.items() if n > 1
    ]
    duplicates = sum(n - 1 for n in arrived.values() if n > 1)
    return Count(missing, doubled, duplicates, len(queued))


def stop_all(senders: Sequence[Sender]) -> None:
    """Stops the senders and waits for them."""
    for sender in senders:
        sender.stop()
    for sender in senders:
        sender.join(30)
