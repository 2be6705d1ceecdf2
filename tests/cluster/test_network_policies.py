"""Who must talk to whom can, nobody else: also not with the right labels in another namespace."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.cluster.conftest import NAMESPACE
from tests.cluster.support import Cluster, Outside, Release
from tests.cluster.support.release import TAG, namespace
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

_ALLOWED = {
    ("smtp", "nmap"), ("smtp", "connmgr"), ("deliver", "nmap"), ("pop-imap", "nmap"),
    ("pop-imap", "connmgr"), ("nmap", "connmgr"), ("cli", "nmap"), ("cli", "connmgr"),
}  # fmt: skip
"""Component of the caller, and of the one that is called by gRPC."""
_GRPC = {"nmap": 7710, "connmgr": 7700}
_LISTENERS = {"smtp": (2525, 2587, 2465), "pop-imap": (2110, 2995, 2143, 2993)}
_CALLERS = ("smtp", "deliver", "pop-imap", "nmap", "connmgr", "cli")
_KNOCK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def knock(where):
    try:
        socket.create_connection(tuple(where), 6).close()
    except OSError:
        return False
    return True

targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(knock, targets))))
"""
"""A stranger on the network, in the image of `netmail`: which (address, port) take a connection?"""


@pytest.fixture(scope="module")
def targets(installed: Release) -> dict[tuple[str, int], tuple[str, int]]:
    """By (component, port), the address of one of its pods and that port."""
    ports = {"nmap": (7710,), "connmgr": (7700,), **_LISTENERS}
    return {
        (component, port): (installed.ready_pods(component)[0].address, port)
        for component, several in ports.items()
        for port in several
    }


def knocker(component: str, release: str = "netmail") -> dict[str, Any]:
    """A pod that waits, with the labels of a component."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"knock-{component}",
            "labels": {
                "app.kubernetes.io/name": "netmail",
                "app.kubernetes.io/instance": release,
                "app.kubernetes.io/component": component,
            },
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # Never ready: no Service sends it what is for the component's own pods.
            "containers": [{
                "name": "knock", "image": f"netmail/cli:{TAG}", "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-c", "import time; time.sleep(3600)"],
                "readinessProbe": {"tcpSocket": {"port": 1}},
                "securityContext": secure,
            }],
        },
    }  # fmt: skip


def running_knocker(cluster: Cluster, where: str, component: str) -> None:
    """Starts it and waits until it runs."""
    pod = knocker(component)
    pod["metadata"]["namespace"] = where
    cluster.apply(pod)

    def runs() -> bool:
        status = cluster.get("-n", where, "pod", pod["metadata"]["name"])["status"]
        return bool(status.get("phase") == "Running")

    eventually(runs, 120)


def knock(
    cluster: Cluster, where: str, component: str, targets: dict[tuple[str, int], tuple[str, int]]
) -> set[tuple[str, int]]:
    """What the pod gets a connection to."""
    printed = cluster.kubectl(
        "-n", where, "exec", f"knock-{component}", "--", "python3", "-c", _KNOCK,
        json.dumps(list(targets.values())),
    )  # fmt: skip
    return {name for name, open_ in zip(targets, json.loads(printed), strict=True) if open_}


@pytest.fixture(scope="module")
def knockers(cluster: Cluster, installed: Release) -> Iterator[str]:
    """In the installation's own namespace a pod with the labels of each component."""
    for component in (*_CALLERS, "stranger"):
        running_knocker(cluster, installed.namespace, component)
    yield installed.namespace
    installed.kubectl(
        "delete", "pod", "--wait=false", *(f"knock-{c}" for c in (*_CALLERS, "stranger"))
    )


@pytest.mark.parametrize("component", _CALLERS)
def test_an_agent_can_talk_to_whom_it_must_and_to_no_other_agent(
    cluster: Cluster, knockers: str, targets: dict[tuple[str, int], tuple[str, int]], component: str
) -> None:
    wanted = {(called, _GRPC[called]) for caller, called in _ALLOWED if caller == component}
    # A policy may reach its node a moment after the pod.
    with suppress(AssertionError):
        eventually(lambda: knock(cluster, knockers, component, targets) == wanted, 20)
    assert knock(cluster, knockers, component, targets) == wanted


def test_a_pod_of_nobody_reaches_the_public_listeners_only(
    cluster: Cluster, knockers: str, targets: dict[tuple[str, int], tuple[str, int]]
) -> None:
    public = {(component, port) for component, ports in _LISTENERS.items() for port in ports}
    assert knock(cluster, knockers, "stranger", targets) == public


def test_the_right_labels_in_the_wrong_namespace_open_nothing_more(
    cluster: Cluster, installed: Release, targets: dict[tuple[str, int], tuple[str, int]]
) -> None:
    public = {(component, port) for component, ports in _LISTENERS.items() for port in ports}
    with namespace(cluster, f"{NAMESPACE}-elsewhere") as where:
        for component in ("smtp", "pop-imap", "cli"):
            running_knocker(cluster, where, component)
        for component in ("smtp", "pop-imap", "cli"):
            assert knock(cluster, where, component, targets) == public


def test_only_deliver_gets_out_and_only_to_mail_ports(
    cluster: Cluster, knockers: str, hosts: list[Outside]
) -> None:
    outside = hosts[0]
    with outside.listen(25), outside.listen(8080):
        there = {("outside", port): (outside.address, port) for port in (25, 8080)}
        reached = {component: knock(cluster, knockers, component, there) for component in _CALLERS}
    assert reached == {
        component: {("outside", 25)} if component == "deliver" else set() for component in _CALLERS
    }
