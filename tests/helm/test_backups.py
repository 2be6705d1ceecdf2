"""Backups by a CronJob, and the Job that restores one."""

from typing import Any

import pytest
from helm_python import HelmError

from tests.helm.rendering import Rendered, render

DOMAIN = {"domain": "example.org"}
POSTGRESQL = {"existingSecret": "database"}
FILE = "netmail-20261125T033000Z.tar"
MTLS, MESH = "netmail-grpc-admin", "istio"


def nmap(**values: Any) -> Rendered:
    return render({**DOMAIN, "nmap": values})


def backup_pod(rendered: Rendered) -> dict[str, Any]:
    job = rendered.object("CronJob", "netmail-nmap-backup")
    spec: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def claims(spec: dict[str, Any]) -> dict[str, str]:
    return {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }


def callers(rendered: Rendered) -> set[str]:
    policy = rendered.object("NetworkPolicy", "netmail-nmap")
    return {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in policy["spec"]["ingress"]
        for peer in rule.get("from", ())
    }


def test_by_default_there_is_nothing_of_them() -> None:
    rendered = render(DOMAIN)
    assert not [one for one in rendered.objects if "backup" in one["metadata"]["name"]]
    assert not [one for one in rendered.objects if "restore" in one["metadata"]["name"]]
    assert "nmap-backup" not in callers(rendered)


def test_each_run_asks_the_agent_and_keeps_the_newest() -> None:
    rendered = nmap(backup={"enabled": True, "schedule": "0 1 * * *", "keep": 3})
    job = rendered.object("CronJob", "netmail-nmap-backup")["spec"]
    assert (job["schedule"], job["concurrencyPolicy"], job["suspend"]) == (
        "0 1 * * *",
        "Forbid",
        False,
    )
    (container,) = backup_pod(rendered)["containers"]
    assert container["args"][:2] == ["backup", "/backups/netmail-{time}.tar"]
    assert container["args"][-2:] == ["--keep", "3"]
    assert claims(backup_pod(rendered)) == {"backups": "netmail-nmap-backups"}
    secrets = [v["secret"]["secretName"] for v in backup_pod(rendered)["volumes"] if "secret" in v]
    assert secrets == [MTLS]
    assert "nmap-backup" in callers(rendered)
    egress = rendered.object("NetworkPolicy", "netmail-nmap-backup")["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule["ports"]] == [53, 53, 7710]


def test_the_claim_is_made_once_and_stays() -> None:
    claim = nmap(backup={"enabled": True}).object("PersistentVolumeClaim", "netmail-nmap-backups")
    annotations = claim["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "before-hook-creation" not in annotations["helm.sh/hook-delete-policy"]
    own = nmap(backup={"enabled": True, "persistence": {"existingClaim": "mine"}})
    assert not own.of_kind("PersistentVolumeClaim")
    assert claims(backup_pod(own)) == {"backups": "mine"}


def test_in_a_mesh_its_pod_is_the_administrator() -> None:
    mesh = {"mesh": {"mode": MESH}, "grpc": {"security": "mesh"}}
    rendered = render({**DOMAIN, "global": mesh, "nmap": {"backup": {"enabled": True}}})
    pod = backup_pod(rendered)
    assert pod["serviceAccountName"] == "netmail-cli"
    assert not [volume for volume in pod["volumes"] if "secret" in volume]
    assert "serviceAccountName" not in backup_pod(nmap(backup={"enabled": True}))


@pytest.mark.parametrize(
    ("store", "kind", "there"),
    [
        ({}, "StatefulSet", {"state": "state-netmail-nmap-0"}),
        ({"postgresql": POSTGRESQL, "replicas": 3}, "Deployment", {}),
        ({"postgresql": POSTGRESQL, "autoscaling": {"mode": "hpa"}}, "Deployment", {}),
    ],
)
def test_a_restore_takes_the_agents_away_and_fills_their_store(
    store: dict[str, Any], kind: str, there: dict[str, str]
) -> None:
    rendered = nmap(**store, backup={"enabled": True}, restore={"file": FILE})
    assert rendered.object(kind, "netmail-nmap")["spec"]["replicas"] == 0
    assert rendered.object("CronJob", "netmail-nmap-backup")["spec"]["suspend"] is True
    job = rendered.object("Job", "netmail-nmap-restore")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    spec = job["spec"]["template"]["spec"]
    assert claims(spec) == {"backups": "netmail-nmap-backups", **there}
    (container,) = spec["containers"]
    command = container["command"]
    assert command[command.index("--archive") + 1] == f"/backups/{FILE}"
    assert "--hold-queue" in command
    assert "--replace" not in command
    ports = [
        port["port"]
        for rule in rendered.object("NetworkPolicy", "netmail-nmap-restore")["spec"]["egress"]
        for port in rule["ports"]
    ]
    assert ports == [53, 53, *([] if there else [5432])]
    other = nmap(**store, restore={"file": FILE, "replace": True, "queue": "send"})
    (container,) = other.object("Job", "netmail-nmap-restore")["spec"]["template"]["spec"][
        "containers"
    ]
    assert "--replace" in container["command"]
    assert "--hold-queue" not in container["command"]


def test_a_name_is_a_name_and_nothing_is_restored_that_would_end_with_the_pod() -> None:
    job = nmap(restore={"file": "../../etc/passwd"}).object("Job", "netmail-nmap-restore")
    assert "/backups/passwd" in job["spec"]["template"]["spec"]["containers"][0]["command"]
    with pytest.raises(HelmError, match="outlives its pods"):
        nmap(restore={"file": FILE}, persistence={"enabled": False})


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_copy_of_a_postgresql_store_has_a_volume_of_the_size_that_is_said(kind: str) -> None:
    backup = {"enabled": True, "room": {"size": "200Gi", "storageClass": "local"}}
    restore = {"file": FILE} if kind == "Job" else {}
    name = "netmail-nmap-restore" if kind == "Job" else "netmail-nmap"

    def state(**settings: Any) -> dict[str, Any]:
        rendered = nmap(postgresql=POSTGRESQL, restore=restore, **settings)
        spec = rendered.object(kind, name)["spec"]["template"]["spec"]
        (volume,) = [one for one in spec["volumes"] if one["name"] == "state"]
        return dict(volume)

    claim = state(backup=backup)["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["storageClassName"] == "local"
    assert claim["resources"] == {"requests": {"storage": "200Gi"}}
    assert state(backup={"enabled": True}) == {"name": "state", "emptyDir": {}}
