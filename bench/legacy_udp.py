"""UDP port 689 beside a bare uvloop echo that answers datagrams of the same sizes.

Events of the authenticated protocol from an agent with its password: VERIFY RELAY for clients of a
table of LOGINS logins, VERIFY CONNECT, NOTIFY AUTHENTICATED; and the plain CHECK_NAME. One process
each; our own load generator (udp_load.c) keeps WINDOW datagrams under way.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from netmail_common.certificates import LocalAuthority
from netmail_common.config import load_config
from netmail_common.roles import Role
from netmail_connmgr.protocol.legacy_udp.layout import Layout

from bench.deliver import agent as process
from bench.harness import Result, compare
from tests.connmgr.legacy_udp.agents import Agent, agent
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH
from tests.support.installation import free_port

LOGINS = 10_000
WINDOW = 64
SECONDS = 2.0
TARGET = 0.4
_FOLDER = Path(__file__).parent
_LAYOUT = Layout.LP64_LITTLE
_CONFIG = """\
log: {{level: warning, format: json}}
connection_managers:
  - name: cm1
    listen: ["127.0.0.1:{grpc}"]
    loopback_grants: true
    legacy_udp:
      listen: ["127.0.0.1:{udp}"]
      allowed_sources: ["127.0.0.1/32"]
      access_hash_file: {hash_file}
      plain: true
messaging_servers:
  - name: mail1
    host_name: mail1.example.org
    domains: [example.org]
    connection_manager: cm1
    contexts: [{{name: users}}]
    nmap: {{listen: ["127.0.0.1:{unused}"]}}
"""


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


def _measure(folder: Path, load: Path) -> list[Result]:
    with _ours(folder) as port, _echo(400) as echo, _echo(296) as plain_echo:
        events = asyncio.run(_events(folder, port))
        peers = {368: echo, 296: plain_echo}
        return [
            compare(
                f"UDP 689, {event.name}",
                "1/s",
                partial(_rate, load, port, event, event.result),
                partial(_rate, load, peers[event.size], event, 0),
                peer="uvloop echo",
                target=TARGET,
                note=f"{LOGINS:,} logins, {WINDOW} under way, log level warning",
            )
            for event in events
        ]


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


def _rate(load: Path, port: int, event: Event, result: int) -> float:
    argv = [str(load), "127.0.0.1", str(port), str(event.file), str(event.size), str(WINDOW), "1",
            str(SECONDS), str(result)]  # fmt: skip
    output = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    return float(output.split()[0])


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[int]:
    """A Connection Manager; its UDP port."""
    hash_file = folder / "access_hash"
    hash_file.write_text(ACCESS_HASH.hex(), encoding="ascii")
    config = folder / "config.yaml"
    port = free_port()
    config.write_text(
        _CONFIG.format(grpc=free_port(), udp=port, unused=free_port(), hash_file=hash_file),
        encoding="utf-8",
    )
    installation = load_config(config, state=folder)
    authority = LocalAuthority.open_or_create(folder / "ca", installation.installation)
    authority.issue(Role.CONNMGR, installation.certificates)
    options = ("--config", str(config), "--state", str(folder), "--name", "cm1")
    with process("netmail_connmgr", *options):
        yield port


@contextlib.contextmanager
def _echo(size: int) -> Iterator[int]:
    port = free_port()
    argv = [sys.executable, str(_FOLDER / "udp_echo.py"), str(port), str(size)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield port
        finally:
            running.terminate()
