"""IMAP, ours beside Dovecot: whole sessions, and single commands on a mailbox of 100,000 messages.

Sessions: log in, SELECT, FETCH of ten headers and a body, LOGOUT; 20 side by side. The large
mailbox holds 1,000 different messages of 4 KiB a hundred times over, as files in the maildir.
"""

import itertools
import resource
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from bench.dovecot import Dovecot, dovecot, version
from bench.harness import Result, compare
from bench.pop3 import PASSWORD, configured, fill, message, users
from bench.session_client import Step, sessions_per_second
from tests.support.installation import RunningInstallation, installation

SESSIONS = 1000
LARGE = 100_000
DISTINCT = 1000
LARGE_USER = "large"
APPENDS = 100
IDLE_CONNECTIONS = 1000
KIB = 1024


def _tagged(tag: bytes) -> Callable[[bytes], bool]:
    return lambda reply: (
        reply.endswith(b"\r\n")
        and (reply.startswith(tag) or reply.rfind(b"\r\n" + tag, len(reply) - 1000) >= 0)
    )


def session(user: str) -> list[Step]:
    """One client's session."""
    return [
        Step(b"", lambda reply: reply.endswith(b"\r\n")),
        Step(f"a LOGIN {user} {PASSWORD}\r\n".encode(), _tagged(b"a ")),
        Step(b"b SELECT INBOX\r\n", _tagged(b"b ")),
        Step(b"c FETCH 1:10 (UID FLAGS BODY.PEEK[HEADER])\r\n", _tagged(b"c ")),
        Step(b"d FETCH 1 BODY.PEEK[]\r\n", _tagged(b"d ")),
        Step(b"e LOGOUT\r\n", _tagged(b"e ")),
    ]


def _configured(data: dict[str, Any]) -> None:
    configured(data)
    server = data["messaging_servers"][0]
    server["contexts"][0]["initial_users"].append({"name": LARGE_USER, "password": PASSWORD})
    for listener in server["pop_imap"]["listeners"]:
        listener["max_connections_per_address"] = 10_000


_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE


