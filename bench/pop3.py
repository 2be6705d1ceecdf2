"""POP3 sessions, ours beside Dovecot: log in, STAT, RETR, QUIT; maildir, everything warm.

20 sessions side by side, each with a user of its own, ten messages of 4 KiB in each mailbox.
Ours also locks the mailbox and registers each login with the Connection Manager. Dovecot runs as it
comes, a process for each login, and once more with processes that serve many users.
"""

import smtplib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.dovecot import dovecot, version
from bench.harness import Result, compare
from bench.session_client import Step, sessions_per_second
from tests.support.installation import installation

SESSIONS = 1500
SIDE_BY_SIDE = 20
MESSAGES = 10
SIZE = 4096
PASSWORD = "wonderland"  # as short as people choose them


def users() -> list[str]:
    """Names of the users of the benchmark."""
    return [f"user{number}" for number in range(SIDE_BY_SIDE)]


def message(number: int) -> bytes:
    """A message of SIZE octets."""
    head = (
        f"From: Bench <bench@example.com>\r\nTo: user@example.org\r\n"
        f"Subject: message {number}\r\nDate: Wed, 25 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{number}@bench.example.com>\r\n\r\n"
    ).encode()
    line = b"x" * 70 + b"\r\n"
    return (head + line * (SIZE // len(line) + 1))[: SIZE - 2] + b"\r\n"


def _line(reply: bytes) -> bool:
    return reply.endswith(b"\r\n")


def _message(reply: bytes) -> bool:
    return reply.endswith(b"\r\n.\r\n")


def session(user: str) -> list[Step]:
    """One client's session."""
    return [
        Step(b"", _line),
        Step(f"USER {user}\r\n".encode(), _line),
        Step(f"PASS {PASSWORD}\r\n".encode(), _line),
        Step(b"STAT\r\n", _line),
        Step(b"RETR 1\r\n", _message),
        Step(b"QUIT\r\n", _line),
    ]


def configured(data: dict[str, Any]) -> None:
    """The demonstration with the benchmark's users, warnings only."""
    data["log"] = {"level": "warning", "format": "json"}
    server = data["messaging_servers"][0]
    server["contexts"][0]["initial_users"] = [
        {"name": user, "password": PASSWORD} for user in users()
    ]


def fill(smtp_port: int) -> None:
    """Sends each user his messages."""
    with smtplib.SMTP("127.0.0.1", smtp_port, timeout=60) as client:
        for number in range(MESSAGES):
            client.sendmail(
                "bench@example.com",
                [f"{user}@example.org" for user in users()],
                message(number),
            )


def run() -> list[Result]:
    """Sessions per second of both."""
    with (
        tempfile.TemporaryDirectory(prefix="netmail-bench-") as state,
        installation(Path(state), change=configured) as ours,
        dovecot(dict.fromkeys(users(), PASSWORD)) as theirs,
        dovecot(dict.fromkeys(users(), PASSWORD), sessions_per_process=1000) as reusing,
    ):
        fill(ours.port(2525))
        for user in users():
            for peer in (theirs, reusing):
                peer.deliver(user, map(message, range(MESSAGES)))
        slots = [session(user) for user in users()]
        for slot in slots:  # one at a time: each first login verifies a password in earnest
            sessions_per_second(ours.port(2110), [slot], 1, b"-ERR")

        def rate(port: int) -> Callable[[], float]:
            return partial(sessions_per_second, port, slots, SESSIONS, b"-ERR")

        return [
            compare(
                "POP3 login, STAT, RETR, QUIT",
                "sessions/s",
                rate(ours.port(2110)),
                rate(theirs.pop3_port),
                peer=version(),
                target=1.5,
            ),
            compare(
                "the same",
                "sessions/s",
                rate(ours.port(2110)),
                rate(reusing.pop3_port),
                peer=f"{version()}, service_count 1000",
                note="its processes serve one user after another",
            ),
        ]
