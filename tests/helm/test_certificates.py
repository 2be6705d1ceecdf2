"""Certificates: what cert-manager is asked for is what agents look for."""

from typing import Any

import pytest
from netmail_cli.cluster_secrets import ClusterSecrets
from netmail_common.certificates import server_name
from netmail_common.roles import Role, role_uri

from tests.helm.rendering import Rendered, render

CERT_MANAGER = {"domain": "example.org", "certificates": {"mode": "cert-manager"}}


def certificates(rendered: Rendered) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in rendered.of_kind("Certificate")}


def secrets_that_pods_mount(rendered: Rendered) -> set[str]:
    return {
        volume["secret"]["secretName"]
        for kind in ("Deployment", "StatefulSet")
        for one in rendered.of_kind(kind)
        for volume in one["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }


@pytest.mark.parametrize("role", Role)
def test_each_role_gets_the_names_that_its_peers_look_for(role: Role) -> None:
    made = certificates(render({**CERT_MANAGER, "installation": "here"}))
    spec = made[f"netmail-grpc-{role.value.replace('_', '-')}"]
    assert spec["uris"] == [role_uri("here", role)]
    assert spec["dnsNames"] == [server_name(role, "here")]
    assert {"server auth", "client auth"} <= set(spec["usages"])


def test_every_secret_that_a_pod_mounts_is_made() -> None:
    rendered = render(CERT_MANAGER)
    made = {spec["secretName"] for spec in certificates(rendered).values()}
    assert secrets_that_pods_mount(rendered) <= made
    assert not rendered.of_kind("CronJob")


def test_what_cert_manager_leaves_behind_is_removed_when_the_release_is_gone() -> None:
    rendered = render(CERT_MANAGER)
    (job,) = rendered.of_kind("Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][:2] == ["certificates", "remove"]
    name = "netmail-certificates"
    hooks = [job, *(rendered.object(kind, name) for kind in ("Role", "NetworkPolicy"))]
    assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in hooks} == {"post-delete"}
    rules = rendered.object("Role", name)["rules"]
    removable = {
        one for rule in rules if "delete" in rule["verbs"] for one in rule["resourceNames"]
    }
    assert not any("create" in rule["verbs"] for rule in rules)
    for spec in certificates(rendered).values():
        assert spec["secretName"] in removable
        assert spec["secretTemplate"]["labels"] == ClusterSecrets.LABELS


def test_the_ca_keeps_its_key_and_signs_everything() -> None:
    rendered = render(CERT_MANAGER)
    made = certificates(rendered)
    authority = made.pop("netmail-ca")
    assert authority["isCA"]
    assert authority["privateKey"]["rotationPolicy"] == "Never"
    issuer = rendered.object("Issuer", "netmail-ca")
    assert issuer["spec"]["ca"]["secretName"] == authority["secretName"]
    for spec in made.values():
        assert spec["issuerRef"] == {
            "name": "netmail-ca",
            "kind": "Issuer",
            "group": "cert-manager.io",
        }


def test_other_issuers_can_sign() -> None:
    company = {"name": "company", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    acme = {"name": "acme", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    given = {"mode": "cert-manager", "certManager": {"issuerRef": company}}
    made = certificates(render({**CERT_MANAGER, "certificates": given}))
    assert {spec["issuerRef"]["name"] for spec in made.values()} == {"company"}
    assert "netmail-ca" not in made

    given = {"mode": "cert-manager", "certManager": {"listenersIssuerRef": acme}}
    made = certificates(render({**CERT_MANAGER, "certificates": given}))
    assert made["netmail-tls"]["issuerRef"] == acme
    assert made["netmail-grpc-smtp"]["issuerRef"]["name"] == "netmail-ca"


def test_existing_secrets_are_mounted_and_none_is_made() -> None:
    own = {name: f"own-{name}" for name in ("connmgr", "nmap", "smtp", "pop-imap", "cli")}
    values: dict[str, Any] = {
        name: {"certificates": {"existingSecret": secret}} for name, secret in own.items()
    }
    for name in ("smtp", "pop-imap"):
        values[name]["tls"] = {"existingSecret": "own-tls"}
    rendered = render(
        {"domain": "example.org", "certificates": {"mode": "existing"}, **values},
    )
    assert secrets_that_pods_mount(rendered) == {*own.values(), "own-tls"}
    assert not rendered.of_kind("Job")
    assert not rendered.of_kind("Certificate")
