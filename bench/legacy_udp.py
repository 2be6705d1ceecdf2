"""UDP port 689 beside a bare uvloop echo that answers datagrams of the same sizes.

Events of the authenticated protocol from an agent with its password: VERIFY RELAY for clients of a
table of LOGINS logins, VERIFY CONNECT, NOTIFY AUTHENTICATED; and the plain CHECK_NAME. One process
each; our own load generator (udp_load.c) keeps WINDOW datagrams under way.

Two figures each: replies a second, and processor time of the server for one, which does not depend
on what else the machine does.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netmail_connmgr.protocol.legacy_udp.layout import Layout

from bench.harness import Result
from bench.manager import connection_manager
from tests.connmgr.legacy_udp.agents import Agent, agent
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH
from tests.support.installation import free_port

LOGINS = 10_000
WINDOW = 64
SECONDS = 2.0
RUNS = 5
TARGET = 0.4
_FOLDER = Path(__file__).parent
_LAYOUT = Layout.LP64_LITTLE


def run() -> list[Result]:
    """Measures; one row for each kind of event."""
    with tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder:
        load = Path(folder) / "udp_load"
        source = str(_FOLDER / "udp_load.c")
        subprocess.run(["gcc", "-O2", "-o", str(load), source], check=True)
        return _measure(Path(folder), load)


@dataclass(frozen=True, slots=True)
class Event:
    """What is sent in turn, and the first octet of every reply."""

    name: str
    file: Path
    size: int
    result: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One run: replies a second, and the server's microseconds for each."""

    rate: float
    microseconds: float


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test."""

    port: int
    pid: int

    def processor_seconds(self) -> float:
        """What it has used so far, in user and in system mode."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _measure(folder: Path, load: Path) -> list[Result]:
    with _ours(folder) as ours, _echo(400) as echo, _echo(296) as plain_echo:
        peers = {368: echo, 296: plain_echo}
        rows: list[Result] = []
        for event in asyncio.run(_events(folder, ours.port)):
            mine, peer = [], []
            for _ in range(RUNS + 1):
                mine.append(_send(load, ours, event, event.result))
                peer.append(_send(load, peers[event.size], event, 0))
            rows.extend(_rows(event, mine[1:], peer[1:]))  # the first was to warm up
        return rows


def _rows(event: Event, mine: list[Sent], peer: list[Sent]) -> Iterator[Result]:
    name = f"UDP 689, {event.name}"
    note = f"{LOGINS:,} logins, {WINDOW} under way, log level warning"
    rates = [one.rate for one in mine], [one.rate for one in peer]
    ours, theirs = map(statistics.median, rates)
    target = TARGET if event.size == 368 else None
    yield Result(name, "1/s", ours, theirs, ours / theirs, target, "uvloop echo", *rates, note)
    times = [one.microseconds for one in mine], [one.microseconds for one in peer]
    ours, theirs = map(statistics.median, times)
    name += ": processor time"
    yield Result(name, "us", ours, theirs, theirs / ours, None, "uvloop echo", *times, note)


async def _events(folder: Path, port: int) -> list[Event]:
    """Fills the table and writes the requests."""
    async with agent(port, _LAYOUT) as host:
        await host.relay(_address(0))
        await _fill(host)
        sets = [
            ("VERIFY RELAY", [host.request(1, "RELAY", one) for one in _CLIENTS], 3),
            ("VERIFY CONNECT", [host.request(1, "CONNECT", one) for one in _CLIENTS], 3),
            ("NOTIFY DELIVERED", [host.request(2, "DELIVERED", one) for one in _CLIENTS], 0),
            ("NOTIFY AUTHENTICATED", [_login(host, n) for n in range(len(_CLIENTS))], 0),
            ("CHECK_NAME", [host.plain(3, one) for one in _CLIENTS], 2),
        ]
    events = []
    for name, requests, result in sets:
        file = folder / name.replace(" ", "_")
        file.write_bytes(b"".join(requests))
        events.append(Event(name, file, len(requests[0]), result))
    return events


async def _fill(host: Agent) -> None:
    for number in range(LOGINS):
        await host.send(_login(host, number))
        await host.reply()


def _login(host: Agent, number: int) -> bytes:
    return host.request(2, "AUTHENTICATED", _address(number), f"user{number}\0".encode())


def _address(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}"


_CLIENTS = [_address(number) for number in range(1000)]


def _send(load: Path, server: Server, event: Event, result: int) -> Sent:
    argv = [str(load), "127.0.0.1", str(server.port), str(event.file), str(event.size),
            str(WINDOW), "1", str(SECONDS), str(result)]  # fmt: skip
    before = server.processor_seconds()
    output = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    replies = int(output.split()[0])
    return Sent(replies / SECONDS, (server.processor_seconds() - before) / replies * 1e6)


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[Server]:
    """A Connection Manager."""
    hash_file, port = folder / "access_hash", free_port()
    hash_file.write_text(ACCESS_HASH.hex(), encoding="ascii")
    settings = {
        "listen": [f"127.0.0.1:{port}"],
        "allowed_sources": ["127.0.0.1/32"],
        "access_hash_file": str(hash_file),
        "plain": True,
    }
    with connection_manager(folder, loopback_grants=True, legacy_udp=settings) as manager:
        yield Server(port, manager.pid)


@contextlib.contextmanager
def _echo(size: int) -> Iterator[Server]:
    port = free_port()
    argv = [sys.executable, str(_FOLDER / "udp_echo.py"), str(port), str(size)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield Server(port, running.pid)
        finally:
            running.terminate()
