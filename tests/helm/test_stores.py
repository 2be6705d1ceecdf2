"""PostgreSQL and Valkey: any number of pods, no volumes, migrations first, and values-ha.yaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import HelmError
from netmail_common.config import ConnectionManagerConfig, Installation, NmapConfig, parse_config

from tests.helm.rendering import ROOT, Rendered, render

DOMAIN = {"domain": "example.org"}
VALKEY = {"enabled": True, "addresses": ["valkey:6379"]}
POSTGRESQL = {"existingSecret": "database"}


def from_file(name: str) -> Rendered:
    values: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return render({**DOMAIN, **values})


def configuration(rendered: Rendered) -> Installation:
    text = rendered.object("ConfigMap", "netmail-config")["data"]["netmail.yaml"]
    return parse_config(yaml.safe_load(text))


def stores(rendered: Rendered) -> tuple[ConnectionManagerConfig, NmapConfig]:
    installation = configuration(rendered)
    return installation.connection_managers[0], installation.messaging_servers[0].nmap


def mounts(workload: dict[str, Any]) -> dict[str, str]:
    """Mount paths of a workload's Secrets, by the Secret's name."""
    spec = workload["spec"]["template"]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    (container,) = spec["containers"]
    return {
        secrets[m["name"]]: m["mountPath"]
        for m in container["volumeMounts"]
        if m["name"] in secrets
    }


def test_without_stores_of_its_own_there_is_one_pod_with_a_volume_of_each() -> None:
    rendered = render(DOMAIN)
    for name in ("netmail-connmgr", "netmail-nmap"):
        workload = rendered.object("StatefulSet", name)
        assert workload["spec"]["replicas"] == 1
        assert workload["spec"]["volumeClaimTemplates"]
    manager, nmap = stores(rendered)
    assert manager.store == "memory"
    assert not nmap.store.shared
    assert all("migrations" not in one["metadata"]["name"] for one in rendered.objects)


@pytest.mark.parametrize("values", [{"replicas": 2}, {"autoscaling": {"mode": "hpa"}}])
@pytest.mark.parametrize(
    ("chart", "words"),
    [
        ("nmap", "more than one pod needs PostgreSQL"),
        ("connmgr", "more than one pod needs Valkey or Redis"),
    ],
)
def test_more_than_one_pod_is_refused_where_they_would_not_share_what_they_hold(
    values: dict[str, Any], chart: str, words: str
) -> None:
    with pytest.raises(HelmError, match=words):
        render({**DOMAIN, chart: values})
    with pytest.raises(HelmError, match=words):
        render({"config": {"existingConfigMap": "own"}, **values}, chart=ROOT / "charts" / chart)


def test_large_bodies_go_to_an_object_store() -> None:
    objects = {
        "url": "s3://mail/bodies",
        "endpoint": "http://s3.storage:9000",
        "existingSecret": "keys",
        "ports": [9000],
    }
    values = {"postgresql": POSTGRESQL, "objectStore": objects}
    rendered = render({**DOMAIN, "nmap": values})
    _, nmap = stores(rendered)
    assert nmap.store.objects is not None
    assert (nmap.store.objects.url, nmap.store.objects.region) == ("s3://mail/bodies", "us-east-1")
    assert str(nmap.store.objects.secret_key_file) == "/etc/netmail/objects/secret-key"
    assert mounts(rendered.object("Deployment", "netmail-nmap"))["keys"] == "/etc/netmail/objects"
    policy = rendered.object("NetworkPolicy", "netmail-nmap")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert {5432, 9000} <= set(ports)
    restoring = render({**DOMAIN, "nmap": {**values, "restore": {"file": "a.tar"}}})
    assert mounts(restoring.object("Job", "netmail-nmap-restore"))["keys"] == "/etc/netmail/objects"
    with pytest.raises(HelmError, match="objectStore needs PostgreSQL"):
        render({**DOMAIN, "nmap": {"objectStore": objects}})
    unset = render({**DOMAIN, "nmap": {"postgresql": POSTGRESQL}})
    assert stores(unset)[1].store.objects is None
    assert "keys" not in mounts(unset.object("Deployment", "netmail-nmap"))


def test_with_stores_of_its_own_no_pod_of_a_dead_node_has_to_be_waited_for() -> None:
    rendered = render(
        {
            **DOMAIN,
            "connmgr": {"valkey": VALKEY, "replicas": 2},
            "nmap": {"postgresql": POSTGRESQL, "replicas": 3},
        }
    )
    # A StatefulSet does not replace a pod whose node says nothing, and needs no volume here.
    assert rendered.of_kind("StatefulSet") == []
    assert rendered.object("Deployment", "netmail-connmgr")["spec"]["replicas"] == 2
    assert rendered.object("Deployment", "netmail-nmap")["spec"]["replicas"] == 3
    for name in ("netmail-connmgr", "netmail-nmap"):
        rolling = rendered.object("Deployment", name)["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_what_the_configuration_names_is_mounted() -> None:
    rendered = from_file("ci/shared-stores-values.yaml")
    manager, nmap = stores(rendered)
    assert manager.valkey is not None
    assert manager.valkey.mode == "cluster"
    assert manager.valkey.username == "netmail"
    assert manager.valkey.tls
    assert mounts(rendered.object("Deployment", "netmail-connmgr")) == {
        "netmail-grpc-connmgr": "/etc/netmail/grpc",
        "valkey-password": "/etc/netmail/valkey",
        "valkey-certificates": "/etc/netmail/valkey-tls",
    }
    assert manager.valkey.password_file == Path("/etc/netmail/valkey/netmail")
    assert manager.valkey.ca_file == Path("/etc/netmail/valkey-tls/ca.crt")
    assert manager.valkey.key == Path("/etc/netmail/valkey-tls/tls.key")
    assert mounts(rendered.object("Deployment", "netmail-nmap")) == {
        "netmail-grpc-nmap": "/etc/netmail/grpc",
        "pgbouncer": "/etc/netmail/postgresql",
    }
    assert nmap.store.url_file == Path("/etc/netmail/postgresql/pooled-uri")
    assert nmap.store.listen_url_file == Path("/etc/netmail/postgresql/direct-uri")
    assert nmap.store.pooled


def test_no_other_agent_sees_the_secrets_of_the_stores() -> None:
    rendered = from_file("values-ha.yaml")
    seen = {
        f"{one['metadata']['name']}: {secret}"
        for one in (*rendered.of_kind("Deployment"), *rendered.of_kind("Job"))
        for secret in mounts(one)
        if secret in {"netmail-postgresql", "netmail-valkey"}
    }
    assert seen == {
        "netmail-connmgr: netmail-valkey",
        "netmail-nmap: netmail-postgresql",
        "netmail-nmap-migrations: netmail-postgresql",
    }


def test_migrations_run_before_the_agents_by_postgresqls_own_address() -> None:
    rendered = from_file("ci/shared-stores-values.yaml")
    job = rendered.object("Job", "netmail-nmap-migrations")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # Nothing that the installation itself makes is there yet.
    assert container["command"][-2:] == ["--url-file", "/etc/netmail/postgresql/direct-uri"]
    assert mounts(job) == {"pgbouncer": "/etc/netmail/postgresql"}
    assert container["image"] == "netmail/nmap:0.1.0"
    policy = rendered.object("NetworkPolicy", "netmail-nmap-migrations")
    assert policy["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_migrations_may_be_left_to_the_agents() -> None:
    values = {"postgresql": {**POSTGRESQL, "migrationJob": False}}
    rendered = render({**DOMAIN, "nmap": values})
    assert all("migrations" not in one["metadata"]["name"] for one in rendered.objects)


def test_only_the_agents_of_a_store_reach_it() -> None:
    rendered = from_file("ci/shared-stores-values.yaml")
    allowed = {
        policy["metadata"]["name"]: rule["to"]
        for policy in rendered.of_kind("NetworkPolicy")
        for rule in policy["spec"]["egress"]
        if {5432, 6380} & {port["port"] for port in rule["ports"]}
    }
    database = {"kubernetes.io/metadata.name": "databases"}
    assert allowed == {
        "netmail-connmgr": [{"podSelector": {"matchLabels": {"app": "valkey"}}}],
        "netmail-nmap": [{"namespaceSelector": {"matchLabels": database}}],
        "netmail-nmap-migrations": [{"namespaceSelector": {"matchLabels": database}}],
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"connmgr": {"valkey": {"enabled": True}}}, "needs valkey.addresses"),
        (
            {"nmap": {"postgresql": {**POSTGRESQL, "listenUrlKey": "direct"}}},
            "listenUrlKey is for postgresql.pooled",
        ),
    ],
)
def test_half_a_store_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(HelmError, match=words):
        render({**DOMAIN, **values})


def test_with_values_ha_nothing_is_there_only_once() -> None:
    rendered = from_file("values-ha.yaml")
    agents = {f"netmail-{name}" for name in ("connmgr", "nmap", "smtp", "deliver", "pop-imap")}
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in rendered.of_kind("HorizontalPodAutoscaler")
    }
    assert scaled == dict.fromkeys(agents, 2)
    budgets = {
        one["metadata"]["name"]: one["spec"]["maxUnavailable"]
        for one in rendered.of_kind("PodDisruptionBudget")
    }
    assert budgets == dict.fromkeys(agents, 1)
    assert rendered.of_kind("StatefulSet") == []
    for name in agents:
        template = rendered.object("Deployment", name)["spec"]["template"]
        nodes = template["spec"]["topologySpreadConstraints"][0]
        assert nodes["topologyKey"] == "kubernetes.io/hostname"
        assert nodes["whenUnsatisfiable"] == "DoNotSchedule"
        # Each agent by itself, though the constraint is written once for all.
        assert (
            nodes["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        )
        assert "app.kubernetes.io/component" in nodes["matchLabelKeys"]
        seconds = {one["tolerationSeconds"] for one in template["spec"]["tolerations"]}
        assert seconds == {30}