class Client:
    """One connection that is driven command by command."""

    def __init__(self, port: int, user: str, *, tls: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = _TLS.wrap_socket(self.socket)
        self.tags = (b"t%d " % number for number in itertools.count(1))
        self.socket.recv(4096)
        self.run(f"LOGIN {user} {PASSWORD}".encode())

    def run(self, command: bytes) -> bytes:
        """Sends a command; gives the last octets of the answer."""
        tag = next(self.tags)
        self.socket.sendall(tag + command + b"\r\n")
        tail = b""
        while True:
            data = self.socket.recv(1 << 20)
            if not data:
                raise RuntimeError("closed")
            tail = (tail + data)[-1000:] if len(data) < 1000 else data[-1000:]
            if not tail.endswith(b"\r\n"):
                continue
            last = tail[tail.rfind(b"\r\n", 0, -2) + 2 :] if tail.count(b"\r\n") > 1 else tail
            if last.startswith(tag):
                if not last.startswith(tag + b"OK"):
                    raise RuntimeError(f"{command[:60]!r}: {last!r}")
                return tail

    def seconds(self, command: bytes) -> float:
        """How long a command takes."""
        begin = time.monotonic()
        self.run(command)
        return time.monotonic() - begin

    def append_rate(self) -> float:
        """Messages of 4 KiB a second, one after the other, each durable."""
        literals = [message(number) for number in range(APPENDS)]
        begin = time.monotonic()
        for literal in literals:
            self.run(b"APPEND Drafts {%d+}\r\n%b" % (len(literal), literal))
        return APPENDS / (time.monotonic() - begin)

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()


def fill_large(port: int) -> None:
    """LARGE messages in the large user's INBOX; the repetitions are copies."""
    with closing(Client(port, LARGE_USER)) as client:
        for number in range(DISTINCT):
            literal = message(number)
            client.run(b"APPEND INBOX {%d+}\r\n%b" % (len(literal), literal))
        client.run(b"SELECT INBOX")
        there = DISTINCT
        while there < LARGE:
            more = min(there, LARGE - there)
            client.run(b"COPY 1:%d INBOX" % more)
            there += more
        client.run(b"STORE 1:* +FLAGS.SILENT (\\Seen)")


def deliver_large(theirs: Dovecot) -> None:
    """The same for Dovecot, before its first login; then warm."""
    messages = [message(number) for number in range(DISTINCT)]
    theirs.deliver(LARGE_USER, (messages[number % DISTINCT] for number in range(LARGE)))


COMMANDS = (
    ("FETCH flags of 100,000", b"FETCH 1:* FLAGS", 0.5),
    ("FETCH headers of 100,000", b"FETCH 1:* BODY.PEEK[HEADER]", 1.0),
    ("SEARCH header in 100,000", b'SEARCH SUBJECT "message 77"', 1.0),
    ("SEARCH body in 100,000", b"SEARCH BODY notthere", None),
)


def large_mailbox(our_port: int, theirs: Dovecot) -> Iterator[Result]:
    """Single commands on the large mailbox, in seconds; and APPEND."""
    with (
        closing(Client(our_port, LARGE_USER)) as mine,
        closing(Client(theirs.imap_port, LARGE_USER)) as peers,
    ):
        peers.run(b"CREATE Drafts")
        for client in (mine, peers):
            client.run(b"SELECT INBOX")
        for name, command, target in COMMANDS:
            yield compare(
                name,
                "s",
                partial(mine.seconds, command),
                partial(peers.seconds, command),
                peer=version(),
                target=target,
                less_is_better=True,
            )
        yield compare(
            "APPEND of 4 KiB, one after the other",
            "messages/s",
            mine.append_rate,
            peers.append_rate,
            peer=version(),
            target=1.0,
        )


def _pss(ours: RunningInstallation) -> float:
    """KiB of all POP/IMAP processes."""
    total = 0
    for pid in ours.pids("netmail_pop_imap"):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def _idle_connection(port: int, user: str, *, tls: bool) -> Client:
    """A session that has logged in, selected INBOX and waits in IDLE."""
    client = Client(port, user, tls=tls)
    client.run(b"SELECT INBOX")
    client.socket.sendall(b"x IDLE\r\n")
    if not client.socket.recv(100).startswith(b"+"):
        raise RuntimeError("no IDLE")
    return client


def memory(ours: RunningInstallation, *, tls: bool) -> Result:
    """KiB of PSS that each idle connection adds: five times 1,000 more of them.

    The first 1,000 are not counted, since what the start left free is used up by them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures: list[float] = []
    with ExitStack() as stack:
        before = _pss(ours)
        for _ in range(6):
            for number in range(IDLE_CONNECTIONS):
                port = ours.port(2993 if tls else 2143)
                client = _idle_connection(port, f"user{number % 20}", tls=tls)
                stack.enter_context(closing(client))
            time.sleep(1)
            after = _pss(ours)
            figures.append((after - before) / IDLE_CONNECTIONS)
            before = after
    counted = figures[1:]
    return Result(
        f"memory per idle connection, {'TLS' if tls else 'plain'}",
        "KiB PSS",
        statistics.median(counted),
        target=None if tls else 100,
        runs_ours=counted,
        note=f"{IDLE_CONNECTIONS} more connections in IDLE",
    )


def run() -> list[Result]:
    """Every figure."""
    names = dict.fromkeys([*users(), LARGE_USER], PASSWORD)
    with (
        tempfile.TemporaryDirectory(prefix="netmail-bench-") as state,
        installation(Path(state), change=_configured) as ours,
        dovecot(names) as theirs,
    ):
        fill(ours.port(2525))
        for user in users():
            theirs.deliver(user, map(message, range(10)))
        idle = [memory(ours, tls=tls) for tls in (False, True)]
        fill_large(ours.port(2143))
        deliver_large(theirs)
        slots = [session(user) for user in users()]
        sessions = compare(
            "IMAP login, SELECT, FETCH, LOGOUT",
            "sessions/s",
            partial(sessions_per_second, ours.port(2143), slots, SESSIONS, b"* BAD"),
            partial(sessions_per_second, theirs.imap_port, slots, SESSIONS, b"* BAD"),
            peer=version(),
            target=1.5,
        )
        return [sessions, *large_mailbox(ours.port(2143), theirs), *idle]
