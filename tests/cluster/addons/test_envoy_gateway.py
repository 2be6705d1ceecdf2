"""Envoy Gateway: TCPRoutes with PROXY protocol keep the client's address; a UDPRoute does not."""

import ipaddress
from collections.abc import Iterator, Sequence

import pytest

from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.conftest import values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.gateways import PODS, gateway_address
from tests.cluster.support.release import CHART, merged, release
from tests.cluster.support.stages import play
from tests.cluster.test_doctor import about, doctor
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(TIMEOUT)]

LISTENERS = 8
UDP_PORT = 689
_ANSWER_WITHIN = 5.0


@pytest.fixture(scope="module")
def behind(cluster: Cluster, sink: Sink, hosts: Sequence[Outside]) -> Iterator[Release]:
    """The chart behind a Gateway, with UDP 689 for an agent outside on the first host.

    The route for UDP says that the Gateway keeps addresses, which is wrong.
    """
    needs(cluster, "envoy-gateway", "backendtrafficpolicies.gateway.envoyproxy.io")
    port = {"name": "legacy-udp", "containerPort": 6890, "port": UDP_PORT, "protocol": "UDP"}
    values = merged(
        values_for(sink),
        {
            "proxyProtocol": {"trustedNetworks": [PODS]},
            "connectionManager": {
                "legacy_udp": {
                    "listen": ["0.0.0.0:6890"],
                    "allowed_sources": [f"{hosts[0].address}/32"],
                    "plain": True,
                }
            },
            "connmgr": {
                "frontEnds": {
                    "ports": [port],
                    "gateway": {"enabled": True, "keepsSourceAddress": True},
                }
            },
        },
    )
    files = [CHART / "values-gateway-envoy.yaml"]
    with release(cluster, f"{NAMESPACE}-gateway", values, files=files) as made:
        yield made


def check(host: Outside, address: str, client: str) -> bytes:
    """CHECK of the plain protocol: whether CLIENT is known. Empty: silence."""
    word = 8
    packed = ipaddress.ip_address(client).packed
    request = (1).to_bytes(word, "little") + packed.ljust(word, b"\0") + bytes(3 * word + 256)
    with host.datagrams() as sock:
        sock.settimeout(_ANSWER_WITHIN)
        sock.sendto(request, (address, UDP_PORT))
        try:
            return sock.recv(4096)
        except TimeoutError:
            return b""


def test_the_six_stages_work_through_the_gateway_with_the_clients_own_addresses(
    behind: Release, sink: Sink, hosts: Sequence[Outside]
) -> None:
    play(behind, sink, *hosts[:3], doors=Doors.at(gateway_address(behind, LISTENERS)))


def test_udp_689_is_silent_through_the_gateway_and_answers_beside_it(
    behind: Release, hosts: Sequence[Outside]
) -> None:
    agent, gateway = hosts[0], gateway_address(behind, LISTENERS)
    beside = behind.address("front-ends")
    eventually(lambda: check(agent, beside, "192.0.2.1"), 60)
    for _ in range(3):
        assert check(agent, gateway, "192.0.2.1") == b""
    assert check(agent, beside, "192.0.2.1")


def test_doctor_says_why_udp_689_is_silent_and_that_proxy_protocol_keeps_addresses(
    behind: Release,
) -> None:
    _, said = doctor(behind)
    (route,) = about(said, "UDPRoute")
    assert route["level"] == "bad"
    assert "UDP 689" in route["said"]
    assert "externalTrafficPolicy: Local for UDP" in route["do"]
    routes = about(said, "TCPRoute")
    assert len(routes) == LISTENERS - 1
    assert {one["level"] for one in routes} == {"good"}
