"""Faults: of processes, of nodes, of stores; and what the clients noticed of each."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.conftest import values_for
from tests.cluster.ha.shared_stores import VALUES, Stores, is_ready
from tests.cluster.support import Cluster, CommandFailed, Ledger, Outside, Release, Sink, SteadyLoad
from tests.cluster.support.doors import Door, Doors
from tests.cluster.support.load import Stranger
from tests.cluster.support.release import CHART, default_values, merged
from tests.cluster.support.stages import ask_to_relay, pop3_login, refused_politely
from tests.support.waiting import eventually

AGENTS = ("connmgr", "nmap", "smtp", "deliver", "pop-imap")
_VALUES_HA = CHART / "values-ha.yaml"


def for_each_agent(**settings: Any) -> dict[str, Any]:
    """The same values for each agent."""
    agents: dict[str, Any] = dict.fromkeys(AGENTS, settings)
    return {"smtp": {"serve": agents.pop("smtp"), "deliver": agents.pop("deliver")}, **agents}


def ha_values(sink: Sink, *more: dict[str, Any]) -> dict[str, Any]:
    """Over values-ha.yaml: the stores' addresses, and two pods of each agent.

    The processors of a machine that runs a whole cluster say nothing about the load.
    """
    two = for_each_agent(autoscaling={"mode": "hpa", "minReplicas": 2, "maxReplicas": 2})
    return merged(default_values(), values_for(sink), VALUES, two, *more)


@dataclass(slots=True)
class Scene:
    """An installation under load, and somebody whose login was revoked before."""

    cluster: Cluster
    release: Release
    stores: Stores
    sink: Sink
    hosts: list[Outside]
    revoked: Outside
    results: list[str] = field(default_factory=list)

    @contextmanager
    def load(self, what: str, *, each: int = 2) -> Iterator[SteadyLoad]:
        """Steady load during a fault; afterwards nothing may be lost, nobody wrongly relayed."""
        ledger = Ledger("revoked")
        doors = Doors.of(self.release)
        pop3_login(self.revoked, doors.pop3s, "bob")
        assert ask_to_relay(self.revoked, doors.smtp, "bob").startswith("250")
        self.release.netmail("login", "revoke", "--address", self.revoked.address)
        refused_politely(eventually(lambda: _refusal(self.revoked, doors.smtp), 5))
        still_asks = Stranger(ledger, self.revoked, self.release.address("smtp"), 0.5)
        with SteadyLoad(self.release, self.sink, self.hosts, each=each) as load:
            still_asks.start()
            load.wait_for(2 * each)
            began = time.monotonic()
            yield load
            load.wait_for(2 * each)
            ended = time.monotonic()
            still_asks.stop()
            still_asks.join(60)
        gaps = load.gaps(began, ended)
        finding = load.check()
        assert ledger.wrong == []
        assert ledger.successes
        refused = len(load.strangers.successes) + len(ledger.successes)
        self._say(
            f"{what}: {finding.acknowledged} acknowledged, {len(finding.missing)} lost,"
            f" {finding.doubled} twice, {finding.doubled_repeats} twice that had to be repeated,"
            f" {finding.sink_duplicates} twice at the sink;"
            f" strangers refused {refused} times, let through 0;"
            f" longest time without a success (s): {json.dumps(gaps)}"
        )
        for kind, troubles in load.troubles(began).items():
            if troubles:
                self._say(f"    {kind} saw: {'; '.join(troubles)[:600]}")

    def kill(self, pod: str) -> None:
        """kill -9 of what runs in a pod. Raises: CommandFailed."""
        self._signal(pod, "SIGKILL")

    @contextmanager
    def standing_still(self, pod: str) -> Iterator[None]:
        """Nothing in the pod runs; its connections stay open."""
        node, container = self._container(pod)
        self.cluster.do("node", "exec", node, *_ctr("pause", container))
        try:
            yield
        finally:
            self.cluster.do("node", "exec", node, *_ctr("resume", container))

    def ready(self, component: str) -> list[str]:
        """Names of the component's pods that are ready."""
        return [p.name for p in self.release.pods(component) if p.ready and not p.ending]

    def install(self, *more: dict[str, Any]) -> None:
        """values-ha.yaml with what the tests add; waits until it is whole."""
        self.release.install(ha_values(self.sink, *more), files=[_VALUES_HA], wait=False)

    def wait_until_whole(self, pods: int = 2, within: float = 300) -> None:
        """Waits until so many pods of each agent are ready, and the stores are whole."""
        for component in AGENTS:
            self.release.wait_for(component, pods, within)
        self.stores.wait_until_whole(within)

    def _signal(self, pod: str, signal: str) -> None:
        node, container = self._container(pod)
        self.cluster.do("node", "exec", node, *_ctr("kill", "-s", signal, container))

    def _container(self, pod: str) -> tuple[str, str]:
        """Number of the node, and the container's id."""
        found = self.release.get("pod", pod)
        container = found["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        return found["spec"]["nodeName"].removeprefix("node"), container

    def _say(self, line: str) -> None:
        self.results.append(line)
        sys.stdout.write(f"\n{line}")


def _ctr(*words: str) -> tuple[str, ...]:
    return ("ctr", "-n", "k8s.io", "tasks", *words)


def _refusal(host: Outside, door: Door) -> str:
    reply = ask_to_relay(host, door, "bob")
    return "" if reply.startswith("250") else reply


def node_is_ready(cluster: Cluster, node: str) -> bool:
    """The node is up and says so."""
    try:
        return is_ready(cluster.get("node", node))
    except CommandFailed:
        return False
