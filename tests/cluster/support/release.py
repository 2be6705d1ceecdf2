"""A release of the chart in a namespace of its own with restricted Pod Security."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.support.cluster import Cluster, CommandFailed
from tests.support.waiting import eventually

_OWN_CHART = Path(__file__).resolve().parents[3] / "helm/netmail"
CHART = Path(os.environ.get("NETMAIL_CHART", _OWN_CHART))
USERS = {"alice": "wonderland", "bob": "builder"}
"""The users that are there from the beginning, and their passwords."""
DOMAIN = "example.org"
TAG = os.environ.get("NETMAIL_IMAGE_TAG", "dev")
KEEP = os.environ.get("NETMAIL_KEEP_NAMESPACE") == "1"
"""What is there is used, and left there: for working on the tests."""


def image_values(tag: str = TAG, *, only: Sequence[str] = ()) -> dict[str, Any]:
    """Values that choose the images' tag.

    Args:
        only: these charts; the others have the tag `NETMAIL_IMAGE_TAG`, or `dev`.
    """
    charts = ("connmgr", "smtp", "pop-imap", "nmap", "cli")
    return {
        chart: {"image": {"tag": tag if not only or chart in only else TAG}} for chart in charts
    }


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Values merged as Helm does: the later wins, lists are replaced."""
    result: dict[str, Any] = {}
    for one in values:
        for key, value in one.items():
            old = result.get(key)
            both = isinstance(old, dict) and isinstance(value, Mapping)
            result[key] = merged(old or {}, value) if both else value
    return result


