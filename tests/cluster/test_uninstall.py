"""Uninstalling leaves nothing but the volumes' claims, and the next installation finds the mail."""

from contextlib import suppress

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.release import default_values, merged, namespace
from tests.cluster.support.stages import imap_login, in_mailbox, receive, subject_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)

_OF_EACH_NAMESPACE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
_CLAIMS = {f"persistentvolumeclaim/state-netmail-{agent}-0" for agent in ("nmap", "connmgr")}


def everything_in(made: Release) -> set[str]:
    """Every object of the namespace that somebody made, but events and what pods leave behind."""
    kinds = made.cluster.kubectl(
        "api-resources", "--verbs=list", "--namespaced", "-o", "name"
    ).split()
    passing = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "podmetrics.metrics.k8s.io"}
    listed = made.kubectl(
        "get", ",".join(kind for kind in kinds if kind not in passing), "-o", "name",
        "--ignore-not-found",
    )  # fmt: skip
    return {_short(line) for line in listed.split()}


def _short(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{kind.partition('.')[0]}/{rest}"


def test_uninstalling_leaves_the_claims_only_and_a_new_installation_finds_the_mail(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    values = values_for(sink)
    with namespace(cluster, f"{NAMESPACE}-again") as where:
        made = Release(cluster, where)
        eventually(lambda: everything_in(made) >= _OF_EACH_NAMESPACE)
        before, cluster_wide = everything_in(made), cluster_objects(cluster)
        made.install(merged(default_values(), values))
        marked = receive(hosts[0], hosts[1], Doors.of(made), "bob")
        made.uninstall()
        with suppress(AssertionError):  # the garbage collector comes after Helm
            eventually(lambda: everything_in(made) - before <= _CLAIMS, 120)
        left = everything_in(made) - before
        print(f"\nleft after helm uninstall: {sorted(left)}")
        assert left == _CLAIMS
        assert cluster_objects(cluster) <= cluster_wide
        made.install(merged(default_values(), values))
        doors = Doors.of(made)
        imap_login(hosts[1], doors.imaps, "alice")
        assert in_mailbox(hosts[1], doors.imaps, "bob", subject_of(marked)) == marked
        made.uninstall()


def cluster_objects(cluster: Cluster) -> set[str]:
    """What is not in a namespace, and what a chart might leave there."""
    kinds = "clusterroles,clusterrolebindings,customresourcedefinitions,priorityclasses"
    return set(cluster.kubectl("get", kinds, "-o", "name").split())
