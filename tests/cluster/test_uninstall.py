"""Uninstalling leaves nothing but the volumes' claims, and the next installation finds the mail."""

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.release import default_values, merged, release
from tests.cluster.support.stages import imap_login, in_mailbox, receive, subject_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)

_OF_THE_NAMESPACE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def everything_in(release_: Release) -> set[str]:
    """Every object of the namespace that somebody made, but events and what pods leave behind."""
    kinds = release_.cluster.kubectl(
        "api-resources", "--verbs=list", "--namespaced", "-o", "name"
    ).split()
    passing = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "podmetrics.metrics.k8s.io"}
    listed = release_.kubectl(
        "get", ",".join(kind for kind in kinds if kind not in passing), "-o", "name",
        "--ignore-not-found",
    )  # fmt: skip
    return {_short(line) for line in listed.split()} - _OF_THE_NAMESPACE


def _short(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{kind.partition('.')[0]}/{rest}"


def test_uninstalling_leaves_the_claims_only_and_a_new_installation_finds_the_mail(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    values = values_for(sink)
    with release(cluster, f"{NAMESPACE}-again", values) as made:
        marked = receive(hosts[0], hosts[1], Doors.of(made), "bob")
        cluster_wide = cluster_objects(cluster)
        made.uninstall()
        eventually(lambda: made.get("pods")["items"] == [], 120)
        left = everything_in(made)
        print(f"\nleft after helm uninstall: {sorted(left)}")
        assert left == {"persistentvolumeclaim/state-netmail-nmap-0",
                        "persistentvolumeclaim/state-netmail-connmgr-0"}  # fmt: skip
        assert cluster_objects(cluster) <= cluster_wide
        made.install(merged(default_values(), values))
        doors = Doors.of(made)
        imap_login(hosts[1], doors.imaps, "alice")
        assert in_mailbox(hosts[1], doors.imaps, "bob", subject_of(marked)) == marked


def cluster_objects(cluster: Cluster) -> set[str]:
    """What is not in a namespace, and what a chart might leave there."""
    kinds = "clusterroles,clusterrolebindings,customresourcedefinitions,priorityclasses"
    return set(cluster.kubectl("get", kinds, "-o", "name").split())
