"""Ways in that few clusters need: ports of nodes, one Service for all, front ends for others."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.release import CHART, merged, release
from tests.cluster.support.stages import forget_logins, play, pop3_login
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
"""What ports of the nodes need."""
_BESIDE_SMTP = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "smtp"}},
}


def test_by_ports_of_the_nodes_the_six_stages_work(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    files = [CHART / "values-host-ports.yaml"]
    with release(
        cluster, f"{NAMESPACE}-hosts", values_for(sink), files=files, labels=PRIVILEGED
    ) as made:
        assert "LoadBalancer" not in made.kubectl("get", "services")
        play(made, sink, *hosts[:3], doors=Doors.at_hosts(made))


def test_by_one_service_for_all_listeners_the_six_stages_work(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_BESIDE_SMTP]}}
    values = {
        "sharedService": {"enabled": True},
        "smtp": {"service": {"enabled": False}},
        "pop-imap": {"service": {"enabled": False}, "affinity": near},
    }
    with release(cluster, f"{NAMESPACE}-one", merged(values_for(sink), values)) as made:
        play(made, sink, *hosts[:3], doors=Doors.at(made.address("mail")))


@pytest.fixture(scope="module")
def fronted(cluster: Cluster, sink: Sink, hosts: list[Outside]) -> Iterator[Release]:
    """An installation whose Connection Manager answers a NetMail agent and a Postfix outside."""
    allowed = {"allowed_sources": [f"{hosts[0].address}/32"]}
    values = {
        "connectionManager": {
            "legacy_udp": {"listen": ["0.0.0.0:6890"], "plain": True, **allowed},
            "postfix_policy": {"listen": ["0.0.0.0:10689"], "sender_binding": "any", **allowed},
        },
        "connmgr": {
            "frontEnds": {
                "ports": [
                    {"name": "udp", "containerPort": 6890, "port": 689, "protocol": "UDP"},
                    {"name": "policy", "containerPort": 10689, "port": 10689},
                ]
            }
        },
    }
    with release(cluster, f"{NAMESPACE}-fronts", merged(values_for(sink), values)) as made:
        yield made


def test_a_netmail_agent_outside_is_answered_and_nobody_else(
    fronted: Release, hosts: list[Outside]
) -> None:
    door, client = (fronted.address("front-ends"), 689), hosts[1]
    forget_logins(fronted)
    assert eventually(lambda: _check(hosts[0], door, client), 30) == [0]
    pop3_login(client, Doors.of(fronted).pop3s, "alice")
    assert _check(hosts[0], door, client) == [1]
    assert _check(hosts[2], door, client) == []


def _check(agent: Outside, door: tuple[str, int], client: Outside) -> list[int]:
    """CHECK of NetMail's plain protocol: the result of the reply; nothing: there was none."""
    request = struct.pack("<Q4s4xQQ", 1, ip_address(client.address).packed, 0, 0)
    with agent.datagrams() as sock:
        sock.settimeout(3)
        sock.sendto(request.ljust(5 * 8 + 256, b"\0"), door)
        try:
            return [int.from_bytes(sock.recv(1000)[:8], "little")]
        except TimeoutError:
            return []


def test_a_postfix_outside_is_answered_and_nobody_else(
    fronted: Release, hosts: list[Outside]
) -> None:
    door, client = (fronted.address("front-ends"), 10689), hosts[3]
    forget_logins(fronted)
    assert _ask(hosts[0], door, client) == "action=DUNNO"
    pop3_login(client, Doors.of(fronted).pop3s, "bob")
    assert _ask(hosts[0], door, client) == "action=OK"
    assert _ask(hosts[2], door, client) == ""


def _ask(postfix: Outside, door: tuple[str, int], client: Outside) -> str:
    """What Postfix's policy protocol answers about a recipient; empty: the connection is cut."""
    asked = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "client_address": client.address,
        "sender": "bob@example.org",
        "recipient": "eve@example.net",
        "instance": "1",
    }
    words = "".join(f"{name}={value}\n" for name, value in asked.items())
    try:
        with postfix.connect(*door) as connection:
            connection.sendall(f"{words}\n".encode())
            connection.settimeout(20)
            return connection.makefile("r").readline().rstrip("\n")
    except (TimeoutError, ConnectionError):
        return ""
