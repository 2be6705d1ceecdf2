"""The cluster, and one default installation that the tests of this folder share."""

import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.cluster import the_cluster
from tests.cluster.support.release import release
from tests.cluster.support.sink import running_sink

NAMESPACE = os.environ.get("NETMAIL_NAMESPACE", "netmail")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that the environment names."""
    with the_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def sink(cluster: Cluster) -> Iterator[Sink]:
    """The mail server of example.net, outside the cluster."""
    # Of the namespace's own, so that two runs on one cluster get along.
    own = f"198.51.100.{zlib.crc32(NAMESPACE.encode()) % 250 + 2}"
    address = own if cluster.is_own else cluster.addresses(1)[0].address
    with running_sink(cluster.outside(address)) as running:
        yield running


@pytest.fixture(scope="session")
def hosts(cluster: Cluster) -> list[Outside]:
    """Four client hosts outside with different addresses."""
    return cluster.addresses(4)


def values_for(sink: Sink) -> dict[str, Any]:
    """What the tests add to the default values: where example.net is, quick retries, no rates."""
    unlimited = {"recipients": 1_000_000}
    return {
        "connectionManager": {"rates": {"after_login": unlimited, "after_auth": unlimited}},
        "messagingServer": {
            "nmap": {"queue": {"first_retry": 1, "max_retry": 2}},
            "deliver": {"routes": [sink.route()], "host_backoff": 1},
        },
    }


@pytest.fixture(scope="session")
def installed(cluster: Cluster, sink: Sink) -> Iterator[Release]:
    """The chart with its default values and the two users."""
    with release(cluster, NAMESPACE, values_for(sink)) as made:
        yield made
