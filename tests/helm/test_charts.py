"""Charts: what they render is valid, restricted, and says no more and no less than its values."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from helm_python import HelmError

from tests.helm import custom_resources
from tests.helm.rendering import ROOT, Rendered, render

VERSIONS = ("1.32", "1.34", "1.36")
CI_FILES = sorted((ROOT / "ci").glob("*-values.yaml"))
PROFILES = sorted(ROOT.glob("values-*.yaml"))
"""Values files for operators; WITH_PROFILE is what they would add to them."""
SUBCHARTS = ("connmgr", "nmap", "smtp", "pop-imap")
DOMAIN = {"domain": "example.org"}
WITH_PROFILE = {
    "values-gateway-envoy": {
        "proxyProtocol": {"enabled": True, "trustedNetworks": ["10.244.0.0/16"]}
    },
}
HOST_PORTS = ROOT / "values-host-ports.yaml"


def values_of(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def installable(path: Path) -> dict[str, Any]:
    """A values file, and what an operator must add to it."""
    return {**DOMAIN, **values_of(path), **WITH_PROFILE.get(path.stem, {})}


def is_custom(one: dict[str, Any]) -> bool:
    """Whether its kind is an add-on's, not one of Kubernetes itself."""
    group = one["apiVersion"].rpartition("/")[0]
    own = "." not in group or group.endswith(".k8s.io")
    return not own or group == "gateway.networking.k8s.io"


@pytest.fixture(params=[*CI_FILES, *PROFILES], ids=lambda path: path.stem)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(installable(request.param))


def pod_specs(rendered: Rendered) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in rendered.objects:
        spec = one.get("spec", {})
        if one["kind"] == "Pod":
            yield f"Pod {one['metadata']['name']}", spec
        if one["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield f"{one['kind']} {one['metadata']['name']}", spec["template"]["spec"]


def test_there_are_ten_or_more_ways_to_set_it_up() -> None:
    assert len(CI_FILES) >= 10


def test_every_object_fits_the_schemas_of_kubernetes(rendered: Rendered) -> None:
    for one in rendered.objects:
        if is_custom(one):
            custom_resources.validate(one)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_custom_resource_that_no_api_server_would_take_is_found() -> None:
    (scaled, *_) = render(values_of(ROOT / "ci" / "keda-values.yaml")).of_kind("ScaledObject")
    for broken in (
        {**scaled, "spec": {**scaled["spec"], "maxReplica": 3}},
        {**scaled, "spec": {**scaled["spec"], "maxReplicaCount": "3"}},
        {**scaled, "spec": {}},
        {**scaled, "kind": "ScaledThing"},
    ):
        with pytest.raises(ValueError, match=r"ScaledObject|ScaledThing"):
            custom_resources.validate(broken)


def test_every_pod_is_restricted(rendered: Rendered) -> None:
    for name, spec in pod_specs(rendered):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert not spec.get("hostNetwork"), name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"]["drop"] == ["ALL"], name
            assert "requests" in container["resources"], name
        for volume in spec["volumes"]:
            assert not {"hostPath"} & set(volume), name


def test_names_are_unique_and_labels_are_everywhere(rendered: Rendered) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered.objects]
    assert len(names) == len(set(names))
    for one in rendered.objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "netmail", one


def test_no_agent_sees_the_key_of_the_ca_or_the_api(rendered: Rendered) -> None:
    for name, spec in pod_specs(rendered):
        secrets = [
            volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume
        ]
        assert not {"netmail-ca", "netmail-cert-manager-ca"} & set(secrets), name
        # Only those ask it that learn from it or look at objects.
        asks = {"netmail-connmgr", "netmail-cli"} & set(name.split())
        if "certificates" not in name and not asks:
            assert spec["automountServiceAccountToken"] is False, name


def test_each_agent_mounts_the_certificate_of_its_own_role_only() -> None:
    mounted = {
        name: [v["secret"]["secretName"] for v in spec["volumes"] if v["name"] == "grpc"]
        for name, spec in pod_specs(render(DOMAIN))
        if "certificates" not in name
    }
    assert mounted == {
        "StatefulSet netmail-connmgr": ["netmail-grpc-connmgr"],
        "StatefulSet netmail-nmap": ["netmail-grpc-nmap"],
        "Deployment netmail-smtp": ["netmail-grpc-smtp"],
        "Deployment netmail-deliver": ["netmail-grpc-deliver"],
        "Deployment netmail-pop-imap": ["netmail-grpc-pop-imap"],
        "Deployment netmail-cli": ["netmail-grpc-admin"],
        "Pod netmail-test-roundtrip": ["netmail-grpc-admin"],
    }


