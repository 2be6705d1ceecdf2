"""What the addresses of the last hour, and what was learnt of the cluster, tell."""

import ipaddress
from collections import Counter
from collections.abc import Iterator

from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_cli.doctor.findings import Finding, Level
from netmail_cli.doctor.services import Door

__all__ = ["judge_addresses", "judge_cluster"]

_HIDDEN = frozenset({"an address of the cluster's own", "an address of our own", "loopback"})
_FEW = 20
"""Connections from which one single address says something."""


def judge_cluster(
    manager: str, answer: pb.DescribeAddressesResponse, *, in_cluster: bool
) -> Iterator[Finding]:
    """Whether the Connection Manager knows which addresses are the cluster's own."""
    about = f"Connection Manager {manager}"
    if not answer.learns:
        if in_cluster:
            yield Finding(
                Level.WARNING,
                about,
                "it does not learn the addresses of nodes, pods and Services: one of them that"
                " is public could grant",
                "set connmgr.clusterNetworks.enabled, or name them in shared_networks",
            )
        return
    for one in answer.cluster:
        if one.unknown:
            yield Finding(
                Level.WARNING,
                about,
                f"{one.kind}: {one.unknown}",
                "name their ranges in connectionManager.shared_networks",
            )
        else:
            shown = ", ".join(one.networks[:4]) + (" ..." if one.count > 4 else "")
            yield Finding(Level.GOOD, about, f"{one.kind} never grant: {shown}")


def judge_addresses(
    doors: list[Door], answers: list[pb.DescribeAddressesResponse]
) -> list[Finding]:
    """What arrived at each listener in the last hour."""
    return [_judge(door, answers) for door in doors]


def _judge(door: Door, answers: list[pb.DescribeAddressesResponse]) -> Finding:
    about = f"{door.server} {door.name}, last hour"
    counts: Counter[str] = Counter()
    standings: dict[str, str] = {}
    others = 0
    for answer in answers:
        for listener in answer.listeners:
            if (listener.messaging_server, listener.listener) != (door.server, door.name):
                continue
            others += listener.others
            for client in listener.clients:
                address = str(ipaddress.ip_address(client.client_address))
                counts[address] += client.connections
                standings[address] = "grants" if client.grants else client.standing
    total = sum(counts.values()) + others
    if not total:
        return Finding(Level.UNKNOWN, about, "nobody connected", "ask from outside, see below")
    hidden = sum(count for one, count in counts.items() if standings[one] in _HIDDEN)
    shown = ", ".join(f"{one} ({standings[one]}) {count}" for one, count in counts.most_common(3))
    said = f"{total} connections from {len(counts)} addresses: {shown}"
    if hidden == total:
        return Finding(
            Level.BAD if door.vouches else Level.WARNING,
            about,
            f"{said}. All of them are the cluster's own: clients' addresses do not arrive"
            " (no login from there grants)",
            "see what is said of its Service and of the load balancer before it",
        )
    if len(counts) == 1 and total >= _FEW:
        return Finding(
            Level.WARNING,
            about,
            f"{said}. One address only: maybe a proxy's",
            "ask from outside; if it is a proxy, let it send the PROXY header",
        )
    if hidden:
        return Finding(
            Level.WARNING, about, f"{said}. {hidden} of them came from the cluster itself"
        )
    return Finding(Level.GOOD, about, said)
