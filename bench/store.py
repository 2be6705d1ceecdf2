"""Submit on SQLite and on PostgreSQL, in one run, both waiting for the disk.

Each agent is a process of its own, without gRPC: the store alone, 20 messages of 4 KiB a call, 3
calls at once. PostgreSQL is Debian's with its settings, on loopback; two agents share a database.
Large messages, 4 of 512 KiB a call, also with their bodies in an object store (versitygw on
loopback, which does not wait for the disk itself).
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from netmail_common.config import ObjectsConfig
from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.schema import users
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.domain.delivery import Envelope, Expansion, Recipient, Submission, SubmitOutcome

from bench.harness import Result, compare
from tests.support.object_store import ObjectServer, object_server
from tests.support.postgresql import Server, postgresql

_USERS = 100
_CALLS = 3
_SECONDS = 4.0
_RUNS = 3
_TIMEOUT = 120.0
_HEADER = b"From: a@example.net\r\nSubject: figures\r\n\r\n"
_LINE = b"0123456789abcde\n"


@dataclass(frozen=True, slots=True)
class Work:
    """What an agent does.

    Attributes:
        size: octets of a message.
        a_call: messages in a call.
        objects: `nmap.store.objects`; None: bodies are in the database.
    """

    url: str
    kind: str
    number: int = 0
    size: int = 4 * 1024
    a_call: int = 20
    objects: dict[str, str] | None = None


_LARGE = {"size": 512 * 1024, "a_call": 4}


def run() -> list[Result]:
    """Measures."""
    with _servers() as (server, folder, objects):

        def on_postgresql(kind: str, **more: Any) -> Work:
            return Work(server.create(), kind, **more)

        def on_sqlite(kind: str, **more: Any) -> Work:
            return Work(f"sqlite:///{folder}/{os.urandom(6).hex()}.db", kind, **more)

        def with_objects() -> Work:
            settings = objects.settings(f"s3://{objects.bucket()}/mail")
            return on_postgresql("mailbox", objects=settings, **_LARGE)

        small = [
            _row(
                f"Submit {what}, {agents} agent{'s' if agents > 1 else ''} on PostgreSQL",
                _measuring(partial(on_postgresql, kind), agents),
                _measuring(partial(on_sqlite, kind)),
            )
            for kind, what in (("mailbox", "into mailboxes"), ("queue", "into the queue"))
            for agents in (1, 2)
        ]
        large = [
            _row(
                f"Submit 512 KiB into mailboxes, bodies in {where}",
                _measuring(make),
                _measuring(partial(on_sqlite, "mailbox", **_LARGE)),
            )
            for where, make in (
                ("PostgreSQL", partial(on_postgresql, "mailbox", **_LARGE)),
                ("an object store", with_objects),
            )
        ]
        return [*small, *large]


def _row(name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> Result:
    return compare(name, "messages/s", ours, theirs, peer="SQLite", runs=_RUNS)


@contextlib.contextmanager
def _servers() -> Iterator[tuple[Server, Path, ObjectServer]]:
    with (
        postgresql(durable=True) as server,
        tempfile.TemporaryDirectory() as folder,
        object_server() as objects,
    ):
        yield server, Path(folder), objects


def _measuring(make: Callable[[], Work], agents: int = 1) -> Callable[[], float]:
    def measure() -> float:
        work = make()
        subprocess.run(_command(replace(work, kind="prepare")), check=True)
        processes = [
            subprocess.Popen(_command(replace(work, number=number)), stdout=subprocess.PIPE)
            for number in range(agents)
        ]
        rates = [float(process.communicate(timeout=_TIMEOUT)[0]) for process in processes]
        return sum(rates)

    return measure


def _command(work: Work) -> list[str]:
    return [sys.executable, "-m", "bench.store", json.dumps(asdict(work))]


# -- an agent ----------------------------------------------------------------------------------


async def _agent(work: Work) -> None:
    async with _opened(work) as store:
        if work.kind == "prepare":
            await store.core.writer.run(_make_users)
            message = _message(4 * 1024)
            await store.queue.submit(
                [_submission("mailbox", f"first-{n}", n, message) for n in range(1, 99)]
            )
            return
        await _submit(store, work, f"warm-{work.number}", 1.0)
        rate = await _submit(store, work, f"run-{work.number}", _SECONDS)
        sys.stdout.write(f"{rate}\n")


def _opened(work: Work) -> contextlib.AbstractAsyncContextManager[Store]:
    if not work.url.startswith("postgresql"):
        return open_store(work.url)
    objects = work.objects and BodyObjects(ObjectsConfig.model_validate(work.objects))
    return open_postgresql(Place(work.url), objects=objects or None)


def _message(size: int) -> bytes:
    return _HEADER + _LINE * (size // len(_LINE))


async def _submit(store: Store, work: Work, name: str, seconds: float) -> float:
    """Messages a second."""
    message = _message(work.size)
    numbers = itertools.count()
    start = time.monotonic()
    taken = 0

    async def caller() -> None:
        nonlocal taken
        while time.monotonic() - start < seconds:
            batch = [
                _submission(
                    work.kind, f"{name}-{next(numbers):010d}", random.randint(1, _USERS), message
                )
                for _ in range(work.a_call)
            ]
            results = await store.queue.submit(batch)
            if any(result.outcome is not SubmitOutcome.ACCEPTED for result in results):
                raise RuntimeError("a submission was not taken")
            taken += len(results)

    await asyncio.gather(*(caller() for _ in range(_CALLS)))
    return taken / (time.monotonic() - start)


def _submission(kind: str, message_id: str, user: int, message: bytes) -> Submission:
    address = f"someone@d{user}.example"
    envelope = Envelope(message_id, "a@example.net", (Recipient(address),))
    to = Expansion((user,)) if kind == "mailbox" else Expansion(remote=(address,))
    return Submission(envelope, message, (to,))


def _make_users(transaction: Transaction) -> None:
    transaction.connection.execute(
        sa.insert(users),
        [
            {"context": "users", "name": f"u{n}", "name_key": f"u{n}", "created_at": 0}
            for n in range(_USERS)
        ],
    )


if __name__ == "__main__":
    asyncio.run(_agent(Work(**json.loads(sys.argv[1]))))
