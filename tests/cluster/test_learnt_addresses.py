"""The Connection Manager learns from a real API server which addresses are the cluster's own."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.support import Cluster, Release
from tests.cluster.support.doors import Doors
from tests.cluster.support.stages import ask_to_relay, pop3_login
from tests.cluster.test_doctor import about, doctor
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

CLIENT = "203.0.113.177"


@contextmanager
def another_node(cluster: Cluster, name: str, address: str) -> Iterator[None]:
    """A node that tells of an address, and on which nothing runs."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"unschedulable": True},
    }
    cluster.apply(node)
    try:
        status = {"status": {"addresses": [{"type": "ExternalIP", "address": address}]}}
        cluster.kubectl(
            "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status)
        )
        yield
    finally:
        cluster.kubectl("delete", "node", name, "--wait=false")


def test_nodes_and_services_are_learnt_and_what_cannot_be_is_said(
    cluster: Cluster, installed: Release
) -> None:
    nodes = cluster.get("nodes")["items"]
    addresses = [
        one["address"]
        for node in nodes
        for one in node["status"]["addresses"]
        if one["type"] == "InternalIP"
    ]
    services = cluster.get("servicecidrs")["items"][0]["spec"]["cidrs"]
    _, said = doctor(installed)
    lines = [one["said"] for one in about(said, "Connection Manager main")]
    (line,) = [one for one in lines if one.startswith("nodes never grant")]
    assert all(f"{address}/32" in line for address in addresses[:4])
    assert f"services never grant: {services[0]}" in lines
    with_ranges = all(node["spec"].get("podCIDR") for node in nodes)
    assert any(one.startswith("pods never grant") for one in lines) is with_ranges
    if not with_ranges:
        assert any(re.match(r"pods: no podCIDR at ", one) for one in lines)


def test_a_node_that_comes_takes_its_address_from_those_that_grant(
    cluster: Cluster, installed: Release
) -> None:
    host = cluster.outside(CLIENT)
    doors = Doors.of(installed)
    pop3_login(host, doors.pop3s, "alice")
    eventually(lambda: ask_to_relay(host, doors.smtp, "alice").startswith("250"), 30)
    with another_node(cluster, f"learnt-{installed.namespace}", CLIENT):
        eventually(lambda: not ask_to_relay(host, doors.smtp, "alice").startswith("250"), 60)
        pop3_login(host, doors.pop3s, "alice")
        assert not ask_to_relay(host, doors.smtp, "alice").startswith("250")
    listed = json.loads(installed.netmail("login", "list", "--json"))
    assert {one["grants"] for one in listed if one["client_address"] == CLIENT} <= {False}
