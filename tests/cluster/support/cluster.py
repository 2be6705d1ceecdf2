"""A cluster: its kubectl and helm, and the clients outside of it.

Either the machine's own (`NETMAIL_CLUSTER_TOOL`, the command that made it), whose clients outside
may have any address, or whichever KUBECONFIG names, with `kubectl` and `helm` from PATH. There the
clients are this machine's own addresses: `NETMAIL_OUTSIDE_ADDRESSES`, separated by commas.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.support.outside import HostNamespace, NamespaceOf, Outside

_ROOT = Path(__file__).resolve().parents[3]
_TOOL = "NETMAIL_CLUSTER_TOOL"
_ADDRESSES = "NETMAIL_OUTSIDE_ADDRESSES"


class CommandFailed(Exception):
    """A command did not end with 0; its text has what it printed."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> str:
    """What a command prints. Raises: CommandFailed, with what it said."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(argv)}: not done within {timeout} s") from error
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}".strip()
        raise CommandFailed(f"{' '.join(argv)}: {done.returncode}: {said}")
    return done.stdout


@dataclass(slots=True)
class Cluster:
    """A cluster that runs."""

    tool: str = ""
    """The command of the machine's own cluster; empty: one that KUBECONFIG names."""
    _outside: dict[str, Outside] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Nodes can be killed, and clients outside have any address."""
        return bool(self.tool)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Raises: CommandFailed."""
        return run([*self._command("kubectl"), *argv], stdin=stdin, timeout=timeout)

    def helm(self, *argv: str, stdin: str | None = None, timeout: float = 400) -> str:
        """Raises: CommandFailed."""
        return run([*self._command("helm"), *argv], stdin=stdin, timeout=timeout)

    def get(self, *argv: str) -> Any:
        """`kubectl get ... -o json` as data. Raises: CommandFailed."""
        return json.loads(self.kubectl("get", *argv, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Makes or changes objects. Raises: CommandFailed."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def do(self, *argv: str, timeout: float = 120) -> str:
        """The machine's own cluster does something: `node kill 1`. Skips the test elsewhere."""
        if not self.tool:
            pytest.skip("needs the machine's own cluster")
        return run([self.tool, *argv], timeout=timeout)

    def nodes(self) -> list[int]:
        """Numbers of the nodes of the machine's own cluster. Raises: CommandFailed."""
        names = [item["metadata"]["name"] for item in self.get("nodes")["items"]]
        return sorted(int(name.removeprefix("node")) for name in names)

    def addon(self, name: str) -> None:
        """Brings an add-on up; skips the test where it was not built."""
        self.do("addon", name, "up", timeout=900)

    def outside(self, address: str) -> Outside:
        """A client outside the cluster with this address; the same object each time."""
        if address not in self._outside:
            if self.tool:
                there = NamespaceOf.a_process([self.tool, "exec", "--from", address, "--"])
                self._outside[address] = Outside(address, there)
            elif address in self._own_addresses():
                self._outside[address] = Outside(address, HostNamespace())
            else:
                pytest.skip(f"this machine has no address {address} of {_ADDRESSES}")
        return self._outside[address]

    def addresses(self, count: int) -> list[Outside]:
        """Clients outside with different addresses; skips the test where there are not enough."""
        own = self._own_addresses()
        texts = [f"203.0.113.{n}" for n in range(1, count + 1)] if self.tool else own[:count]
        if len(texts) < count:
            pytest.skip(f"needs {count} addresses of this machine in {_ADDRESSES}")
        return [self.outside(text) for text in texts]

    def close(self) -> None:
        """Ends what stands for clients outside."""
        for client in self._outside.values():
            client.close()
        self._outside.clear()

    def _command(self, name: str) -> list[str]:
        return [self.tool, name] if self.tool else [name]

    def _own_addresses(self) -> list[str]:
        return [one for one in os.environ.get(_ADDRESSES, "").split(",") if one]


@contextmanager
def the_cluster() -> Iterator[Cluster]:
    """The one that the environment names; skips the test where none is running."""
    beside = _ROOT.parent / "shared/cluster/cluster"
    tool = os.environ.get(_TOOL, "")
    if not tool and "KUBECONFIG" not in os.environ and beside.exists():
        tool = str(beside)
    if not tool and not (shutil.which("kubectl") and shutil.which("helm")):
        pytest.skip("needs kubectl and helm, or the machine's own cluster")
    cluster = Cluster(tool)
    try:
        cluster.kubectl("get", "nodes", timeout=30)
    except CommandFailed as error:
        pytest.skip(f"no cluster is running: {error}")
    try:
        yield cluster
    finally:
        cluster.close()
