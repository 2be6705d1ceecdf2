"""What the cluster uses itself is learnt from its API, and never grants."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ConfigError, parse_config
from netmail_common.connmgr.model import SenderQuestion
from netmail_common.connmgr.replica import LoginReplica
from netmail_common.networks import AddressRules, NetworkMap, Standing
from netmail_common.roles import Role
from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.cluster_api import ClusterApi
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.app.addresses import SharedAddresses
from netmail_connmgr.app.manager import connection_manager
from netmail_connmgr.domain.cluster_networks import (
    ClusterNetworks,
    Kind,
    RetiredNetworks,
    nodes_and_pods,
    services,
)
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.one_manager import client_of, manager_config
from tests.support.recorded_cluster import RecordedCluster, node, served, service_cidr
from tests.support.waiting import until

NODE, POD, OUTSIDE = (ip_address(text) for text in ("198.51.100.7", "203.0.113.9", "192.0.2.1"))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedCluster]:
    recorded = RecordedCluster()
    recorded.put("servicecidrs", service_cidr("10.96.0.0/16"))
    monkeypatch.setattr("netmail_connmgr.adapters.cluster_api._PAUSE", 0.05)
    with served(recorded, tmp_path) as kubeconfig:
        where = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(where, str(kubeconfig))
        yield recorded


@pytest.fixture
async def api(cluster: RecordedCluster) -> AsyncIterator[ClusterApi]:
    api = ClusterApi(lambda _: None)
    yield api
    api.stop()


def test_nodes_pods_and_services_are_read_from_the_objects() -> None:
    items = [
        node("a", "192.0.2.1", "2001:db8::1", pod_cidrs=("10.244.1.0/24", "fd00:1::/64")),
        node("b", "192.0.2.2", pod_cidrs=("10.244.2.0/24",)),
    ]
    items[0]["status"]["addresses"].append({"type": "ExternalIP", "address": "198.51.100.1"})
    nodes, pods = nodes_and_pods(items)
    assert set(map(str, nodes.networks)) == {
        *("192.0.2.1/32", "192.0.2.2/32", "198.51.100.1/32", "2001:db8::1/128")
    }
    assert set(map(str, pods.networks)) == {"10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64"}
    assert not nodes.unknown
    assert not pods.unknown
    assert services([service_cidr("10.96.0.0/16", "fd00:2::/112")]).networks == {
        *(ip_network("10.96.0.0/16"), ip_network("fd00:2::/112"))
    }


@pytest.mark.parametrize(
    ("items", "kind", "said"),
    [
        ([], Kind.NODES, "no nodes"),
        ([node("a", "192.0.2.1")], Kind.PODS, "no podCIDR at a"),
        (
            [node(f"n{n}", "192.0.2.1") for n in range(5)],
            Kind.PODS,
            "no podCIDR at n0, n1, n2 and 2 more",
        ),
    ],
)
def test_what_the_objects_do_not_say_is_said(
    items: list[dict[str, Any]], kind: Kind, said: str
) -> None:
    nodes, pods = nodes_and_pods(items)
    assert said in {Kind.NODES: nodes, Kind.PODS: pods}[kind].unknown


def test_a_pod_outside_of_every_pod_range_shows_that_they_are_not_used() -> None:
    nodes, pods = nodes_and_pods([node("a", "192.0.2.1", pod_cidrs=("10.244.1.0/24",))])
    known = ClusterNetworks({Kind.NODES: nodes, Kind.PODS: pods})
    assert not known.seen_by([ip_address("10.244.1.9")]).of(Kind.PODS).unknown
    assert not known.seen_by([ip_address("192.0.2.1")]).of(Kind.PODS).unknown  # hostNetwork
    strange = known.seen_by([ip_address("10.9.9.9")]).of(Kind.PODS)
    assert "10.9.9.9 is in no node's podCIDR" in strange.unknown
    assert strange.networks == pods.networks


async def test_it_follows_what_comes_changes_and_goes(
    cluster: RecordedCluster, api: ClusterApi
) -> None:
    cluster.put("nodes", node("a", "192.0.2.1", pod_cidrs=("10.244.1.0/24",)))
    api.start()
    await api.asked(20)
    assert set(map(str, api.known.networks)) == {"192.0.2.1/32", "10.244.1.0/24", "10.96.0.0/16"}
    cluster.put("nodes", node("b", "192.0.2.9"))
    await until(lambda: ip_network("192.0.2.9/32") in api.known.networks)
    assert api.known.of(Kind.PODS).unknown == "no podCIDR at b"
    cluster.put("nodes", node("b", "192.0.2.9", pod_cidrs=("10.244.2.0/24",)))
    await until(lambda: ip_network("10.244.2.0/24") in api.known.networks)
    assert not api.known.of(Kind.PODS).unknown
    cluster.remove("nodes", "b")
    await until(lambda: ip_network("10.244.2.0/24") not in api.known.networks)
    cluster.forget("nodes")
    await until(lambda: cluster.lists["nodes"] == 2)
    cluster.put("nodes", node("c", "192.0.2.33"))
    await until(lambda: ip_network("192.0.2.33/32") in api.known.networks)
    assert cluster.lists == {"nodes": 2, "servicecidrs": 1}


async def test_what_may_not_be_asked_is_said_and_learnt_when_it_may(
    cluster: RecordedCluster, api: ClusterApi
) -> None:
    cluster.put("nodes", node("a", "192.0.2.1", pod_cidrs=("10.244.1.0/24",)))
    cluster.refused = {"nodes": 403, "servicecidrs": 404}
    api.start()
    await api.asked(20)
    for kind in (Kind.NODES, Kind.PODS):
        assert api.known.of(kind).unknown == "the service account may not list and watch nodes"
    assert api.known.of(Kind.SERVICES).unknown == "this cluster's API has no servicecidrs"
    cluster.refused = {}
    await until(lambda: len(api.known.networks) == 3)
    assert not any(api.known.of(kind).unknown for kind in Kind)


async def test_what_was_learnt_holds_while_the_api_is_away(
    cluster: RecordedCluster, api: ClusterApi
) -> None:
    cluster.put("nodes", node("a", "192.0.2.1", pod_cidrs=("10.244.1.0/24",)))
    api.start()
    await api.asked(20)
    known = api.known.networks
    cluster.refused = {"nodes": 500, "servicecidrs": 500}
    cluster.forget("nodes")
    await until(lambda: api.known.of(Kind.NODES).unknown)
    assert api.known.networks == known
    cluster.refused = {}
    await until(lambda: not api.known.of(Kind.NODES).unknown)


async def test_without_credentials_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/nonexistent/kubeconfig"
    )
    api = ClusterApi(lambda _: None)
    api.start()
    await api.asked(20)
    assert "kubeconfig" in api.known.of(Kind.NODES).unknown


def test_the_clusters_networks_never_grant_whatever_grants() -> None:
    networks = NetworkMap(
        AddressRules(
            private_ranges_shared=True,
            granting_networks=(ip_network("10.0.0.0/8"),),
            allowed_networks=(ip_network("198.51.100.0/24"),),
            cluster_networks=(ip_network("10.244.0.0/16"), ip_network("198.51.100.7/32")),
        )
    )
    for text, standing in (
        ("10.244.1.9", Standing.CLUSTER),
        ("10.243.1.9", Standing.GRANTS),
        ("198.51.100.7", Standing.CLUSTER),
        ("64:ff9b::198.51.100.7", Standing.CLUSTER),
        ("198.51.100.8", Standing.LISTED),
    ):
        assert networks.locate(ip_address(text)).standing is standing, text
    assert Standing.CLUSTER.shared


async def test_a_network_that_becomes_the_clusters_loses_its_logins(
    cluster: RecordedCluster, certificates: Path, identity_for: IdentityFor
) -> None:
    cluster.put("nodes", node("a", "192.0.2.200", pod_cidrs=("10.244.1.0/24",)))
    config = parse_config(manager_config(certificates, learn_cluster_networks=True))
    async with connection_manager(config, "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        for address in (NODE, POD, OUTSIDE):
            await client.register_one(login(address=address.packed, session=str(address)))
            assert await allowed(client, address)
        cluster.put("nodes", node("b", str(NODE), pod_cidrs=("203.0.113.0/24",)))
        await until(lambda: refused(client, NODE))
        await until(lambda: refused(client, POD))
        assert await allowed(client, OUTSIDE)

        async def left() -> list[str]:
            return [str(ip_address(one.client_address)) async for one in client.list_logins()]

        async def only_the_other() -> bool:
            return await left() == [str(OUTSIDE)]

        await until(only_the_other)
        cluster.remove("nodes", "b")
        await asyncio.sleep(0.2)
        assert await refused(client, NODE)  # and stays shared while a login could live
        await channel.close()


def test_what_is_no_longer_the_clusters_stays_shared_for_a_while() -> None:
    one, two = ip_network("10.244.0.0/24"), ip_network("10.244.1.0/24")
    retired = RetiredNetworks(900)
    retired.change(frozenset({one, two}), 0)
    assert retired.shared(0) == (ip_network("10.244.0.0/23"),)
    retired.change(frozenset({one}), 100)
    assert retired.shared(999) == (ip_network("10.244.0.0/23"),)
    assert retired.shared(1000) == (one,)
    retired.change(frozenset(), 2000)
    retired.change(frozenset({one}), 2500)
    assert retired.shared(9999) == (one,)


async def test_a_replica_obeys_what_the_connection_manager_has_learnt(
    cluster: RecordedCluster, certificates: Path, identity_for: IdentityFor
) -> None:
    cluster.put("nodes", node("a", "192.0.2.200"))
    config = parse_config(manager_config(certificates, learn_cluster_networks=True))
    question = SenderQuestion(())
    async with connection_manager(config, "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        replica = LoginReplica(
            client, NetworkMap(AddressRules()), max_staleness=10, max_logins=1000
        )
        following = asyncio.create_task(replica.run())
        await client.register_one(login(address=NODE.packed))
        await until(lambda: replica.allows(NODE.packed, question))
        cluster.put("nodes", node("b", str(NODE)))
        await until(lambda: replica.fresh and not replica.allows(NODE.packed, question))

        async def back() -> bool:
            result = await client.register_one(login(address=NODE.packed, session="again"))
            return bool(result.outcome == pb.REGISTER_OUTCOME_SHARED_NETWORK)

        await until(back)  # the revocation covers what came while the process was busy
        await client.register_one(login(address=OUTSIDE.packed))
        await until(lambda: replica.allows(OUTSIDE.packed, question))
        assert replica.allows(NODE.packed, question) is None
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await channel.close()


@pytest.mark.parametrize(
    ("own", "is_open"),
    [("203.0.113.200", 1), ("10.9.8.7", 0), ("192.0.2.200", 1)],
    ids=["our own would grant", "a private one does not", "a node's says nothing of pods"],
)
async def test_what_cannot_be_learnt_is_a_line_and_a_metric_where_it_may_grant(
    cluster: RecordedCluster,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
    is_open: int,
) -> None:
    ours = frozenset({ip_address(own)})
    monkeypatch.setattr("netmail_connmgr.app.addresses.own_addresses", lambda: ours)
    cluster.put("nodes", node("a", "192.0.2.200"))
    config = parse_config(
        manager_config(certificates, learn_cluster_networks=True, private_ranges_shared=True)
    )
    with structlog.testing.capture_logs() as lines:
        async with connection_manager(config, "cm1"):
            unknown = {kind: _value(metrics.CLUSTER_UNKNOWN, kind) for kind in Kind}
            assert unknown == {Kind.NODES: 0, Kind.PODS: is_open, Kind.SERVICES: 0}
            assert _value(metrics.CLUSTER_NETWORKS, Kind.NODES) == 1
    (line,) = [one for one in lines if one["event"] == "addresses of the cluster are not known"]
    assert (line["kind"], line["reason"]) == ("pods", "no podCIDR at a")


async def test_in_a_cluster_that_nobody_asks_it_says_so(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETMAIL_KUBERNETES", "1")
    with structlog.testing.capture_logs() as lines:
        async with connection_manager(parse_config(manager_config(certificates)), "cm1"):
            assert _value(metrics.CLUSTER_UNKNOWN, Kind.NODES) == 1
            assert _value(metrics.CLUSTER_UNKNOWN, Kind.SERVICES) == 1
    assert any("not learnt" in one["event"] for one in lines)


async def test_what_is_not_known_follows_the_rules_and_matters_in_a_cluster_only() -> None:
    def unknown() -> dict[Kind, float]:
        return {kind: _value(metrics.CLUSTER_UNKNOWN, kind) for kind in Kind}

    for kind in Kind:
        metrics.CLUSTER_UNKNOWN.labels(kind.value).set(0)
    rules = AddressRules(own_addresses=frozenset({ip_address("192.0.2.7")}))
    shared = SharedAddresses(rules, lambda _: None, MemoryStore(TableLimits()))
    shared.learn_own(frozenset({POD}))
    assert set(unknown().values()) == {0}
    shared.not_learnt()
    assert set(unknown().values()) == {1}
    shared.configure(AddressRules(shared_networks=(ip_network("203.0.113.0/24"),)))
    assert unknown() == {Kind.NODES: 1, Kind.PODS: 0, Kind.SERVICES: 1}
    await shared.close()


async def test_nobody_in_the_cluster_is_trusted_by_his_address(
    cluster: RecordedCluster, certificates: Path
) -> None:
    cluster.put("nodes", node("a", "192.0.2.200", pod_cidrs=("203.0.113.0/24",)))
    config = parse_config(
        manager_config(
            certificates, learn_cluster_networks=True, lists={"allowed": ["203.0.113.9"]}
        )
    )
    with pytest.raises(ConfigError, match=r"203\.0\.113\.9/32 overlaps the shared network"):
        async with connection_manager(config, "cm1"):
            pass


async def allowed(client: Any, address: Any) -> bool:
    decision = await client.check_sender(check(address=address.packed))
    return bool(decision.decision == pb.DECISION_ALLOWED)


async def refused(client: Any, address: Any) -> bool:
    decision = await client.check_sender(check(address=address.packed))
    return bool(decision.reason == pb.REASON_SHARED_NETWORK)


def _value(gauge: Any, kind: Kind) -> float:
    return float(gauge.labels(kind.value)._value.get())
