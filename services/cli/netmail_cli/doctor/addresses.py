"""What the addresses of the last hour, and what was learnt of the cluster, tell."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_cli.doctor.findings import Finding, Level
from netmail_cli.doctor.services import Door

__all__ = ["judge_addresses", "judge_cluster"]

_HIDDEN = frozenset({"an address of the cluster's own", "an address of our own", "loopback"})
_FEW = 20
"""Connections from which one single address says something."""
_MAX_CLIENTS = 1000
"""Addresses of a listener that are told one by one."""


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
    return [_judge(door, _clients(door, answers)) for door in doors]


@dataclass(slots=True)
class _Clients:
    """Connections to a listener; the standing of their addresses; others, of addresses unknown."""

    connections: Counter[str] = field(default_factory=Counter)
    standings: dict[str, str] = field(default_factory=dict)
    others: int = 0


def _clients(door: Door, answers: list[pb.DescribeAddressesResponse]) -> _Clients:
    clients = _Clients()
    for answer in answers:
        for listener in answer.listeners:
            if (listener.messaging_server, listener.listener) != (door.server, door.name):
                continue
            clients.others += listener.others
            for one in listener.clients:
                address = str(ipaddress.ip_address(one.client_address))
                clients.connections[address] += one.connections
                clients.standings[address] = "grants" if one.grants else one.standing
    return clients


def _judge(door: Door, clients: _Clients) -> Finding:
    about = f"{door.server} {door.name}, last hour"
    counts, standings = clients.connections, clients.standings
    total = sum(counts.values()) + clients.others
    if not total:
        return Finding(Level.UNKNOWN, about, "nobody connected", "ask from outside, see below")
    hidden = sum(count for one, count in counts.items() if standings[one] in _HIDDEN)
    shown = ", ".join(f"{one} ({standings[one]}) {count}" for one, count in counts.most_common(3))
    said = f"{total} connections from {len(counts)} addresses: {shown}"
    level, do = Level.GOOD, ""
    if hidden == total:
        level = Level.BAD if door.vouches else Level.WARNING
        said += (
            ". All of them are the cluster's own: clients' addresses do not arrive"
            " (no login from there grants)"
        )
        do = "see what is said of its Service and of the load balancer before it"
    elif len(counts) == 1 and total >= _FEW:
        level = Level.WARNING
        said += ". One address only: maybe a proxy's"
        do = "ask from outside; if it is a proxy, let it send the PROXY header"
    elif hidden:
        level = Level.WARNING
        said += f". {hidden} of them came from the cluster itself"
    return Finding(level, about, said, do, dict(counts.most_common(_MAX_CLIENTS)))
