"""Envoy Gateway: TCPRoutes with PROXY protocol keep the client's address; a UDPRoute does not."""

import ipaddress
from collections.abc import Iterator, Sequence

import pytest

from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.conftest import values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.release import CHART, merged, release
from tests.cluster.support.stages import play
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(TIMEOUT)]

PODS = "10.244.0.0/16"
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


def gateway_address(behind: Release) -> str:
    """The Gateway's, when it has one and every route is attached."""

    def look() -> str:
        status = behind.get("gateway", "netmail").get("status", {})
        attached = [one.get("attachedRoutes", 0) for one in status.get("listeners", [])]
        addresses = [one["value"] for one in status.get("addresses", [])]
        return addresses[0] if addresses and len(attached) == 8 and all(attached) else ""

    return eventually(look, 300)


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
    play(behind, sink, *hosts[:3], doors=Doors.at(gateway_address(behind)))


def test_udp_689_is_silent_through_the_gateway_and_answers_beside_it(
    behind: Release, hosts: Sequence[Outside]
) -> None:
    agent, gateway = hosts[0], gateway_address(behind)
    beside = behind.address("front-ends")
    eventually(lambda: check(agent, beside, "192.0.2.1"), 60)
    for _ in range(3):
        assert check(agent, gateway, "192.0.2.1") == b""
    assert check(agent, beside, "192.0.2.1")
