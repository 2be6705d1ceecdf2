"""Agents as processes of their own, the Connection Manager on another host."""

import copy
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from netmail_common.certificates import LocalAuthority

from tests.e2e.proxy_headers import v2
from tests.e2e.relaying import REMOTE, connection_to
from tests.pop_imap.agents import PASSWORD, configuration
from tests.support.installation import ROOT, free_port
from tests.support.namespaces import NextHost, next_host

MAX_STALENESS = 3.0
SLOW = 2.0
"""Seconds that a busy machine may take for one decision."""
_START_TIMEOUT = 90.0


@dataclass(slots=True)
class Agent:
    """One process, and where it listens when it is ready."""

    argv: Sequence[str]
    ready_at: tuple[str, int]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; returns at once."""
        self.process = subprocess.Popen(
            self.argv, cwd=ROOT, env={**os.environ, **self.environment}, stdout=sys.stderr
        )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the agent itself."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_ready(self) -> None:
        """Until it accepts connections."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not self.accepts():
            assert self.process is not None
            assert self.process.poll() is None, f"{self.argv} ended"
            assert time.monotonic() < deadline, f"{self.argv} is not ready"
            time.sleep(0.05)

    def accepts(self) -> bool:
        """Whether it does."""
        try:
            socket.create_connection(self.ready_at, timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)


