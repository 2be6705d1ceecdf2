"""Ways from the world to the listeners: Services, Gateways, ports of the nodes."""

from typing import Any

import pytest
from helm_python import HelmError

from tests.helm.rendering import ROOT, Rendered, render
from tests.helm.test_charts import HOST_PORTS, installable

DOMAIN = {"domain": "example.org"}
PORTS = {
    "smtp": {"smtp": 25, "submission": 587, "submissions": 465},
    "pop-imap": {"pop3": 110, "pop3s": 995, "imap": 143, "imaps": 993},
}
EVERY_PORT = PORTS["smtp"] | PORTS["pop-imap"]


def public_services(rendered: Rendered) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one["spec"]
        for one in rendered.of_kind("Service")
        if one["spec"].get("clusterIP") != "None"
    }


def ports_of(spec: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["port"] for one in spec["ports"]}


def container_ports(rendered: Rendered, agent: str) -> dict[str, dict[str, Any]]:
    spec = rendered.object("Deployment", f"netmail-{agent}")["spec"]["template"]["spec"]
    return {one["name"]: one for one in spec["containers"][0]["ports"]}


def test_one_service_for_all_leads_each_port_to_its_own_agent() -> None:
    rendered = render(installable(ROOT / "ci" / "shared-service-values.yaml"))
    ((name, spec),) = public_services(rendered).items()
    assert name == "netmail-mail"
    assert ports_of(spec) == EVERY_PORT
    # A pod without a port of that name is no endpoint of it.
    assert all(one["targetPort"] == one["name"] for one in spec["ports"])
    selected = {
        one["metadata"]["name"]
        for one in [*rendered.of_kind("Deployment"), *rendered.of_kind("StatefulSet")]
        if spec["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    }
    assert selected == {"netmail-smtp", "netmail-pop-imap"}
    assert not set(container_ports(rendered, "smtp")) & set(PORTS["pop-imap"])


def test_ports_of_the_nodes_need_no_service_and_one_pod_goes_before_the_next_comes() -> None:
    rendered = render(installable(HOST_PORTS))
    assert public_services(rendered) == {}
    for agent, ports in PORTS.items():
        held = container_ports(rendered, agent)
        assert {name: held[name]["hostPort"] for name in ports} == ports
        strategy = rendered.object("Deployment", f"netmail-{agent}")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_other_deployments_ask_for_no_port_of_a_node_and_lose_no_pod_to_an_upgrade() -> None:
    for one in render(DOMAIN).of_kind("Deployment"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert not any("hostPort" in port for port in container.get("ports", []))
        if one["metadata"]["name"] != "netmail-cli":
            assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_node_ports_are_those_of_the_file() -> None:
    services = public_services(render(installable(ROOT / "values-node-ports.yaml")))
    for spec in services.values():
        assert spec["externalTrafficPolicy"] == "Local"
        for port in spec["ports"]:
            assert str(port["nodePort"]).endswith(str(port["port"]))


def test_a_gateway_has_a_listener_and_a_route_for_each_port() -> None:
    rendered = render(installable(ROOT / "values-gateway-envoy.yaml"))
    listeners = rendered.object("Gateway", "netmail")["spec"]["listeners"]
    assert ports_of({"ports": listeners}) == EVERY_PORT
    services = public_services(rendered)
    found = {}
    for route in rendered.of_kind("TCPRoute"):
        (parent,) = route["spec"]["parentRefs"]
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert parent["name"] == "netmail"
        assert ports_of(services[backend["name"]])[parent["sectionName"]] == backend["port"]
        found[parent["sectionName"]] = backend["port"]
    assert found == EVERY_PORT
    with_header = {
        target["name"]
        for policy in rendered.of_kind("BackendTrafficPolicy")
        if policy["spec"]["proxyProtocol"]
        for target in policy["spec"]["targetRefs"]
    }
    assert with_header == {one["metadata"]["name"] for one in rendered.of_kind("TCPRoute")}


def test_other_gateways_can_be_named() -> None:
    rendered = render(installable(ROOT / "ci" / "gateway-istio-values.yaml"))
    assert not rendered.of_kind("Gateway")
    assert rendered.object("TCPRoute", "netmail-smtp-submission")["spec"]["parentRefs"] == [
        {"name": "public", "namespace": "istio-ingress", "sectionName": "submission"},
        {"name": "internal", "sectionName": "mail"},
    ]
    for agent in PORTS:
        rule = rendered.object("DestinationRule", f"netmail-{agent}")["spec"]
        assert rule["host"] == f"netmail-{agent}.netmail.svc.cluster.local"
        assert rule["trafficPolicy"]["proxyProtocol"] == {"version": "V2"}


ROUTES = {"gateway": {"enabled": True}}
SHARED = {"enabled": True, "externalTrafficPolicy": "Cluster"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"smtp": ROUTES}, "smtp.gateway.enabled hides"),
        ({"pop-imap": ROUTES}, "pop-imap.gateway.enabled hides"),
        ({"sharedService": SHARED}, "sharedService.externalTrafficPolicy Cluster"),
        ({"sharedService": {"enabled": True, "type": "ClusterIP"}}, "sharedService.type ClusterIP"),
        ({"gateway": {"create": True}}, "needs gateway.className"),
        ({"gateway": {"create": True, "className": "envoy"}}, "no listener"),
    ],
)
def test_a_way_that_hides_addresses_or_leads_nowhere_is_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(HelmError, match=words):
        render({**DOMAIN, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"smtpAfterPop": False, "smtp": ROUTES, "pop-imap": ROUTES},
        {
            "proxyProtocol": {"enabled": True, "trustedNetworks": ["192.0.2.7/32"]},
            "smtp": ROUTES,
            "pop-imap": ROUTES,
        },
    ],
)
def test_routes_are_made_where_the_address_is_not_needed_or_comes_otherwise(
    values: dict[str, Any],
) -> None:
    assert len(render({**DOMAIN, **values}).of_kind("TCPRoute")) == len(EVERY_PORT)


