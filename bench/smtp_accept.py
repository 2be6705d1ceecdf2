"""Durable SMTP accept, ours beside Postfix: Postfix's own load generator, 4 KiB, 20 sessions.

Ours delivers into a mailbox (SQLite, synchronous FULL), Postfix into its queue (fsync), from
which it discards. Both answer 250 after the sync.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness import Result, compare
from bench.postfix import postfix, self_signed, version
from tests.support.installation import installation

MESSAGES = 3000
SESSIONS = 20
SIZE = 4096


def messages_per_second(port: int, *, kept: bool) -> float:
    """Sends MESSAGES by smtp-source and gives the rate."""
    start = time.monotonic()
    subprocess.run(
        ["/usr/sbin/smtp-source", "-s", str(SESSIONS), "-l", str(SIZE), "-m", str(MESSAGES),
         "-f", "bench@example.com", "-t", "alice@example.org", *(["-d"] if kept else []),
         f"127.0.0.1:{port}"],
        check=True, timeout=300,
    )  # fmt: skip
    return MESSAGES / (time.monotonic() - start)


def messages_per_second_by_tls(port: int) -> float:
    """The same over kept TLS connections, by our own load generator."""
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bench.smtp_load", str(port), str(MESSAGES), str(SESSIONS),
         str(SIZE)],
        check=True, timeout=300,
    )  # fmt: skip
    return MESSAGES / (time.monotonic() - start)


def quiet(data: dict[str, Any]) -> None:
    """One Messaging Server, warnings only: what a load test of production would run."""
    data["log"] = {"level": "warning", "format": "json"}


def run() -> list[Result]:
    """Both ways of using connections, and TLS."""
    with (
        tempfile.TemporaryDirectory(prefix="netmail-bench-") as state,
        installation(Path(state), change=quiet) as ours,
    ):
        certificate, key = (Path(state) / f"bench.{ending}" for ending in ("pem", "key"))
        self_signed(certificate, key)
        with postfix("accept", TLS="may", CERT=str(certificate), KEY=str(key)) as theirs:
            rows = [
                compare(
                    f"SMTP accept, {label}",
                    "messages/s",
                    partial(messages_per_second, ours.port(2525), kept=kept),
                    partial(messages_per_second, theirs.port, kept=kept),
                    peer=version(),
                    target=target,
                )
                for label, kept, target in (
                    ("a connection each", False, 1.5),
                    ("kept connections", True, 2.0),
                )
            ]
            rows.append(
                compare(
                    "SMTP accept, kept TLS connections",
                    "messages/s",
                    partial(messages_per_second_by_tls, ours.port(2525)),
                    partial(messages_per_second_by_tls, theirs.port),
                    peer=version(),
                    note="the load generator takes a good part of the machine",
                )
            )
        return rows
