"""Installations in Istio: one for each way of gRPC security."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Release, Sink
from tests.cluster.support.release import merged, release

pytestmark = pytest.mark.long

INJECTED = {"istio-injection": "enabled"}
"""Of a namespace whose pods get a sidecar unless they say that they do not want one."""


@pytest.fixture(scope="session")
def istio(cluster: Cluster) -> Cluster:
    """The cluster with Istio in it."""
    cluster.addon("istio")
    return cluster


def mesh_values(security: str, balancing: str = "headless") -> dict[str, Any]:
    """The chart's values for a release in Istio."""
    grpc = {"security": security, "loadBalancing": balancing}
    return {"global": {"mesh": {"mode": "istio"}, "grpc": grpc}}


@pytest.fixture(scope="module", params=["mesh", "mtls"])
def security(request: pytest.FixtureRequest) -> str:
    """Who authenticates the agents: the mesh, or they themselves inside it."""
    return str(request.param)


@pytest.fixture(scope="module")
def meshed(istio: Cluster, sink: Sink, security: str) -> Iterator[Release]:
    """A release with sidecars, in a namespace of restricted Pod Security."""
    balancing = "mesh" if security == "mesh" else "headless"
    values = merged(values_for(sink), mesh_values(security, balancing))
    space = f"{NAMESPACE}-{security}"
    with release(istio, space, values, "--timeout", "15m", labels=INJECTED) as made:
        yield made
