"""Submit on SQLite and on PostgreSQL, in one run, both waiting for the disk.

Each agent is a process of its own, without gRPC: the store alone, 20 messages of 4 KiB a call, 3
calls at once. PostgreSQL is Debian's with its settings, on loopback; two agents share a database.
"""

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.schema import users
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.domain.delivery import Envelope, Expansion, Recipient, Submission, SubmitOutcome

from bench.harness import Result, compare
from tests.support.postgresql import Server, postgresql

_USERS = 100
_CALLS = 3
_A_CALL = 20
_SECONDS = 4.0
_RUNS = 3
_TIMEOUT = 120.0
_MESSAGE = b"From: a@example.net\r\nSubject: figures\r\n\r\n" + b"0123456789abcde\n" * 256


def run() -> list[Result]:
    """Measures."""
    with _servers() as (server, folder):
        return [
            compare(
                f"Submit {what}, {agents} agent{'s' if agents > 1 else ''} on PostgreSQL",
                "messages/s",
                _measuring(kind, agents, server.create),
                _measuring(kind, 1, lambda: f"sqlite:///{folder}/{os.urandom(6).hex()}.db"),
                peer="SQLite",
                runs=_RUNS,
            )
            for kind, what in (("mailbox", "into mailboxes"), ("queue", "into the queue"))
            for agents in (1, 2)
        ]


@contextlib.contextmanager
def _servers() -> Iterator[tuple[Server, Path]]:
    with postgresql(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        yield server, Path(folder)


def _measuring(kind: str, agents: int, make: Callable[[], str]) -> Callable[[], float]:
    def measure() -> float:
        url = make()
        subprocess.run([sys.executable, "-m", "bench.store", url, "prepare"], check=True)
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.store", url, kind, str(number)],
                stdout=subprocess.PIPE,
            )
            for number in range(agents)
        ]
        rates = [float(process.communicate(timeout=_TIMEOUT)[0]) for process in processes]
        return sum(rates)

    return measure


# -- an agent ----------------------------------------------------------------------------------


async def _agent(url: str, kind: str, number: str) -> None:
    opened = open_postgresql(Place(url)) if url.startswith("postgresql") else open_store(url)
    async with opened as store:
        if kind == "prepare":
            await store.core.writer.run(_make_users)
            await store.queue.submit(
                [_submission("mailbox", f"first-{n}", n) for n in range(1, 99)]
            )
            return
        await _submit(store, kind, f"warm-{number}", 1.0)
        rate = await _submit(store, kind, f"run-{number}", _SECONDS)
        sys.stdout.write(f"{rate}\n")


async def _submit(store: Store, kind: str, name: str, seconds: float) -> float:
    """Messages a second."""
    numbers = itertools.count()
    start = time.monotonic()
    taken = 0

    async def caller() -> None:
        nonlocal taken
        while time.monotonic() - start < seconds:
            batch = [
                _submission(kind, f"{name}-{next(numbers):010d}", random.randint(1, _USERS))
                for _ in range(_A_CALL)
            ]
            results = await store.queue.submit(batch)
            if any(result.outcome is not SubmitOutcome.ACCEPTED for result in results):
                raise RuntimeError("a submission was not taken")
            taken += len(results)

    await asyncio.gather(*(caller() for _ in range(_CALLS)))
    return taken / (time.monotonic() - start)


def _submission(kind: str, message_id: str, user: int) -> Submission:
    address = f"someone@d{user}.example"
    envelope = Envelope(message_id, "a@example.net", (Recipient(address),))
    to = Expansion((user,)) if kind == "mailbox" else Expansion(remote=(address,))
    return Submission(envelope, _MESSAGE, (to,))


def _make_users(transaction: Transaction) -> None:
    transaction.connection.execute(
        sa.insert(users),
        [
            {"context": "users", "name": f"u{n}", "name_key": f"u{n}", "created_at": 0}
            for n in range(_USERS)
        ],
    )


if __name__ == "__main__":
    asyncio.run(_agent(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
