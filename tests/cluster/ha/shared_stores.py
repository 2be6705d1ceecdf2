"""The stores of an installation that loses nothing with a pod or a node.

PostgreSQL, primary and synchronous standby under Patroni; Redis, primary and replica under three
Sentinels.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.support import Cluster, CommandFailed, Release
from tests.support.waiting import eventually

_FOLDER = Path(__file__).with_name("stores")
IMAGE = "netmail-test/stores:1"
PASSWORD = "geheim"
_SECRETS = {
    "netmail-valkey": {"password": PASSWORD},
    "netmail-postgresql": {
        "uri": f"postgresql://netmail:{PASSWORD}@database:5432/netmail"
        "?target_session_attrs=read-write"
    },
}
VALUES: dict[str, Any] = {
    "connmgr": {"valkey": {"addresses": [f"sentinel-{number}:26379" for number in range(3)]}}
}
"""What values-ha.yaml does not know: where the Sentinels are."""


def build_image(cluster: Cluster, folder: Path) -> None:
    """Makes the stores' image from Debian packages and puts it on the nodes.

    On a cluster that is not the machine's own it must be there. Raises: CommandFailed.
    """
    if not cluster.is_own:
        return
    subprocess.run([_FOLDER / "unpack.sh", folder], check=True, timeout=300)
    for name in ("Dockerfile", "entry.py", "post_init"):
        (folder / name).write_bytes((_FOLDER / name).read_bytes())
        (folder / name).chmod(0o755)
    cluster.do("bud", "--timestamp", "0", "-t", f"localhost/{IMAGE}", str(folder), timeout=300)
    cluster.do("load", f"localhost/{IMAGE}={IMAGE}", timeout=300)


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores in a release's namespace."""

    release: Release

    def start(self) -> None:
        """Brings them up, with the Secrets that values-ha.yaml names. Raises: CommandFailed."""
        for name, data in _SECRETS.items():
            self.release.make_secret(name, data)
        self.release.kubectl("apply", "-f", str(_FOLDER / "stores.yaml"))
        self.wait_until_whole()

    def wait_until_whole(self, within: float = 240) -> None:
        """Waits until each primary has its standby, up to date, and all Sentinels agree."""
        for whole in (self._database_is_whole, self._redis_is_whole):
            eventually(_patiently(whole), within, pause=1)

    def primary_of_the_database(self) -> str:
        """Name of the pod that has the leader's lock. Raises: CommandFailed."""
        return self._patroni("leader")["leader"]

    def primary_of_redis(self) -> str:
        """Name of the pod, as most Sentinels say it. Raises: CommandFailed."""
        words = self._sentinel(0, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "netmail").split()
        pods = {self._address(pod): pod for pod in ("redis-0", "redis-1")}
        return pods[words[0]]

    def _patroni(self, what: str) -> dict[str, str]:
        """What Patroni keeps in one of its ConfigMaps. Raises: CommandFailed."""
        kept = self.release.get("configmap", f"database-{what}")["metadata"].get("annotations")
        return dict(kept or {})

    def _database_is_whole(self) -> bool:
        """Both members are ready, and the standby has all that is answered."""
        pods = self.release.get("pods", "-l", "app=database")["items"]
        ready = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
        standby = self._patroni("sync").get("sync_standby", "")
        return {self.primary_of_the_database(), standby} == ready == {"database-0", "database-1"}

    def _redis_is_whole(self) -> bool:
        primary = self.primary_of_redis()
        address = self._address(primary)
        agree = all(
            self._sentinel(n, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "netmail").startswith(address)
            and self._sentinel(n, "SENTINEL", "CKQUORUM", "netmail").startswith("OK 3 usable")
            for n in range(3)
        )
        info = self.release.kubectl(
            "exec", primary, "--", "redis-cli", "-a", PASSWORD, "--no-auth-warning",
            *("INFO", "replication"), timeout=20,
        )  # fmt: skip
        return agree and "role:master" in info and "state=online" in info

    def _address(self, pod: str) -> str:
        """Of the Service of that pod. Raises: CommandFailed."""
        return str(self.release.get("service", pod)["spec"]["clusterIP"])

    def _sentinel(self, number: int, *words: str) -> str:
        return self.release.kubectl(
            "exec", f"sentinel-{number}", "--", "redis-cli", "-p", "26379", *words, timeout=20
        )


def is_ready(thing: Any) -> bool:
    """A pod, or a node, says that it is ready."""
    conditions = thing["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _patiently(true: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return true()
        except (CommandFailed, KeyError, IndexError, ValueError):
            return False

    return look


def new_tag(cluster: Cluster, tag: str) -> str:
    """The images of the agents under another tag, as a new release brings them.

    Raises: CommandFailed.
    """
    new = os.environ.get("NETMAIL_NEW_IMAGE_TAG", "")
    if new or not cluster.is_own:
        return new or tag
    for number in cluster.nodes():
        for name in ("connmgr", "smtp", "pop-imap", "nmap", "cli"):
            image = f"docker.io/netmail/{name}:{tag}"
            cluster.do(
                "node", "exec", str(number),
                *("ctr", "-n", "k8s.io", "images", "tag", "--force", image, f"{image}-new"),
            )  # fmt: skip
    return f"{tag}-new"
