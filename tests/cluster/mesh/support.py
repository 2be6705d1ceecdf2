"""What the tests of the mesh share: releases in it, calls from the agents' pods, pods outside."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from netmail_common.roles import METHOD_ROLES, Role

from tests.cluster.support import Release, image_values
from tests.support.service_accounts import ACCOUNTS
from tests.support.waiting import eventually

PROBE = (Path(__file__).parent / "probe.py").read_text(encoding="utf-8")

OUTSIDER = "outsider"
NOT_SERVED = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}
"""Of the table, what gRPC for Python does not have: it serves v1alpha."""


class Answer(NamedTuple):
    """What came back of a call."""

    status: str
    message: str
    reason: str

    @property
    def by_mesh(self) -> bool:
        """Whether the mesh's proxy refused it."""
        return self.status == "PERMISSION_DENIED" and self.message.startswith("RBAC: access denied")

    @property
    def by_agent(self) -> bool:
        """Whether the agent refused it."""
        return self.status == "PERMISSION_DENIED" and self.reason == "ROLE_NOT_ALLOWED"


def agent_of(method: str) -> str:
    """Who serves a method; health and reflection stand for the NMAP agent's."""
    return "connmgr" if method.startswith("/netmail.connmgr.") else "nmap"


def methods(role: Role, *, allowed: bool) -> list[str]:
    """The methods that a role may, or may not, call."""
    return [name for name, roles in METHOD_ROLES.items() if (role in roles) == allowed]


def ask(
    release: Release, role: Role, names: Sequence[str], *, pod: str = "", seconds: float = 5,
    headers: Sequence[tuple[str, str]] = (),
) -> dict[str, Answer]:  # fmt: skip
    """Calls methods as ROLE, from its own pod unless another is named; with empty requests."""
    component = ACCOUNTS[role]
    where = (
        [f"pod/{pod}", "-c", OUTSIDER] if pod else [release.workload(component), "-c", component]
    )
    said = release.kubectl(
        "exec", "-i", *where, "--", "python3", "-", role.value, str(seconds),
        json.dumps([[name, agent_of(name)] for name in names]), json.dumps(list(headers)),
        stdin=PROBE, timeout=120 + seconds * len(names),
    )  # fmt: skip
    answers = json.loads(said.strip().splitlines()[-1])
    return {name: Answer(*answer) for name, answer in answers.items()}


@contextmanager
def outsider(release: Release, *, meshed: bool, security: str) -> Iterator[str]:
    """A pod in the release's namespace that is no agent's, with the administrator's certificate.

    Args:
        meshed: with a proxy and an account of its own, which no policy names.
        security: mesh: there are no certificates.
    """
    name = f"{OUTSIDER}-{'in' if meshed else 'out'}"
    release.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": release.namespace},
        },
        _pod(release, name, meshed=meshed, security=security),
    )
    try:
        release.kubectl(
            "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s", timeout=150
        )
        yield name
    finally:
        release.kubectl("delete", f"pod/{name}", f"serviceaccount/{name}", "--grace-period=1")


def _pod(release: Release, name: str, *, meshed: bool, security: str) -> dict[str, Any]:
    volumes: dict[str, Any] = {
        "config": {"configMap": {"name": f"{release.name}-config"}},
        "tmp": {"emptyDir": {}},
    }
    if security == "mtls":
        volumes["grpc"] = {"secret": {"secretName": f"{release.name}-grpc-admin"}}
    folders = {"config": "/etc/netmail/config", "grpc": "/etc/netmail/grpc", "tmp": "/tmp"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": release.namespace,
            "labels": {"sidecar.istio.io/inject": "true" if meshed else "false"},
        },
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": OUTSIDER,
                    "image": f"netmail/cli:{image_values()['cli']['image']['tag']}",
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": one, "mountPath": folders[one]} for one in volumes],
                }
            ],
            "volumes": [{"name": one, **source} for one, source in volumes.items()],
        },
    }


def open_network(release: Release) -> None:
    """Removes the NetworkPolicies, so that what is refused is refused by the mesh or the agents."""
    release.kubectl("delete", "networkpolicies", "--all")


def restarts_of_proxy(release: Release, component: str) -> int:
    """How often the proxies of a component's pods were started again."""
    items = release.get("pods", "-l", release.selector(component))["items"]
    return sum(
        status["restartCount"]
        for item in items
        for status in item["status"].get("initContainerStatuses", [])
        if status["name"] == "istio-proxy"
    )


def kill_proxy(release: Release, component: str) -> None:
    """Kills the proxy of a component's one pod, and waits until it was started again."""
    before = restarts_of_proxy(release, component)
    release.kubectl(
        "exec", release.workload(component), "-c", "istio-proxy", "--",
        "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)",
    )  # fmt: skip
    eventually(lambda: restarts_of_proxy(release, component) > before, 90)
