"""A PostgreSQL whose standby takes over while mail is sent and read."""

import itertools
import poplib
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import RunningInstallation, installation
from tests.support.postgresql import Server, postgresql, standby
from tests.support.tcp_service import TcpService

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

ALICE = ("alice", "wonderland")
WITHIN = 30.0
"""Seconds without a success at most, of which the fault itself is some."""


@dataclass
class World:
    """The installation, and its database behind a port that leads to the primary.

    Attributes:
        successes: monotonic times, by what was done.
    """

    running: RunningInstallation
    service: TcpService
    primary: Server
    standby: Server
    successes: dict[str, list[float]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Clients that try again, as real ones do."""
        ended = threading.Event()
        numbers = itertools.count()

        def client(what: str, once: Callable[[], None]) -> None:
            while not ended.is_set():
                try:
                    once()
                except (OSError, EOFError, smtplib.SMTPException, poplib.error_proto) as error:
                    self.trouble.append(f"{what}: {error}")
                    ended.wait(0.2)
                else:
                    self.successes.setdefault(what, []).append(time.monotonic())
                    ended.wait(0.1)

        def send() -> None:
            mark = f"load-{next(numbers)}-{threading.get_ident()}"
            with smtplib.SMTP("127.0.0.1", self.running.port(2525), timeout=40) as smtp:
                smtp.sendmail(
                    "eve@example.net",
                    ["alice@example.org"],
                    f"From: eve@example.net\r\nSubject: {mark}\r\n\r\nHello\r\n",
                )
            self.acknowledged.add(mark)

        threads = [
            threading.Thread(target=client, args=work)
            for work in (("SMTP", send), ("SMTP", send), ("POP3", self.read))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join(60)

    def read(self) -> None:
        """Logs in by POP3 and looks how much there is."""
        client = poplib.POP3("127.0.0.1", self.running.port(2110), timeout=40)
        try:
            client.user(ALICE[0])
            client.pass_(ALICE[1])
            client.quit()
        finally:
            client.close()

    def wait_for_more(self, within: float) -> None:
        """Until each kind of client has had five further successes."""
        before = {what: len(self.successes.get(what, [])) for what in ("SMTP", "POP3")}
        deadline = time.monotonic() + within
        while any(len(self.successes.get(what, [])) < n + 5 for what, n in before.items()):
            assert time.monotonic() < deadline, self.trouble[-5:]
            time.sleep(0.1)

    def longest_gap(self) -> float:
        """Seconds without a success, of whoever had the longest."""
        return max(
            b - a for times in self.successes.values() for a, b in itertools.pairwise(sorted(times))
        )

    def missing(self) -> set[str]:
        """What was acknowledged and is not in the mailbox."""
        client = poplib.POP3("127.0.0.1", self.running.port(2110), timeout=60)
        client.user(ALICE[0])
        client.pass_(ALICE[1])
        found = set()
        for number in range(1, client.stat()[0] + 1):
            for line in client.top(number, 0)[1]:
                if line.startswith(b"Subject: "):
                    found.add(line[9:].decode())
        client.quit()
        return self.acknowledged - found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        postgresql(durable=True) as primary,
        standby(primary) as other,
        TcpService(primary.port).running() as service,
    ):
        url = primary.create().replace(f"127.0.0.1:{primary.port}", f"localhost:{service.port}")

        def on_postgresql(data: dict[str, Any]) -> None:
            del data["messaging_servers"][1:]
            store = {"url": url, "readers": 2, "writers": 2}
            data["messaging_servers"][0]["nmap"]["store"] = store

        with installation(tmp_path, change=on_postgresql, ready_within=180) as running:
            made = World(running, service, primary, other)
            with made.load():
                made.wait_for_more(60)
            made.successes.clear()
            yield made


def _take_over(world: World) -> None:
    world.standby.promote()
    world.standby.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
    world.standby.sql("SELECT pg_reload_conf()")
    world.service.lead_to(world.standby.port)


def _check(world: World, what: str) -> None:
    gap = world.longest_gap()
    print(f"{what}: {len(world.acknowledged)} acknowledged, {gap:.1f} s without a success")
    assert world.missing() == set()
    assert gap < WITHIN


def test_a_primary_that_stands_still_is_left_for_the_one_that_takes_over(world: World) -> None:
    with world.load():
        world.wait_for_more(30)
        world.service.stand_still()
        time.sleep(3)  # how long it takes until somebody decides that it is dead
        _take_over(world)
        world.primary.kill()
        world.wait_for_more(180)
    _check(world, "a primary that stands still")