@dataclass(slots=True)
class Apart:
    """A Connection Manager on the next host, the other agents on this one."""

    host: NextHost
    folder: Path
    agents: dict[str, Agent] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    _users: Iterator[int] = field(default_factory=count)
    _hosts: Iterator[int] = field(default_factory=count)

    @property
    def manager(self) -> Agent:
        return self.agents["connmgr"]

    def log_in(self, user: str, address: str) -> None:
        """By POP3, through the proxy."""
        with connection_to(self.ports["pop3"], v2(address)) as client:
            assert client.line().startswith("+OK")
            client.say(f"USER {user}")
            assert client.say(f"PASS {PASSWORD}").startswith("+OK")
            client.say("QUIT")

    def newcomer(self) -> tuple[str, str]:
        """A user nobody else is, and an address nobody else has."""
        return f"user{next(self._users)}", self._address()

    def known_client(self) -> tuple[str, str]:
        """A newcomer who is logged in; her client may relay."""
        user, address = self.newcomer()
        self.log_in(user, address)
        self.until(user, address, "250", 20.0)
        return user, address

    def stranger(self) -> tuple[str, str]:
        """Somebody who is logged in nowhere."""
        return "user99", self._address()

    def _address(self) -> str:
        return str(IPv4Address("198.18.0.0") + next(self._hosts))

    def relay(self, user: str, address: str) -> str:
        """What decided: 250 for a message that was taken, 451, or else with the enhanced code."""
        with connection_to(self.ports["smtp"], v2(address)) as client:
            assert client.line().startswith("220")
            assert client.say("HELO client.example.net").startswith("250")
            assert client.say(f"MAIL FROM:<{user}@example.org>").startswith("250")
            reply = client.say(f"RCPT TO:<{REMOTE}>")
            if reply.startswith("250"):
                assert client.say("DATA").startswith("354")
                reply = client.say(f"From: {user}@example.org\r\n\r\nHello\r\n.")
            return reply[:3] if reply.startswith(("250", "451")) else reply[:9]

    def nobody_relays_too_long(self, alice: tuple[str, str], since: float) -> None:
        """A known client may relay for max_staleness; afterwards, and for strangers, it is 451."""
        while time.monotonic() < since + MAX_STALENESS + SLOW:
            assert self.relay(*self.stranger()) == "451"
            began = time.monotonic()
            reply = self.relay(*alice)
            assert reply == "451" or (reply == "250" and began < since + MAX_STALENESS)
        assert self.relay(*alice) == "451"

    def until(self, user: str, address: str, reply: str, within: float) -> float:
        """Tries until the reply comes; how many seconds that took."""
        start = time.monotonic()
        while (now := self.relay(user, address)) != reply:
            took = time.monotonic() - start
            assert took < within, f"{now} after {took:.1f} s instead of {reply}"
            time.sleep(0.05)
        return time.monotonic() - start

    def revoke(self, address: str) -> None:
        """Ends the logins from an address, on the Connection Manager's own host."""
        done = subprocess.run(
            [*self.host.prefix(), sys.executable, "-m", "netmail_cli",
             "login", "revoke", "--address", address,
             "--config", str(self.folder / "config.yaml"), "--state", str(self.folder / "state")],
            check=False, capture_output=True, text=True, timeout=60, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def set_wall_clock(self, ahead: float) -> None:
        """Sets every agent's wall clock, seconds from the real one."""
        with (self.folder / "skew").open("r+b") as file:
            file.write(struct.pack("d", ahead))


@contextmanager
def apart(
    folder: Path,
    authority: LocalAuthority,
    certificates: Path,
    *,
    change: Callable[[dict[str, Any]], None] | None = None,
    skewed: bool = False,
    on_next_host: bool = True,
) -> Iterator[Apart]:
    """Starts everything.

    Args:
        change: edits the configuration.
        skewed: the wall clocks can be set.
        on_next_host: False: the Connection Manager is on this one, too.
    """
    here = nullcontext(NextHost("", "127.0.0.1"))
    with next_host() if on_next_host else here as host:
        world = Apart(host, folder)
        environment = _skewed_clock(folder) if skewed else {}
        _write_configuration(world, authority, certificates, change)
        common = ["--config", str(folder / "config.yaml"), "--state", str(folder / "state")]
        server = [*common, "--server", "mail1"]
        python = [sys.executable, "-m"]
        world.agents = {
            name: Agent(argv, (where, world.ports[name]), environment)
            for name, where, argv in (
                ("connmgr", host.address,
                 [*host.prefix(), *python, "netmail_connmgr", *common, "--name", "main"]),
                ("nmap", "127.0.0.1", [*python, "netmail_nmap", *server]),
                ("smtp", "127.0.0.1", [*python, "netmail_smtp", "serve", *server]),
                ("pop3", "127.0.0.1", [*python, "netmail_pop_imap", *server]),
            )
        }  # fmt: skip
        try:
            for agent in world.agents.values():
                agent.start()
            for agent in world.agents.values():
                agent.wait_ready()
            yield world
        finally:
            for agent in world.agents.values():
                agent.kill()


def _write_configuration(
    world: Apart,
    authority: LocalAuthority,
    certificates: Path,
    change: Callable[[dict[str, Any]], None] | None,
) -> None:
    folder = world.folder
    pair = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
    authority.issue_server("mail1.example.org", Path(pair["certificate"]), Path(pair["key"]))
    (folder / "state").mkdir()
    data = copy.deepcopy(configuration(folder / "state", certificates, pair))
    world.ports = {name: free_port() for name in ("connmgr", "nmap", "smtp", "pop3")}
    proxied = {"proxy_protocol": True, "proxy_trusted_networks": ["127.0.0.1/32"]}
    data["connection_managers"][0].update(
        listen=[f"{world.host.address}:{world.ports['connmgr']}"],
        loopback_grants=False,
        rates={"after_login": {"recipients": 0}},
    )
    server = data["messaging_servers"][0]
    server["nmap"]["listen"] = [f"127.0.0.1:{world.ports['nmap']}"]
    server["smtp"] = {
        "workers": 1,
        "max_staleness": MAX_STALENESS,
        "connmgr_timeout": 1.0,
        "listeners": [{"name": "mx", "listen": [f"127.0.0.1:{world.ports['smtp']}"], **proxied}],
    }
    server["pop_imap"]["listeners"] = [
        {"name": "pop3", "protocol": "pop3", "plaintext_auth": True,
         "listen": [f"127.0.0.1:{world.ports['pop3']}"], **proxied}
    ]  # fmt: skip
    if change is not None:
        change(data)
    (folder / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")


def _skewed_clock(folder: Path) -> dict[str, str]:
    if shutil.which("gcc") is None:
        pytest.skip("needs the Debian package gcc")
    library, skew = folder / "skewed_clock.so", folder / "skew"
    skew.write_bytes(struct.pack("d", 0.0))
    source = ROOT / "tests/support/skewed_clock.c"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        check=True, timeout=60,
    )  # fmt: skip
    return {"LD_PRELOAD": str(library), "SKEW_FILE": str(skew)}