FRONT_ENDS = ROOT / "ci" / "front-ends-values.yaml"


def test_front_ends_have_a_service_that_keeps_the_address_and_a_route_for_each_port() -> None:
    rendered = render(installable(FRONT_ENDS))
    service = rendered.object("Service", "netmail-front-ends")["spec"]
    assert service["externalTrafficPolicy"] == "Local"
    assert {(one["name"], one["port"], one["protocol"]) for one in service["ports"]} == {
        ("legacy-udp", 689, "UDP"),
        ("postfix-policy", 10689, "TCP"),
    }
    (pod,) = (
        one["spec"]["template"]
        for one in rendered.of_kind("StatefulSet")
        if service["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    )
    held = {one["name"]: one for one in pod["spec"]["containers"][0]["ports"]}
    assert held["legacy-udp"]["protocol"] == "UDP"
    assert held["postfix-policy"]["containerPort"] == 10689
    policy = rendered.object("NetworkPolicy", "netmail-front-ends")["spec"]
    assert policy["podSelector"]["matchLabels"] == service["selector"]
    assert policy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "192.0.2.0/28"}}]
    (udp,) = rendered.of_kind("UDPRoute")
    assert udp["spec"]["rules"][0]["backendRefs"] == [{"name": "netmail-front-ends", "port": 689}]
    (tcp,) = rendered.of_kind("TCPRoute")
    assert tcp["metadata"]["name"] == "netmail-front-ends-postfix-policy"


def test_a_gateway_that_hides_who_asks_a_front_end_is_refused() -> None:
    values = installable(FRONT_ENDS)
    values["connmgr"]["frontEnds"]["gateway"]["keepsSourceAddress"] = False
    with pytest.raises(HelmError, match="knows by the address whom it may answer"):
        render(values)


def test_without_front_ends_there_is_no_way_to_them() -> None:
    names = {one["metadata"]["name"] for one in render(DOMAIN).objects}
    assert "netmail-front-ends" not in names
