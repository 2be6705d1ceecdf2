"""Agents scale, and their pods die, under load: nothing that was acknowledged is lost."""

import time

import pytest

from tests.cluster.support import Cluster, Outside, Release, Sink, SteadyLoad
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)


def test_each_agent_scales_to_three_and_back_under_load_without_a_lost_message(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    with SteadyLoad(installed, sink, hosts) as load:
        load.wait_for(3)
        for component in ("smtp", "pop-imap", "deliver"):
            began = time.monotonic()
            installed.scale(component, 3)
            up = time.monotonic()
            load.wait_for(5)
            installed.scale(component, 1)
            load.wait_for(5)
            print(f"\n{component} 1 -> 3 in {up - began:.1f} s, and back: {load.gaps(began)}")
            print(f"  clients saw {load.troubles(began)}")
    finding = load.check()
    print(f"  {finding}; refused strangers: {len(load.strangers.successes)}")


KILLED = ("smtp", "pop-imap", "deliver", "connmgr", "nmap")


def test_kill_9_of_each_agent_under_load_loses_no_message_and_opens_no_relay(
    cluster: Cluster, installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    with SteadyLoad(installed, sink, hosts) as load:
        load.wait_for(3)
        for component in KILLED:
            began = time.monotonic()
            kill(cluster, installed, component)
            load.wait_for(5, 240)
            print(f"\nkill -9 of {component}: seconds without service {load.gaps(began)}")
            print(f"  clients saw {load.troubles(began)}")
    finding = load.check()
    print(f"  {finding}; refused strangers: {len(load.strangers.successes)}")


def kill(cluster: Cluster, installed: Release, component: str) -> None:
    """SIGKILL to a pod's only process, from its node; the kubelet starts the container again."""
    pod = installed.ready_pods(component)[0]
    status = installed.get("pod", pod.name)["status"]["containerStatuses"][0]
    node = pod.node.removeprefix("node")
    container = status["containerID"].rpartition("//")[2]
    cluster.do(
        "node", "exec", node, "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container
    )

    def again() -> bool:
        now = installed.get("pod", pod.name)["status"]["containerStatuses"][0]
        return bool(now["restartCount"] > status["restartCount"] and now["ready"])

    eventually(again, 180)


def test_a_pod_that_is_deleted_lets_its_clients_finish(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    for component in ("smtp", "pop-imap"):
        installed.scale(component, 2)
    with SteadyLoad(installed, sink, hosts) as load:
        load.wait_for(3)
        for component in ("smtp", "pop-imap"):
            began = time.monotonic()
            installed.kubectl("delete", "pod", installed.ready_pods(component)[0].name)
            load.wait_for(5)
            print(f"\na pod of {component} deleted, one left: {load.gaps(began)}")
            print(f"  clients saw {load.troubles(began)}")
    print(f"  {load.check()}")
    for component in ("smtp", "pop-imap"):
        installed.scale(component, 1)
