"""An Istio Gateway with TCPRoutes: the client's address arrives, or nobody relays."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.mesh.conftest import mesh_values
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.gateways import PODS, gateway_address
from tests.cluster.support.release import default_values, merged, namespace
from tests.cluster.support.stages import ask_to_relay, forget_logins, play, pop3_login
from tests.cluster.test_doctor import about, doctor
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

LISTENERS = 7
OPTIONS = "gateway-options"
GATEWAY_PODS = {
    "podSelector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "netmail"}}
}


def gateway_values() -> dict[str, Any]:
    """Everything by the Gateway; the listeners take PROXY headers from its pods only."""
    public = {
        "service": {"type": "ClusterIP"},
        "gateway": {"enabled": True, "proxyProtocolBy": "istio"},
        "networkPolicy": {"clients": [GATEWAY_PODS]},
    }
    return {
        "proxyProtocol": {"enabled": True, "trustedNetworks": [PODS]},
        "gateway": {
            "create": True,
            "className": "istio",
            "infrastructure": {
                "parametersRef": {"group": "", "kind": "ConfigMap", "name": OPTIONS}
            },
        },
        "smtp": public,
        "pop-imap": public,
    }


def options(space: str, policy: str) -> dict[str, Any]:
    """What Istio reads of the Gateway's own Service."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": OPTIONS, "namespace": space},
        "data": {"service": f"spec: {{externalTrafficPolicy: {policy}}}"},
    }


@pytest.fixture(scope="module")
def behind(istio: Cluster, sink: Sink) -> Iterator[Release]:
    """A release whose public listeners are reached by a Gateway of Istio alone."""
    with namespace(istio, f"{NAMESPACE}-gateway") as space:
        istio.apply(options(space, "Local"))
        made = Release(istio, space)
        made.install(
            merged(default_values(), values_for(sink), mesh_values("mtls"), gateway_values()),
            "--timeout", "15m",
        )  # fmt: skip
        yield made
        made.uninstall()


def test_with_local_traffic_policy_the_six_stages_work(
    behind: Release, sink: Sink, hosts: list[Outside]
) -> None:
    play(behind, sink, *hosts[:3], doors=Doors.at(gateway_address(behind, LISTENERS)))
    levels = {one["level"] for one in about_gateway(behind)}
    assert levels == {"good"}


def about_gateway(release: Release) -> list[dict[str, Any]]:
    """What doctor says of the Gateway's own Service."""
    _, said = doctor(release)
    return about(said, f"Service {release.name}-istio of Gateway {release.name}")


def test_with_cluster_traffic_policy_a_nodes_address_arrives_and_nobody_relays(
    behind: Release, hosts: list[Outside]
) -> None:
    doors = Doors.at(gateway_address(behind, LISTENERS))
    forget_logins(behind)
    behind.cluster.apply(options(behind.namespace, "Cluster"))
    service = f"service/{behind.name}-istio"
    eventually(lambda: behind.get(service)["spec"]["externalTrafficPolicy"] == "Cluster", 60)
    nodes = {
        one["address"]
        for node in behind.cluster.get("nodes")["items"]
        for one in node["status"]["addresses"]
    }

    def known() -> dict[str, bool]:
        return {
            login["client_address"]: login["grants"]
            for login in json.loads(behind.netmail("login", "list", "--json"))
        }

    def by_a_node() -> bool:
        for host in hosts:
            pop3_login(host, doors.pop3s, "alice")
        return bool(set(known()) & nodes)

    eventually(by_a_node, 60)
    assert not any(grants for place, grants in known().items() if place in nodes)
    for place in set(known()) - nodes:
        behind.netmail("login", "revoke", "--address", place)
    for host in hosts:
        for _ in range(2):
            reply = ask_to_relay(host, doors.smtp, "alice")
            assert reply.startswith("550 5.7.1"), reply
    (said,) = about_gateway(behind)
    assert said["level"] == "bad"
    assert "a node may put its own address" in said["said"]
    assert "externalTrafficPolicy: Local" in said["do"]
