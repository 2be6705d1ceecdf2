"""Meshes: labels, annotations and policies for each mode, and what is refused."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import HelmError
from netmail_common.config import Installation, parse_config
from netmail_common.grpc_security import security_of
from netmail_common.mesh import MeshIdentity
from netmail_common.roles import METHOD_ROLES, Role

from tests.helm.rendering import ROOT, Rendered, render
from tests.support.service_accounts import ACCOUNTS

PUBLIC = {"netmail-smtp": "7780,2525,2587,2465", "netmail-pop-imap": "7780,2110,2995,2143,2993"}
OUTSIDE = {
    "istio": {"sidecar.istio.io/inject": "false"},
    "istio-ambient": {"istio.io/dataplane-mode": "none"},
    "linkerd": {"linkerd.io/inject": "disabled"},
}
WORKLOADS = {
    "netmail-connmgr": "StatefulSet",
    "netmail-nmap": "StatefulSet",
    "netmail-smtp": "Deployment",
    "netmail-deliver": "Deployment",
    "netmail-pop-imap": "Deployment",
    "netmail-cli": "Deployment",
}


@functools.cache
@functools.cache
def meshed(mode: str, security: str = "mtls", balancing: str = "headless") -> Rendered:
    return render(values(mode, security, balancing))


def values(mode: str, security: str, balancing: str) -> dict[str, Any]:
    grpc = {"security": security, "loadBalancing": balancing}
    return {"domain": "example.org", "global": {"mesh": {"mode": mode}, "grpc": grpc}}


def pods(rendered: Rendered) -> dict[str, dict[str, Any]]:
    return {
        name: rendered.object(kind, name)["spec"]["template"] for name, kind in WORKLOADS.items()
    }


def annotations(rendered: Rendered) -> dict[str, dict[str, str]]:
    return {name: pod["metadata"].get("annotations", {}) for name, pod in pods(rendered).items()}


def configuration(rendered: Rendered) -> Installation:
    text = rendered.object("ConfigMap", "netmail-config")["data"]["netmail.yaml"]
    return parse_config(yaml.safe_load(text))


def of_mesh(rendered: Rendered) -> set[tuple[str, str]]:
    groups = {"security.istio.io", "networking.istio.io", "policy.linkerd.io"}
    return {
        (one["kind"], one["metadata"]["name"])
        for one in rendered.objects
        if one["apiVersion"].partition("/")[0] in groups
    }


def test_without_a_mesh_there_is_no_trace_of_one() -> None:
    rendered = render({"domain": "example.org"})
    assert not of_mesh(rendered)
    text = "".join(rendered.texts.values())
    for word in ("istio", "linkerd"):
        assert word not in text


@pytest.mark.parametrize("security", ["mtls", "mesh"])
def test_istio_every_pod_has_a_sidecar_that_public_listeners_stay_out_of(security: str) -> None:
    rendered = meshed("istio", security)
    for name, pod in pods(rendered).items():
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "true", name
        found = annotations(rendered)[name]
        assert found["sidecar.istio.io/nativeSidecar"] == "true"
        outside = found["traffic.sidecar.istio.io/excludeInboundPorts"]
        assert outside == PUBLIC.get(name, "7780")
    out = {
        n: a.get("traffic.sidecar.istio.io/excludeOutboundPorts")
        for n, a in annotations(rendered).items()
    }
    assert out.pop("netmail-deliver") == "25,465,587"
    assert set(out.values()) == {None}


@pytest.mark.parametrize("security", ["mtls", "mesh"])
def test_istio_takes_nothing_but_mutual_tls_and_speaks_plain_text_to_public_services(
    security: str,
) -> None:
    rendered = meshed("istio", security)
    for name in WORKLOADS:
        authentication = rendered.object("PeerAuthentication", name)["spec"]
        assert authentication["mtls"] == {"mode": "STRICT"}
        selector = authentication["selector"]["matchLabels"]
        assert selector.items() <= pods(rendered)[name]["metadata"]["labels"].items()
    rules = {one["metadata"]["name"]: one["spec"] for one in rendered.of_kind("DestinationRule")}
    modes = {name: rule["trafficPolicy"]["tls"]["mode"] for name, rule in rules.items()}
    assert modes == {
        "netmail-connmgr": "ISTIO_MUTUAL",
        "netmail-nmap": "ISTIO_MUTUAL",
        "netmail-smtp": "DISABLE",
        "netmail-pop-imap": "DISABLE",
    }
    assert rules["netmail-nmap"]["trafficPolicy"]["tls"]["subjectAltNames"] == [
        "spiffe://cluster.local/ns/netmail/sa/netmail-nmap"
    ]


def istio_leave(rendered: Rendered, name: str) -> dict[str, set[str]]:
    """Method to principals, of the policy that lets calls through; a method of "" is any."""
    policy = rendered.object("AuthorizationPolicy", name)["spec"]
    assert policy["action"] == "ALLOW"
    found: dict[str, set[str]] = {}
    for rule in policy.get("rules", ()):
        ((source,), (to,)) = rule["from"], rule["to"]
        for path in to["operation"].get("paths", [""]):
            found.setdefault(path, set()).update(source["source"]["principals"])
    return found


def test_istio_enforces_the_table_of_roles_by_service_account_and_method() -> None:
    rendered = meshed("istio", "mesh")
    leave = {
        **istio_leave(rendered, "netmail-connmgr"),
        **istio_leave(rendered, "netmail-nmap"),
    }
    assert leave == {
        method: {f"cluster.local/ns/netmail/sa/netmail-{ACCOUNTS[role]}" for role in roles}
        for method, roles in METHOD_ROLES.items()
    }
    accounts = {pod["spec"]["serviceAccountName"]: name for name, pod in pods(rendered).items()}
    assert accounts == {name: name for name in WORKLOADS}


def test_istio_sees_connections_only_inside_our_own_tls_and_allows_them_by_account() -> None:
    rendered = meshed("istio")
    account = "cluster.local/ns/netmail/sa/netmail-"
    assert istio_leave(rendered, "netmail-nmap") == {
        "": {f"{account}{one}" for one in ("smtp", "deliver", "pop-imap", "cli")}
    }
    assert istio_leave(rendered, "netmail-connmgr") == {
        "": {f"{account}{one}" for one in ("smtp", "pop-imap", "nmap", "cli", "connmgr")}
    }


@pytest.mark.parametrize("security", ["mtls", "mesh"])
def test_nobody_calls_agents_that_serve_no_grpc(security: str) -> None:
    rendered = meshed("istio", security)
    for name in ("netmail-smtp", "netmail-deliver", "netmail-pop-imap", "netmail-cli"):
        assert istio_leave(rendered, name) == {}


@pytest.mark.parametrize(
    ("mode", "security", "name", "protocol"),
    [
        ("none", "mtls", "grpc", "grpc"),
        ("istio", "mtls", "tcp-grpc", "tcp"),
        ("istio", "mesh", "grpc", "grpc"),
        ("istio-ambient", "mtls", "tcp-grpc", "tcp"),
        ("linkerd", "mtls", "tcp-grpc", "tcp"),
        ("linkerd", "mesh", "grpc", "grpc"),
    ],
)
def test_a_port_is_called_what_the_mesh_sees_on_it(
    mode: str, security: str, name: str, protocol: str
) -> None:
    rendered = meshed(mode, security)
    for service in ("netmail-connmgr", "netmail-nmap"):
        (port,) = rendered.object("Service", service)["spec"]["ports"]
        assert (port["name"], port["appProtocol"], port["targetPort"]) == (name, protocol, "grpc")
    for port in rendered.object("Service", "netmail-smtp")["spec"]["ports"]:
        assert port.get("appProtocol") == (None if mode == "none" else "tcp")


def test_with_mesh_balancing_the_service_has_an_address() -> None:
    headless = meshed("istio", "mesh").object("Service", "netmail-nmap")["spec"]
    assert headless["clusterIP"] == "None"
    assert (
        "clusterIP" not in meshed("istio", "mesh", "mesh").object("Service", "netmail-nmap")["spec"]
    )


def test_agents_know_each_other_by_the_meshs_names_and_need_no_certificates() -> None:
    for mode, proxy in (("istio", "istio"), ("linkerd", "linkerd")):
        rendered = meshed(mode, "mesh")
        installed = configuration(rendered)
        assert installed.grpc.mesh is not None
        assert installed.grpc.mesh.proxy == proxy
        security = security_of(MeshIdentity(Role.NMAP, installed.grpc.mesh), "netmail")
        for role in Role:
            (found,) = security.names_of(role)
            assert f"netmail-{ACCOUNTS[role]}" in found.decode()
        for name, pod in pods(rendered).items():
            assert "grpc" not in {volume["name"] for volume in pod["spec"]["volumes"]}, name


def test_linkerd_ports_are_skipped_or_opaque() -> None:
    found = annotations(meshed("linkerd"))
    for name in WORKLOADS:
        assert found[name]["linkerd.io/inject"] == "enabled"
        assert found[name]["config.linkerd.io/skip-inbound-ports"] == PUBLIC.get(name, "7780")
    assert found["netmail-deliver"]["config.linkerd.io/skip-outbound-ports"] == "25,465,587"
    assert found["netmail-nmap"]["config.linkerd.io/opaque-ports"] == "7710"
    service = meshed("linkerd").object("Service", "netmail-nmap")["metadata"]
    assert service["annotations"]["config.linkerd.io/opaque-ports"] == "7710"
    public = meshed("linkerd").object("Service", "netmail-smtp")["metadata"]["annotations"]
    assert public["config.linkerd.io/opaque-ports"] == "25,587,465"
    assert (
        "config.linkerd.io/opaque-ports"
        not in annotations(meshed("linkerd", "mesh"))["netmail-nmap"]
    )


def test_linkerd_enforces_the_table_of_roles_by_service_account_and_method() -> None:
    rendered = meshed("linkerd", "mesh")
    suffix = ".netmail.serviceaccount.identity.linkerd.cluster.local"
    leave: dict[str, set[str]] = {}
    for route in rendered.of_kind("GRPCRoute"):
        name = route["metadata"]["name"]
        policy = rendered.object("AuthorizationPolicy", name)["spec"]
        assert (policy["targetRef"]["kind"], policy["targetRef"]["name"]) == ("GRPCRoute", name)
        (reference,) = policy["requiredAuthenticationRefs"]
        identities = rendered.object("MeshTLSAuthentication", reference["name"])["spec"][
            "identities"
        ]
        for rule in route["spec"]["rules"]:
            for match in rule["matches"]:
                method = f"/{match['method']['service']}/{match['method']['method']}"
                leave.setdefault(method, set()).update(identities)
    assert leave == {
        method: {f"netmail-{ACCOUNTS[role]}{suffix}" for role in roles}
        for method, roles in METHOD_ROLES.items()
    }
    for server in rendered.of_kind("Server"):
        assert (server["spec"]["proxyProtocol"], server["spec"]["accessPolicy"]) == ("gRPC", "deny")


def test_linkerd_lets_connections_through_by_account_inside_our_own_tls() -> None:
    rendered = meshed("linkerd")
    assert rendered.object("Server", "netmail-nmap")["spec"]["proxyProtocol"] == "opaque"
    policy = rendered.object("AuthorizationPolicy", "netmail-nmap")["spec"]
    assert policy["targetRef"]["kind"] == "Server"
    identities = rendered.object("MeshTLSAuthentication", "netmail-nmap")["spec"]["identities"]
    assert {one.partition(".")[0] for one in identities} == {
        "netmail-smtp", "netmail-deliver", "netmail-pop-imap", "netmail-cli",
    }  # fmt: skip


def test_ambient_pods_with_public_listeners_leave_the_mesh_and_others_still_answer_them() -> None:
    rendered = meshed("istio-ambient")
    found = {
        n: p["metadata"]["labels"]["istio.io/dataplane-mode"] for n, p in pods(rendered).items()
    }
    assert {name for name, mode in found.items() if mode == "none"} == set(PUBLIC)
    assert {mode for name, mode in found.items() if name not in PUBLIC} == {"ambient"}
    for name in ("netmail-connmgr", "netmail-nmap"):
        authentication = rendered.object("PeerAuthentication", name)["spec"]
        assert authentication["mtls"] == {"mode": "PERMISSIVE"}
    assert configuration(rendered).grpc.security == "mtls"


def test_xds_clients_learn_the_pods_from_istio_and_have_no_sidecar() -> None:
    rendered = meshed("istio", "mtls", "xds")
    installed = configuration(rendered)
    (server,), (manager,) = installed.messaging_servers, installed.connection_managers
    assert server.nmap.target == "xds:///netmail-nmap.netmail.svc.cluster.local:7710"
    assert manager.target == "xds:///netmail-connmgr.netmail.svc.cluster.local:7700"
    for service in ("netmail-connmgr", "netmail-nmap"):  # Istio makes no routes for TCP
        (port,) = rendered.object("Service", service)["spec"]["ports"]
        assert (port["name"], port["appProtocol"]) == ("grpc", "grpc")
    for name, found in annotations(rendered).items():
        assert found["inject.istio.io/templates"] == "grpc-agent", name
    assert not {kind for kind, _ in of_mesh(rendered)} & {
        "PeerAuthentication",
        "AuthorizationPolicy",
    }


@pytest.mark.parametrize("security", ["mtls", "mesh"])
def test_what_helm_test_runs_calls_by_its_proxy_and_is_a_mail_client_beside_it(
    security: str,
) -> None:
    rendered = meshed("istio", security)
    pod = rendered.object("Pod", "netmail-test-roundtrip")
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    assert pod["spec"]["serviceAccountName"] == "netmail-cli"
    marks = pod["metadata"]["annotations"]
    assert marks["helm.sh/hook"] == "test"
    assert "25" in marks["traffic.sidecar.istio.io/excludeInboundPorts"].split(",")
    outside = set(marks["traffic.sidecar.istio.io/excludeOutboundPorts"].split(","))
    assert {"25", "587", "995", "993"} <= outside
    assert not {"7700", "7710"} & outside
    egress = rendered.object("NetworkPolicy", "netmail-test")["spec"]["egress"]
    assert 15012 in {port["port"] for rule in egress for port in rule["ports"]}


def test_helm_test_has_no_pod_where_its_proxy_would_never_end() -> None:
    assert not meshed("istio", "mtls", "xds").of_kind("Pod")


@pytest.mark.parametrize("mode", ["istio", "istio-ambient", "linkerd"])
def test_jobs_stay_outside_whatever_the_namespace_says(mode: str) -> None:
    stores = {"nmap": {"postgresql": {"existingSecret": "database"}}}
    rendered = render({**values(mode, "mtls", "headless"), **stores})
    jobs = [one["spec"]["template"] for one in rendered.objects if one["kind"] == "Job"]
    jobs += [
        one["spec"]["jobTemplate"]["spec"]["template"]
        for one in rendered.objects
        if one["kind"] == "CronJob"
    ]
    assert len(jobs) == 4
    for job in jobs:
        metadata = job["metadata"]
        marks = {**metadata["labels"], **metadata.get("annotations", {})}
        assert OUTSIDE[mode].items() <= marks.items(), marks


@pytest.mark.parametrize(("mode", "ports"), [("istio", {15012}), ("linkerd", {8080, 8086, 8090})])
def test_proxies_reach_their_control_plane(mode: str, ports: set[int]) -> None:
    rendered = meshed(mode)
    for name in WORKLOADS:
        rules = rendered.object("NetworkPolicy", name)["spec"]["egress"]
        found = [rule for rule in rules if "namespaceSelector" in (rule.get("to") or [{}])[0]]
        ((rule,),) = (found,)
        assert {port["port"] for port in rule["ports"]} == ports


@pytest.mark.parametrize(("mode", "port"), [("linkerd", 4143), ("istio-ambient", 15008)])
def test_what_proxies_say_to_each_other_passes_the_network_policies(mode: str, port: int) -> None:
    rendered = meshed(mode)
    nmap = rendered.object("NetworkPolicy", "netmail-nmap")["spec"]["ingress"]
    assert any({7710, port} <= {one["port"] for one in rule["ports"]} for rule in nmap)
    deliver = rendered.object("NetworkPolicy", "netmail-deliver")["spec"]["egress"]
    assert any({7710, port} <= {one["port"] for one in rule["ports"]} for rule in deliver)


@pytest.mark.parametrize(
    ("mode", "security", "balancing", "more", "words"),
    [
        ("none", "mesh", "headless", {}, "needs global.mesh.mode istio or linkerd"),
        ("istio-ambient", "mesh", "headless", {}, "needs global.mesh.mode istio or linkerd"),
        ("istio", "mtls", "mesh", {}, "sees no calls inside our own TLS"),
        ("none", "mtls", "xds", {}, "needs global.mesh.mode istio"),
        ("linkerd", "mtls", "xds", {}, "needs global.mesh.mode istio"),
        ("istio", "mesh", "xds", {}, "needs global.grpc.security mtls"),
        (
            "istio",
            "mesh",
            "headless",
            {"smtp": {"serviceAccount": {"name": "mail"}}},
            "leave smtp.serviceAccount.name empty",
        ),
    ],
)
def test_what_would_be_open_or_could_not_work_is_refused_in_words(
    mode: str, security: str, balancing: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(HelmError, match=words):
        render({**values(mode, security, balancing), **more})


def test_the_table_of_methods_is_the_agents_own() -> None:
    tool = Path(ROOT).parent / "methods.py"
    checked = subprocess.run(
        [sys.executable, tool, "--check"], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
