"""One installation by values-ha.yaml that the tests of this folder share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.ha.faults import Scene
from tests.cluster.ha.shared_stores import Stores, build_image
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.release import KEEP, namespace

NAMESPACE = os.environ.get("NETMAIL_NAMESPACE", "netmail-ha")


@pytest.fixture(scope="session")
def scene(
    cluster: Cluster, sink: Sink, hosts: list[Outside], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The installation, whole."""
    if cluster.is_own and len(cluster.nodes()) < 3:
        pytest.skip("needs three nodes: a majority of Sentinels survives the loss of any")
    with namespace(cluster, NAMESPACE):
        release = Release(cluster, NAMESPACE)
        stores = Stores(release)
        if not KEEP:
            build_image(cluster, Path(tmp_path_factory.mktemp("stores")))
        stores.start()
        made = Scene(cluster, release, stores, sink, hosts, revoked=cluster.outside("203.0.113.99"))
        made.install()
        made.wait_until_whole()
        yield made
        if not KEEP:
            release.uninstall()
