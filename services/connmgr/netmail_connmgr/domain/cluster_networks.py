"""Which addresses a Kubernetes cluster uses itself, as its API tells.

Whatever comes from one of them came to us through a node, a pod or a Service: it may be anybody.
Objects are as they stand in the API's JSON.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from netmail_common.networks import Address, Network

__all__ = ["ClusterNetworks", "Kind", "Learnt", "RetiredNetworks", "nodes_and_pods", "services"]

_NAMED = 3
"""Nodes that a sentence names; there may be thousands."""


class Kind(StrEnum):
    """What addresses belong to."""

    NODES = "nodes"
    PODS = "pods"
    SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known of one kind.

    Attributes:
        networks: of that kind.
        unknown: why they are not all; empty: they are.
    """

    networks: frozenset[Network] = frozenset()
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class ClusterNetworks:
    """What is known of a cluster; of a kind that nobody spoke of nothing is."""

    learnt: Mapping[Kind, Learnt] = field(default_factory=dict)

    @property
    def networks(self) -> frozenset[Network]:
        """All of them."""
        return frozenset(one for learnt in self.learnt.values() for one in learnt.networks)

    def of(self, kind: Kind) -> Learnt:
        """What is known of a kind."""
        return self.learnt.get(kind, Learnt(unknown="not learnt yet"))

    def seen_by(self, own: Iterable[Address]) -> "ClusterNetworks":
        """The same, after a look at the pod's own addresses.

        A network plug-in that does not use the nodes' podCIDRs shows itself by them.
        """
        pods, nodes = self.of(Kind.PODS), self.of(Kind.NODES)
        if pods.unknown or nodes.unknown:
            return self
        known = pods.networks | nodes.networks
        strange = sorted(
            (one for one in own if not any(one in network for network in known)), key=str
        )
        if not strange:
            return self
        unknown = f"this pod's address {strange[0]} is in no node's podCIDR"
        return ClusterNetworks({**self.learnt, Kind.PODS: Learnt(pods.networks, unknown)})


class RetiredNetworks:
    """Networks that were the cluster's, and stay shared for a while.

    Logins that were registered before they became the cluster's must be over when they are open
    again, however late they arrived in the table.

    Args:
        keep: seconds, at least a login's lifetime.
    """

    def __init__(self, keep: float) -> None:
        self.keep = keep
        self._now: frozenset[Network] = frozenset()
        self._until: dict[Network, float] = {}

    def change(self, networks: frozenset[Network], now: float) -> None:
        """Takes those that are the cluster's now."""
        for network in networks:
            self._until.pop(network, None)
        for network in self._now - networks:
            self._until[network] = now + self.keep
        self._now = networks

    def shared(self, now: float) -> tuple[Network, ...]:
        """Those that are shared, as few as say the same."""
        self._until = {one: until for one, until in self._until.items() if until > now}
        every = {*self._now, *self._until}
        v4 = [one for one in every if isinstance(one, ipaddress.IPv4Network)]
        v6 = [one for one in every if isinstance(one, ipaddress.IPv6Network)]
        return (*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6))


def nodes_and_pods(items: Iterable[Mapping[str, Any]]) -> tuple[Learnt, Learnt]:
    """Addresses of nodes, and of the pods on them, from the Node objects."""
    nodes: set[Network] = set()
    pods: set[Network] = set()
    without: list[str] = []
    for node in items:
        nodes.update(_networks(_addresses(node)))
        spec = node.get("spec", {})
        ranges = _networks(spec.get("podCIDRs") or [spec.get("podCIDR")])
        pods.update(ranges)
        if not ranges:
            without.append(str(node.get("metadata", {}).get("name", "?")))
    return (
        Learnt(frozenset(nodes), "" if nodes else "there are no nodes with an address"),
        Learnt(frozenset(pods), f"no podCIDR at {_some(without)}" if without else ""),
    )


def services(items: Iterable[Mapping[str, Any]]) -> Learnt:
    """Addresses of Services, from the ServiceCIDR objects."""
    networks = _networks(text for item in items for text in item.get("spec", {}).get("cidrs", []))
    return Learnt(frozenset(networks), "" if networks else "there are no ServiceCIDR objects")


def _addresses(node: Mapping[str, Any]) -> list[Any]:
    return [
        one.get("address")
        for one in node.get("status", {}).get("addresses") or []
        if one.get("type") in {"InternalIP", "ExternalIP"}
    ]


def _networks(texts: Iterable[Any]) -> set[Network]:
    """What can be read of addresses and networks; the rest is not for us to judge."""
    found: set[Network] = set()
    for text in texts:
        try:
            found.add(ipaddress.ip_network(str(text), strict=False))
        except ValueError:
            continue
    return found


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(sorted(names)[:_NAMED])
    return listed if len(names) <= _NAMED else f"{listed} and {len(names) - _NAMED} more"
