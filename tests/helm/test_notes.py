"""What `helm install` says, and what `helm test` does."""

from typing import Any

import pytest

from tests.helm.rendering import ROOT, Rendered, render
from tests.helm.test_charts import HOST_PORTS, installable

DOMAIN = {"domain": "example.org"}
TEST_POD = "netmail-test-roundtrip"
EVERYBODY = {"networkPolicy": {"enabled": False}}
NO_VOLUME = {"persistence": {"enabled": False}}
SHARED = {"service": {"enabled": False}}


def notes(values: dict[str, Any]) -> str:
    (text,) = (t for p, t in render({**DOMAIN, **values}).texts.items() if p.endswith("NOTES.txt"))
    return text


def test_the_notes_say_where_it_is_and_what_to_do_next() -> None:
    text = notes({"domains": ["example.net"]})
    assert text.startswith("NetMail ")
    assert "get service netmail-smtp netmail-pop-imap" in text
    assert "A of mail.example.org, and MX of example.org, example.net" in text
    assert "netmail user add NAME" in text
    assert "helm test -n netmail netmail --logs" in text


def test_the_notes_name_the_way_that_is_there() -> None:
    assert "get gateway netmail" in notes(installable(ROOT / "values-gateway-envoy.yaml"))
    shared = notes(installable(ROOT / "ci" / "shared-service-values.yaml"))
    assert "get service netmail-mail\n" in shared
    host_ports = notes(installable(HOST_PORTS))
    assert "submission is port 587 of the nodes" in host_ports
    assert "get service" not in host_ports


WARNINGS: list[tuple[str, dict[str, Any]]] = [
    ("plain text in a ConfigMap", {"initialUsers": [{"name": "alice", "password": "x"}]}),
    ("a login from 10.0.0.0/8 lets", {"grantingNetworks": ["10.0.0.0/8"]}),
    ("smtp.networkPolicy.enabled is false", {"smtp": EVERYBODY}),
    ("connmgr.networkPolicy.enabled is false", {"connmgr": EVERYBODY}),
    ("it is gone with the pod", {"nmap": NO_VOLUME}),
    ("revocations are forgotten", {"connmgr": NO_VOLUME}),
    ("only if it is privileged", {"pop-imap": {"ports": [
        {"name": "pop3s", "containerPort": 2995, "port": 995, "hostPort": 995},
        {"name": "imaps", "containerPort": 2993, "port": 993},
    ]}}),
    ("no affinity", {"sharedService": {"enabled": True}, "smtp": SHARED, "pop-imap": SHARED}),
    ("passwords may travel unencrypted", {"config": {"messaging_servers": [
        {"pop_imap": {"listeners": [{"plaintext_auth": True}]}}
    ]}}),
    ("nmap.serviceMonitor.enabled is false", {"smtp": {
        "deliver": {"autoscaling": {"mode": "keda"}}
    }}),
    ("pop-imap.serviceMonitor.enabled is false", {"pop-imap": {"autoscaling": {"mode": "keda"}}}),
    ("legacy_udp.plain", {"connectionManager": {"legacy_udp": {"plain": True}}}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "values"), WARNINGS, ids=[words for words, _ in WARNINGS])
def test_what_is_unsafe_is_said_and_only_then(words: str, values: dict[str, Any]) -> None:
    assert any("WARNING" in line and words in line for line in notes(values).splitlines())
    assert words not in notes({})


def test_by_default_only_the_certificate_is_warned_of() -> None:
    (warning,) = (line for line in notes({}).splitlines() if "WARNING" in line)
    assert "a CA that mail programs do not know" in warning
    assert "WARNING" not in notes({"certificates": {"listeners": False}})


def options_of(rendered: Rendered) -> dict[str, str]:
    """The options of the test pod."""
    pod = rendered.object("Pod", TEST_POD)
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    command, *options = container["args"]
    assert command == "roundtrip"
    return dict(zip(options[::2], options[1::2], strict=True))


def test_the_test_uses_the_listeners_by_their_services() -> None:
    assert options_of(render(DOMAIN)) == {
        "--smtp": "netmail-smtp:25",
        "--submission": "netmail-smtp:587",
        "--pop3s": "netmail-pop-imap:995",
        "--imaps": "netmail-pop-imap:993",
        "--sink": "$(POD_IP):25",
        "--context": "users",
        "--ca": "/etc/netmail/grpc/ca.pem",
    }
    shared = options_of(render(installable(ROOT / "ci" / "shared-service-values.yaml")))
    assert shared["--imaps"] == "netmail-mail:993"
    managed = options_of(render({**DOMAIN, "certificates": {"mode": "cert-manager"}}))
    assert managed["--ca"] == "/etc/netmail/grpc/ca.crt"


@pytest.mark.parametrize("profile", ["values-gateway-envoy", "values-host-ports"])
def test_there_is_no_test_where_a_pod_cannot_be_a_client(profile: str) -> None:
    values = installable(ROOT / f"{profile}.yaml")
    assert not render(values).of_kind("Pod")
    assert "helm test" not in notes(values)
    elsewhere = render({**values, "tests": {"host": "mail.example.org"}})
    assert options_of(elsewhere)["--smtp"] == "mail.example.org:25"


def test_the_test_may_reach_what_it_needs() -> None:
    (rule,) = render(DOMAIN).object("NetworkPolicy", "netmail-test")["spec"]["egress"]
    ports = {one["port"] for one in rule["ports"]}
    assert {53, 7710, 2525, 2587, 2995, 2993} <= ports
    only = {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}}
    closed = render({**DOMAIN, "smtp": only, "pop-imap": only})
    assert closed.object("NetworkPolicy", "netmail-test-listeners")
    # It alone would close listeners that are meant to be open.
    half = render({**DOMAIN, "smtp": only, "pop-imap": EVERYBODY})
    names = {one["metadata"]["name"] for one in half.of_kind("NetworkPolicy")}
    assert "netmail-test-listeners" not in names