def default_values() -> dict[str, Any]:
    """What `make cluster-install` says: the domain, two users, the images' tag."""
    return merged(
        image_values(),
        {
            "domain": DOMAIN,
            "initialUsers": [{"name": n, "password": p} for n, p in USERS.items()],
        },
    )


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the API server last saw it."""

    name: str
    node: str
    address: str
    ready: bool
    phase: str
    ending: bool


@dataclass(slots=True)
class Release:
    """A release that is, or was, installed."""

    cluster: Cluster
    namespace: str
    name: str = "netmail"

    def install(
        self, values: Mapping[str, Any], *flags: str, files: Sequence[Path] = (), wait: bool = True,
        timeout: str = "5m",
    ) -> str:  # fmt: skip
        """`helm upgrade --install`; what it prints. Raises: CommandFailed."""
        given = [word for file in files for word in ("--values", str(file))]
        waiting = ["--wait", "--timeout", timeout] if wait else []
        return self.cluster.helm(
            "upgrade", "--install", self.name, str(CHART), "--namespace", self.namespace,
            *given, "--values", "-", *waiting, *flags, stdin=json.dumps(values),
        )  # fmt: skip

    def is_deployed(self) -> bool:
        """There is one, and its last installation or upgrade went well."""
        listed = self.helm("list", "--deployed", "--output", "json")
        return any(one["name"] == self.name for one in json.loads(listed))

    def uninstall(self) -> None:
        """`helm uninstall --wait`. Raises: CommandFailed."""
        self.cluster.helm("uninstall", self.name, "--namespace", self.namespace, "--wait")

    def sweep_away(self) -> None:
        """Removes it without letting its pods finish what they are at: nobody needs it any more."""
        with suppress(CommandFailed):
            self.helm("uninstall", self.name, "--no-hooks")
            self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")

    def helm(self, *argv: str) -> str:
        """helm in this namespace. Raises: CommandFailed."""
        return self.cluster.helm(*argv, "--namespace", self.namespace)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 120) -> str:
        """kubectl in this namespace. Raises: CommandFailed."""
        return self.cluster.kubectl("-n", self.namespace, *argv, stdin=stdin, timeout=timeout)

    def make_secret(self, name: str, data: Mapping[str, str]) -> None:
        """A Secret of this namespace, made or changed. Raises: CommandFailed."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", stdin=json.dumps({**secret, "stringData": data}))

    def get(self, *argv: str) -> Any:
        """`kubectl get ... -o json` in this namespace. Raises: CommandFailed."""
        return self.cluster.get("-n", self.namespace, *argv)

    def netmail(self, *argv: str, timeout: float = 120) -> str:
        """The `netmail` command in the installation's own pod for it. Raises: CommandFailed."""
        return self.kubectl(
            "exec", f"deploy/{self.name}-cli", "--", "netmail", *argv, timeout=timeout
        )

    def address(self, component: str) -> str:
        """The load balancer's address of a public Service: smtp, pop-imap."""

        def look() -> str:
            status = self.get("service", f"{self.name}-{component}")["status"]
            ingress = status.get("loadBalancer", {}).get("ingress") or [{}]
            return str(ingress[0].get("ip", ""))

        return eventually(look, 60)

    def pods(self, component: str) -> list[Pod]:
        """The pods of a component: smtp, deliver, pop-imap, connmgr, nmap, cli."""
        items = self.get("pods", "-l", self.selector(component))["items"]
        return [_pod(item) for item in items]

    def ready_pods(self, component: str) -> list[Pod]:
        """Those that serve, as soon as there is one."""
        return eventually(
            lambda: [pod for pod in self.pods(component) if pod.ready and not pod.ending], 120
        )

    def selector(self, component: str) -> str:
        """The labels of a component's pods."""
        return f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"

    def workload(self, component: str) -> str:
        """The component's Deployment or StatefulSet, as `kind/name`."""
        found = self.kubectl("get", "deployments,statefulsets", "-o", "name", "-l",
                             self.selector(component))  # fmt: skip
        (name,) = found.split()
        return name

    def scale(self, component: str, replicas: int, within: float = 180) -> None:
        """Scales a component and waits until exactly so many pods are ready."""
        self.kubectl("scale", self.workload(component), f"--replicas={replicas}")
        self.wait_for(component, replicas, within)

    def wait_for(self, component: str, replicas: int, within: float = 180) -> None:
        """Waits until a component has so many pods, all ready, and none that ends."""

        def settled() -> bool:
            pods = self.pods(component)
            return len(pods) == replicas and all(p.ready and not p.ending for p in pods)

        eventually(settled, within, pause=0.5)

    def rollout(self, component: str, within: int = 300) -> None:
        """Waits until a component's newest version is rolled out. Raises: CommandFailed."""
        self.kubectl("rollout", "status", self.workload(component), f"--timeout={within}s",
                     timeout=within + 10)  # fmt: skip

    def logs(self, component: str, *flags: str) -> str:
        """The last lines of a component's pods."""
        return self.kubectl("logs", "-l", self.selector(component), "--tail=200", "--prefix",
                            "--all-containers", *flags)  # fmt: skip

    def describe(self) -> str:
        """What to print when a test fails: pods and the latest events."""
        pods = self.kubectl("get", "pods", "-o", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp").splitlines()
        return "\n".join([pods, *events[-15:]])


def _pod(item: Any) -> Pod:
    conditions = item["status"].get("conditions", [])
    return Pod(
        name=item["metadata"]["name"],
        node=item["spec"].get("nodeName", ""),
        address=item["status"].get("podIP", ""),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        phase=item["status"].get("phase", ""),
        ending="deletionTimestamp" in item["metadata"],
    )


@contextmanager
def namespace(
    cluster: Cluster, name: str, labels: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A namespace of restricted Pod Security that is new, and gone afterwards."""
    if not KEEP:
        cluster.kubectl("delete", "namespace", name, "--ignore-not-found", timeout=180)
    enforced = {"pod-security.kubernetes.io/enforce": "restricted", **(labels or {})}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforced}}
    )
    try:
        yield name
    finally:
        if not KEEP:
            cluster.kubectl("delete", "namespace", name, timeout=180)


@contextmanager
def release(
    cluster: Cluster, namespace_name: str, values: Mapping[str, Any] | None = None, *flags: str,
    files: Sequence[Path] = (), labels: Mapping[str, str] | None = None,
) -> Iterator[Release]:  # fmt: skip
    """Installs the chart into a new namespace; removes both afterwards.

    Args:
        values: over `default_values()`.
        files: values files below them.
    """
    with namespace(cluster, namespace_name, labels):
        made = Release(cluster, namespace_name)
        try:
            if not (KEEP and made.is_deployed()):
                made.install(merged(default_values(), values or {}), *flags, files=files)
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n{made.describe()}") from None
        try:
            yield made
        finally:
            if not KEEP:
                made.sweep_away()
