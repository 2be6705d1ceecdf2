"""A whole installation of our own, started as a user would: `netmail run`."""

import copy
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "services/cli/netmail_cli/demo/demo.yaml"
_HOST_PORT = re.compile(r"((?:127\.0\.0\.\d+|\[::1\])):(\d+)")


def free_port() -> int:
    """A port that is free on 127.0.0.1 and ::1 and was not given out before; so are the next three.

    Worker processes serve metrics on the ports after the first. None is in the range that the
    kernel gives to clients: a connection could take it between the look and the start.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # below net.ipv4.ip_local_port_range
        block = range(port, port + 4)
        if all(_claim(one) and _is_free(one) for one in block):
            return port


def _claim(port: int) -> bool:
    """Keeps PORT from other test runs on this machine until this process ends."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mark.bind(f"\0netmail-test-port-{port}")
    except OSError:
        mark.close()
        return False
    mark.detach()
    return True


def _is_free(port: int) -> bool:
    try:
        with (
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("::1", port), family=socket.AF_INET6),
        ):
            return True
    except OSError:
        return False


def demo_config() -> dict[str, Any]:
    """The demonstration's configuration as data, on its own ports."""
    data: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    return data


@dataclass(slots=True)
class RunningInstallation:
    """`netmail run` and what it started. Ports are named by their number in the demonstration."""

    process: subprocess.Popen[str]
    config_path: Path
    state: Path
    ports: Mapping[int, int]
    output: list[str] = field(default_factory=list)
    powered_off: bool = False

    def port(self, demo_port: int) -> int:
        """The port that stands in for a port of the demonstration: 2525, 2587, 7700, ..."""
        return self.ports[demo_port]

    def netmail(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the `netmail` command against this installation."""
        return subprocess.run(
            [sys.executable, "-m", "netmail_cli", *argv,
             "--config", str(self.config_path), "--state", str(self.state)],
            check=check, capture_output=True, text=True, timeout=60, cwd=ROOT,
        )  # fmt: skip

    def pids(self, *words: str) -> list[int]:
        """Processes below `netmail run` whose command line has every word."""
        return [
            pid
            for pid in _descendants(self.process.pid)
            if all(word in _command_line(pid) for word in words)
        ]

    def power_off(self) -> None:
        """Kills everything at once, `netmail run` first, as a power cut would."""
        self.powered_off = True
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            _kill(pid)
        self.process.wait(10)

    def text(self) -> str:
        """Everything printed so far."""
        return "".join(self.output)


@contextmanager
def installation(
    state: Path,
    *,
    change: Callable[[dict[str, Any]], None] | None = None,
    env: Mapping[str, str] | None = None,
    ports: Mapping[int, int] | None = None,
    ready_within: float = 90.0,
    prefix: Sequence[str] = (),
) -> Iterator[RunningInstallation]:
    """Starts the demonstration's configuration on free ports and waits for `ready`.

    Args:
        state: the state directory.
        change: edits the configuration data before the ports are replaced.
        env: added to the environment.
        ports: those of an earlier run, to start the same installation again.
        ready_within: seconds.
        prefix: a command that runs it, such as `ip netns exec NAME`.

    Raises: AssertionError when it does not get ready, or does not end with 0.
    """
    data = copy.deepcopy(demo_config())
    if change is not None:
        change(data)
    mapping = dict(ports or {})
    state.mkdir(parents=True, exist_ok=True)
    config_path = state / "config.yaml"
    config_path.write_text(yaml.safe_dump(_replace_ports(data, mapping)), encoding="utf-8")
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "netmail_cli", "run", "--config", str(config_path),
         "--state", str(state)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    running = RunningInstallation(process, config_path, state, mapping)
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(running, ready), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + ready_within
        while not ready.wait(0.1):
            assert process.poll() is None, f"netmail run ended: {running.text()}"
            assert time.monotonic() < deadline, f"not ready: {running.text()}"
        yield running
        if running.powered_off:
            return
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, running.text()[-4000:]
    finally:
        if process.poll() is None:
            for pid in [*_descendants(process.pid), process.pid]:
                _kill(pid)
            process.wait(10)
        reader.join(10)
        assert process.stdout is not None
        process.stdout.close()


def _replace_ports(value: Any, mapping: dict[int, int]) -> Any:
    if isinstance(value, str):
        return _HOST_PORT.sub(lambda m: f"{m[1]}:{_mapped(int(m[2]), mapping)}", value)
    if isinstance(value, dict):
        return {key: _replace_ports(item, mapping) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_ports(item, mapping) for item in value]
    return value


def _mapped(port: int, mapping: dict[int, int]) -> int:
    if port not in mapping:
        mapping[port] = free_port()
    return mapping[port]


def _read(running: RunningInstallation, ready: threading.Event) -> None:
    assert running.process.stdout is not None
    try:
        for line in running.process.stdout:
            running.output.append(line)
            if line == "ready\n":
                ready.set()
    except ValueError:
        return  # closed


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        waiting.extend(children.get(waiting.pop(), []))
        found.extend(p for p in waiting if p not in found)
    return found


def _command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace")
