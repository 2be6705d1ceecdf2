"""Debian's Redis: single servers, replicas with Sentinels, a cluster; all on loopback."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.installation import _claim, _is_free, free_port

START_TIMEOUT = 30.0


@dataclass
class Node:
    """A redis-server, or a Sentinel, that can be stopped, killed and started again."""

    port: int
    folder: Path
    command: Sequence[str]
    login: Sequence[str] = ()
    prefix: Sequence[str] = ()
    """Of commands that run where the node does."""
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        log = (self.folder / f"{self.port}.out").open("ab")
        self.process = subprocess.Popen(
            [*self.prefix, *self.command], stdout=log, stderr=log, cwd=self.folder
        )
        log.close()
        eventually(self.answers, f"redis on port {self.port}")

    def answers(self) -> bool:
        return self.cli("PING", check=False).endswith("PONG")

    def cli(self, *words: str | int, check: bool = True, timeout: float = 10) -> str:
        """What redis-cli says."""
        command = [*self.prefix, "redis-cli", "-p", str(self.port), *self.login, *map(str, words)]
        try:
            done = subprocess.run(command, check=check, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            if check:
                raise
            return ""
        return done.stdout.decode(errors="surrogateescape").strip()

    def kill(self) -> None:
        """As kill -9 does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(20)
        self.process = None


def eventually(true: Callable[[], bool], what: str, seconds: float = START_TIMEOUT) -> None:
    """Polls until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.05)


def needs_redis(*, sentinel: bool = False) -> None:
    """Skips without the Debian packages."""
    for program, package in (("redis-server", "redis-server"), ("redis-cli", "redis-tools")):
        if shutil.which(program) is None:
            pytest.skip(f"needs the Debian package {package}")
    if sentinel and shutil.which("redis-sentinel") is None:
        pytest.skip("needs the Debian package redis-sentinel")


@contextlib.contextmanager
def redis_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="netmail-redis-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def server(folder: Path, *options: str, login: Sequence[str] = (), port: int = 0) -> Node:
    """A redis-server that is not started yet; nothing is written to disk."""
    port = port or free_port()
    command = [
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no", "--dbfilename", f"{port}.rdb"),
        *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
        *options,
    ]
    return Node(port, folder, command, login)


@contextlib.contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """Starts nodes, and ends them at the end."""
    try:
        for node in nodes:
            node.start()
        yield
    finally:
        for node in nodes:
            node.kill()


@contextlib.contextmanager
def one_redis(*options: str, login: Sequence[str] = ()) -> Iterator[Node]:
    needs_redis()
    with redis_folder() as folder:
        node = server(folder, *options, login=login)
        with running(node):
            yield node


@dataclass
class Sentinels:
    """A primary, its replicas, and three Sentinels that watch them."""

    servers: list[Node]
    sentinels: list[Node]

    @property
    def primary(self) -> Node:
        """The primary by the first Sentinel's word."""
        words = self.sentinels[0].cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "netmail").split()
        return next(node for node in self.servers if node.port == int(words[1]))

    def replicas_of(self, primary: Node) -> int:
        info = primary.cli("INFO", "replication", check=False)
        return info.count("state=online")


@contextlib.contextmanager
def sentinel_set(replicas: int = 1, *options: str, down_after: int = 1000) -> Iterator[Sentinels]:
    """Redis with replicas under three Sentinels; the service is called netmail."""
    needs_redis(sentinel=True)
    with redis_folder() as folder:
        first = server(folder, *options)
        others = [
            server(folder, "--replicaof", "127.0.0.1", str(first.port), *options)
            for _ in range(replicas)
        ]
        sentinels = [_sentinel(folder, first.port, down_after) for _ in range(3)]
        with running(first, *others, *sentinels):
            found = Sentinels([first, *others], sentinels)
            eventually(lambda: found.replicas_of(first) == replicas, "replicas")
            eventually(
                lambda: all(_sees_all(one, replicas) for one in sentinels), "Sentinels see all"
            )
            yield found


@contextlib.contextmanager
def cluster(primaries: int = 3, replicas: int = 1) -> Iterator[list[Node]]:
    """A cluster of so many primaries, each with its replicas."""
    needs_redis()
    with redis_folder() as folder:
        nodes = []
        for _ in range(primaries * (1 + replicas)):
            port = _cluster_port()
            nodes.append(
                server(
                    folder,
                    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1500"),
                    *("--cluster-config-file", f"nodes-{port}.conf"),
                    *("--cluster-replica-validity-factor", "0"),
                    port=port,
                )
            )
        with running(*nodes):
            nodes[0].cli(
                *("--cluster", "create", *(node.address for node in nodes)),
                *("--cluster-replicas", replicas, "--cluster-yes"),
                timeout=60,
            )
            eventually(lambda: all(map(_serves_slots, nodes)), "the cluster's state", 60)
            eventually(lambda: _replicating(nodes) == primaries * replicas, "its replicas", 60)
            yield nodes


def is_primary(node: Node) -> bool:
    """Whether a node says so."""
    return "role:master" in node.cli("INFO", "replication", check=False)


def _sentinel(folder: Path, primary: int, down_after: int) -> Node:
    port = free_port()
    file = folder / f"sentinel-{port}.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor netmail 127.0.0.1 {primary} 2\n"
        f"sentinel down-after-milliseconds netmail {down_after}\n"
        "sentinel failover-timeout netmail 6000\n"
    )
    return Node(port, folder, ["redis-sentinel", str(file)])


def _sees_all(sentinel: Node, replicas: int) -> bool:
    lines = sentinel.cli("SENTINEL", "MASTER", "netmail", check=False).splitlines()
    fields = dict(zip(lines[::2], lines[1::2], strict=False))
    return (
        fields.get("num-other-sentinels") == "2"
        and fields.get("num-slaves") == str(replicas)
        and fields.get("flags") == "master"
    )


def _serves_slots(node: Node) -> bool:
    return "cluster_state:ok" in node.cli("CLUSTER", "INFO", check=False)


def _replicating(nodes: Sequence[Node]) -> int:
    return sum("master_link_status:up" in node.cli("INFO", "replication") for node in nodes)


def _cluster_port() -> int:
    """A free port whose neighbour for the cluster's bus, 10000 above, is free too."""
    while True:
        port = free_port()
        bus = port + 10_000
        # Above 32000 the kernel gives ports to clients.
        if bus < 32_000 and _claim(bus) and _is_free(bus):
            return port
