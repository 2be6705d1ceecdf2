"""The cluster's Prometheus, and charts that it watches."""

import itertools
import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from tests.cluster.support import Cluster, CommandFailed, Release
from tests.cluster.support.patience import patience
from tests.support.waiting import eventually

CHARTS = ("connmgr", "nmap", "smtp", "pop-imap")
_ON = {
    "serviceMonitor": {"enabled": True, "interval": "5s"},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}
MONITORED: dict[str, Any] = dict.fromkeys(CHARTS, _ON)
"""Values: each chart with its PodMonitors, alerts and dashboard."""
AGENTS = ("connmgr", "deliver", "nmap", "pop-imap", "smtp")
_SERVICE = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1"
"""Where the charts expect it, `http://prometheus.monitoring.svc:9090`, through the API server."""
_POLL = 2
_HURRY = 60
"""Seconds that no alert's `for:` is longer than, once they were hurried."""
_SEVERAL = {
    "NetmailConfigurationUnusable",
    "NetmailRestartNeeded",
    "NetmailReplicaStale",
    "NetmailClusterAddressesUnknown",
}
"""Alerts of which each pod, or kind of address, has its own."""
_GAP = 30.0
"""Seconds between two samples from which an alert has fired anew; rules are asked every 5."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """What it knows of one installation."""

    cluster: Cluster
    namespace: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result's elements: `metric` and `value`, or `values`. Raises: CommandFailed."""
        answer = self._ask("query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def value(self, expression: str) -> float:
        """The one number that it gives; 0 if there is none. Raises: CommandFailed."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def scraped(self) -> set[str]:
        """Components of the installation whose metrics come in."""
        found = self.query(f'up{{namespace="{self.namespace}"}} == 1')
        return {
            component
            for one in found
            for component in AGENTS
            if f"-{component}-" in one["metric"].get("pod", "")
        }

    def rules(self) -> dict[str, dict[str, Any]]:
        """The installation's alerts, by name. Raises: CommandFailed."""
        groups = self._ask("rules", type="alert")["groups"]
        return {
            rule["name"]: rule
            for group in groups
            for rule in group["rules"]
            if rule["labels"].get("namespace") == self.namespace
        }

    def alerts(self) -> dict[str, str]:
        """The installation's alerts of this moment: pending, or firing if one of a name is."""
        found: dict[str, str] = {}
        for alert in self._ask("alerts")["alerts"]:
            if alert["labels"].get("namespace") == self.namespace:
                name = alert["labels"]["alertname"]
                found[name] = (
                    "firing" if "firing" in {found.get(name), alert["state"]} else "pending"
                )
        return found

    def wait_until_firing(self, names: Collection[str], within: float) -> None:
        """Waits until all of them do."""
        deadline = time.monotonic() + within
        while missing := {name for name in names if self.alerts().get(name) != "firing"}:
            assert time.monotonic() < deadline, f"not firing: {missing}; {self.alerts()}"
            time.sleep(_POLL)

    def wait_for_silence(self, within: float) -> None:
        """Waits until no alert of the installation is pending or firing."""
        deadline = time.monotonic() + within
        while now := self.alerts():
            assert time.monotonic() < deadline, now
            time.sleep(_POLL)

    def history(self, seconds: float) -> dict[str, dict[str, list[int]]]:
        """By name and state: how often each alert of it has come in the last SECONDS."""
        wanted = f'ALERTS{{namespace="{self.namespace}"}}[{int(seconds)}s]'
        found: dict[str, dict[str, list[int]]] = {}
        for series in self.query(wanted):
            labels, times = series["metric"], [at for at, _ in series["values"]]
            came = 1 + sum(b - a > _GAP for a, b in itertools.pairwise(times))
            states = found.setdefault(labels["alertname"], {})
            states.setdefault(labels["alertstate"], []).append(came)
        return found

    def _ask(self, path: str, **parameters: str) -> Any:
        raw = self.cluster.kubectl("get", "--raw", f"{_SERVICE}/{path}?{urlencode(parameters)}")
        answer = json.loads(raw)
        if answer["status"] != "success":
            raise CommandFailed(raw)
        return answer["data"]


def watching(release: Release) -> Prometheus:
    """The cluster's Prometheus, as soon as it has the installation's agents and alerts."""
    prometheus = Prometheus(release.cluster, release.namespace)
    eventually(lambda: prometheus.scraped() == set(AGENTS), 180)
    eventually(lambda: len(prometheus.rules()) == len(alert_names(release)), 120)
    return prometheus


def hurried(release: Release, prometheus: Prometheus) -> None:
    """Lets no alert of the release wait longer than a minute before it fires.

    How long each waits is a matter of its rule, which promtool tries over time (tests/helm).
    """
    for one in release.get("prometheusrules")["items"]:
        groups = one["spec"]["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = f"{_HURRY}s"
        release.kubectl(
            "patch", "prometheusrule", one["metadata"]["name"], "--type=merge",
            "-p", json.dumps({"spec": {"groups": groups}}),
        )  # fmt: skip
    eventually(lambda: all(r["duration"] <= _HURRY for r in prometheus.rules().values()), 180)


@dataclass(slots=True)
class Diary:
    """Which alerts' causes were made, how often, and when they were seen to fire."""

    prometheus: Prometheus
    began: float = field(default_factory=time.monotonic)
    made: dict[str, list[int]] = field(default_factory=dict)

    def wait_for(self, *names: str, within: float = 240) -> None:
        """Waits until these alerts fire."""
        self.prometheus.wait_until_firing(names, within * patience())
        now = round(self.age())
        for name in names:
            self.made.setdefault(name, []).append(now)
        print(f"\n{now} s: {self.prometheus.alerts()}")

    def age(self) -> float:
        """Seconds since the first cause."""
        return time.monotonic() - self.began

    def check(self, consequences: Collection[str] = ()) -> None:
        """Each alert has fired once for each time that its cause was made; no other has come.

        Args:
            consequences: alerts that may have come once more, by what was made for others.
        """
        history = self.prometheus.history(self.age())
        fired = {name: came["firing"] for name, came in history.items() if "firing" in came}
        print(
            f"\nseconds until each was seen: {self.made}\nfired: {fired}"
            f"\nonly pending: {sorted(set(history) - set(fired))}"
        )
        assert set(history) <= {*self.made, *consequences}
        assert {name for name, came in fired.items() if len(came) > 1} <= _SEVERAL
        for name in {*self.made, *fired}:
            times = len(self.made.get(name, ()))
            allowed = {times, times + 1} if name in consequences else {times}
            assert set(fired.get(name, [0])) <= allowed, name


def alert_names(release: Release) -> set[str]:
    """Of the rules that the charts made."""
    return {
        rule["alert"]
        for one in release.get("prometheusrules")["items"]
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    }


def panels(release: Release) -> dict[str, str]:
    """By `dashboard: panel (number)` what each asks Prometheus."""
    asked: dict[str, str] = {}
    for one in release.get("configmaps", "-l", "grafana_dashboard=1")["items"]:
        for name, text in one["data"].items():
            chart = re.sub(r"^netmail-|\.json$", "", name)
            for panel in json.loads(text)["panels"]:
                for number, target in enumerate(panel.get("targets", []), 1):
                    asked[f"{chart}: {panel['title']} ({number})"] = target["expr"]
    return asked
