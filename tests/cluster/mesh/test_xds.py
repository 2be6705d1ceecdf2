"""gRPC's own xDS: agents without sidecars learn each other's pods from Istio's control plane."""

from collections.abc import Iterator

import pytest
from netmail_common.roles import Role

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.mesh.conftest import mesh_values
from tests.cluster.mesh.support import NOT_SERVED, ask, methods
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.release import merged, release
from tests.cluster.support.stages import play

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

BASELINE = {"pod-security.kubernetes.io/enforce": "baseline"}
"""Istio's template of the agent for xDS is not restricted."""


@pytest.fixture(scope="module")
def proxyless(istio: Cluster, sink: Sink) -> Iterator[Release]:
    """A release whose agents find each other by xds:///."""
    values = merged(values_for(sink), mesh_values("mtls", "xds"))
    with release(istio, f"{NAMESPACE}-xds", values, "--timeout", "15m", labels=BASELINE) as made:
        yield made


def test_the_six_stages_work_by_xds_targets(
    proxyless: Release, sink: Sink, hosts: list[Outside]
) -> None:
    config = proxyless.get("configmap", f"{proxyless.name}-config")["data"]["netmail.yaml"]
    assert config.count("xds:///") == 2
    play(proxyless, sink, *hosts[:3])


def test_roles_are_the_agents_own_business_there(proxyless: Release) -> None:
    denied = [one for one in methods(Role.POP_IMAP, allowed=False) if one not in NOT_SERVED]
    answers = ask(proxyless, Role.POP_IMAP, denied)
    assert {name for name, one in answers.items() if not one.by_agent} == set()


def test_new_pods_are_found(proxyless: Release) -> None:
    proxyless.kubectl("delete", "pod", f"{proxyless.name}-nmap-0", "--grace-period=1")
    proxyless.wait_for("nmap", 1)
    answers = ask(proxyless, Role.SMTP, ["/grpc.health.v1.Health/Check"], seconds=60)
    assert {one.status for one in answers.values()} == {"OK"}