def test_every_pod_has_a_network_policy_that_denies_the_rest() -> None:
    rendered = render(DOMAIN)
    selected = [
        one["spec"]["podSelector"]["matchLabels"] for one in rendered.of_kind("NetworkPolicy")
    ]
    for kind in ("Deployment", "StatefulSet"):
        for workload in rendered.of_kind(kind):
            assert workload["spec"]["selector"]["matchLabels"] in selected
    for policy in rendered.of_kind("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_clients_address_survives_by_default() -> None:
    for service in render(DOMAIN).of_kind("Service"):
        if service["spec"].get("clusterIP") != "None":
            assert service["spec"]["type"] == "LoadBalancer"
            assert service["spec"]["externalTrafficPolicy"] == "Local"


def test_rendering_twice_gives_the_same() -> None:
    assert render(DOMAIN).texts == render(DOMAIN).texts


@pytest.mark.parametrize(
    "values",
    [
        {"domian": "example.org"},
        {"proxyProtocol": {"enable": True}},
        {"smtp": {"serve": {"replica": 2}}},
        {"connmgr": {"image": {"tags": "x"}}},
        {"nmap": {"replicas": "two"}},
        {"pop-imap": {"service": {"externalTrafficPolicy": "local"}}},
    ],
)
def test_a_key_or_value_that_is_none_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(HelmError):
        render({**DOMAIN, **values})


@pytest.mark.parametrize("chart", SUBCHARTS)
def test_each_chart_can_be_installed_alone(chart: str) -> None:
    alone = render({"config": {"existingConfigMap": "own"}}, chart=ROOT / "charts" / chart)
    kinds = {one["kind"] for one in alone.objects}
    assert {"ServiceAccount", "NetworkPolicy"} <= kinds
    for _, spec in pod_specs(alone):
        assert {"name": "config", "configMap": {"name": "own"}} in spec["volumes"]


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("chart", ["", *SUBCHARTS])
def test_every_value_is_used_and_every_used_value_is_declared(chart: str) -> None:
    folder = ROOT / "charts" / chart if chart else ROOT
    library = ROOT / "charts" / "netmail-lib" / "templates"
    templates = [p for p in (folder / "templates").rglob("*") if p.is_file()]
    own = "".join(p.read_text(encoding="utf-8") for p in templates)
    text = own + "".join(p.read_text(encoding="utf-8") for p in library.glob("*"))
    values = values_of(folder / "values.yaml")
    for path in leaves(values):
        if not chart and path[0] in SUBCHARTS:
            continue
        # What is copied as a whole is used as a whole.
        whole = {"resources", "labels"} & set(path)
        key = whole.pop() if whole else path[-1]
        assert re.search(rf"\.{key}\b", text), f"{chart or 'netmail'}: {'.'.join(path)} is not used"
    for used in set(re.findall(r"\.Values\.([A-Za-z]+)", own)):
        assert used in values, f"{chart or 'netmail'}: .Values.{used} is not declared"


HIDDEN = {"service": {"externalTrafficPolicy": "Cluster"}}
POD_RANGE = {"enabled": True, "trustedNetworks": ["10.244.0.0/16"]}
ONLY_PROXY = {"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"app": "haproxy"}}}]}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"smtp": HIDDEN}, "smtp.service.externalTrafficPolicy Cluster"),
        ({"pop-imap": HIDDEN}, "pop-imap.service.externalTrafficPolicy Cluster"),
        ({"smtp": {"service": {"type": "ClusterIP"}}}, "smtp.service.type ClusterIP"),
        ({"proxyProtocol": {"enabled": True}}, "needs proxyProtocol.trustedNetworks"),
        ({"proxyProtocol": POD_RANGE}, "may cover pods"),
        ({"proxyProtocol": POD_RANGE, "smtp": ONLY_PROXY}, "pop-imap.networkPolicy.clients"),
        (
            {"proxyProtocol": {"enabled": True, "trustedNetworks": ["0.0.0.0/0"]}},
            "may cover pods",
        ),
    ],
)
def test_what_would_open_the_relay_is_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(HelmError, match=words):
        render({**DOMAIN, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"smtpAfterPop": False, "smtp": HIDDEN, "pop-imap": HIDDEN},
        {
            "proxyProtocol": {"enabled": True, "trustedNetworks": ["192.0.2.7/32"]},
            "smtp": HIDDEN,
            "pop-imap": {"service": {"type": "ClusterIP"}},
        },
        {"proxyProtocol": POD_RANGE, "smtp": ONLY_PROXY, "pop-imap": ONLY_PROXY},
    ],
)
def test_what_keeps_the_address_or_needs_none_is_installed(values: dict[str, Any]) -> None:
    assert render({**DOMAIN, **values}).of_kind("Service")


def test_who_asks_the_api_may_read_what_it_must_and_can_be_stopped() -> None:
    read = {"list", "watch"}
    for rendered, count in (
        (render(DOMAIN), 2),
        (
            render(
                {
                    **DOMAIN,
                    "connmgr": {"clusterNetworks": {"enabled": False}},
                    "cli": {"doctor": False},
                }
            ),
            0,
        ),
    ):
        roles = [
            one
            for kind in ("Role", "ClusterRole")
            for one in rendered.of_kind(kind)
            if "certificates" not in one["metadata"]["name"]
        ]
        assert len(roles) == count
        for rule in (rule for role in roles for rule in role["rules"]):
            assert set(rule["verbs"]) <= read
            assert "secrets" not in rule["resources"]
        asking = {
            name.split()[1]
            for name, spec in pod_specs(rendered)
            if spec["automountServiceAccountToken"] and "certificates" not in name
        }
        assert asking == ({"netmail-connmgr", "netmail-cli"} if count else set())
        config = rendered.object("ConfigMap", "netmail-config")["data"]["netmail.yaml"]
        (manager,) = yaml.safe_load(config)["connection_managers"]
        assert manager["learn_cluster_networks"] is bool(count)
        for name in asking:
            egress = rendered.object("NetworkPolicy", name)["spec"]["egress"]
            assert 6443 in {port["port"] for rule in egress for port in rule["ports"]}
