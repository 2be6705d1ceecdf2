"""Network namespaces of our own: a server and a client host joined by a veth pair."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class TwoHosts:
    """Two namespaces; the server has the addresses .1 and ::1, the client all others."""

    server: str
    client: str
    server_v4: str
    server_v6: str

    def on_server(self) -> list[str]:
        """The command prefix that runs on the server."""
        return ["ip", "netns", "exec", self.server]

    def on_client(self) -> list[str]:
        """The command prefix that runs on the client."""
        return ["ip", "netns", "exec", self.client]


@contextmanager
def two_hosts(client_addresses: Sequence[str]) -> Iterator[TwoHosts]:
    """Makes both hosts and gives the client the addresses (with prefix lengths).

    Skips the test where namespaces cannot be made.
    """
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and the Debian package iproute2")
    tag = f"nm{os.getpid() % 100000}"
    hosts = TwoHosts(f"{tag}s", f"{tag}c", "198.18.0.1", "2001:db8:0:1::1")
    try:
        for name in (hosts.server, hosts.client):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", hosts.server, "netns", hosts.server, "type", "veth",
            "peer", "name", hosts.client, "netns", hosts.client)  # fmt: skip
        for name, addresses in (
            (hosts.server, [f"{hosts.server_v4}/16", f"{hosts.server_v6}/48"]),
            (hosts.client, client_addresses),
        ):
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                _ip("-n", name, "address", "add", address, "dev", name, *nodad)
            _ip("-n", name, "link", "set", name, "up")
        yield hosts
    finally:
        for name in (hosts.server, hosts.client):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


@dataclass(frozen=True, slots=True)
class NextHost:
    """A namespace that a veth pair joins to the one we are in; without a name this one itself."""

    name: str
    address: str

    def prefix(self) -> list[str]:
        """The command prefix that runs there."""
        return ["ip", "netns", "exec", self.name] if self.name else []

    def cut(self) -> None:
        """From now on what is sent to it or by it goes nowhere."""
        _ip("-n", self.name, "link", "set", self.name, "down")

    def mend(self) -> None:
        """Joins it again."""
        _ip("-n", self.name, "link", "set", self.name, "up")


@contextmanager
def next_host() -> Iterator[NextHost]:
    """Makes one. Skips the test where namespaces cannot be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and the Debian package iproute2")
    number = os.getpid() % 16_000
    ours, host = (
        f"nm{number}o",
        NextHost(f"nm{number}n", f"198.19.{number // 64}.{number % 64 * 4 + 2}"),
    )
    try:
        _ip("netns", "add", host.name)
        _ip("-n", host.name, "link", "set", "lo", "up")
        _ip("link", "add", ours, "type", "veth", "peer", "name", host.name, "netns", host.name)
        _ip("address", "add", f"198.19.{number // 64}.{number % 64 * 4 + 1}/30", "dev", ours)
        _ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", host.name)
        _ip("link", "set", ours, "up")
        host.mend()
        yield host
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", ours)
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", host.name)


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True, timeout=10)
