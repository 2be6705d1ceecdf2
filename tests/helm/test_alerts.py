"""Alerts: each fires when its cause is made, is quiet otherwise, and has its runbook."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.rendering import render

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "helm" / "netmail" / "charts").glob("*/files/alerts/*.yaml"))
DASHBOARDS = sorted((ROOT / "helm" / "netmail" / "charts").glob("*/files/dashboard.json"))
RULES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}

_RISING, _STILL = "0+60x60", "7+0x60"


def histogram(series: str, labels: str = "") -> dict[str, str]:
    """A histogram all of whose observations are above the largest bucket but one."""
    return {
        f'{series}_bucket{{{labels}le="0.001"}}': "0+0x60",
        f'{series}_bucket{{{labels}le="30"}}': "0+0x60",
        f'{series}_bucket{{{labels}le="+Inf"}}': _RISING,
    }


def quick(series: str, labels: str = "") -> dict[str, str]:
    """A histogram all of whose observations are in the smallest bucket."""
    return {
        f'{series}_bucket{{{labels}le="0.001"}}': _RISING,
        f'{series}_bucket{{{labels}le="+Inf"}}': _RISING,
    }


def often(series: str) -> tuple[dict[str, str], dict[str, str]]:
    """Fires while a counter grows; one event alone is nothing."""
    return {series: _RISING}, {series: "7+0x45 8+0x15"}


def rising(series: str) -> tuple[dict[str, str], dict[str, str]]:
    """Fires while a counter grows."""
    return {series: _RISING}, {series: _STILL}


def above(series: str, high: float, low: float) -> tuple[dict[str, str], dict[str, str]]:
    """Fires while a gauge is high."""
    return {series: f"{high}+0x60"}, {series: f"{low}+0x60"}


CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "NetmailConnectionManagerAbsent": ({}, {"netmail_connmgr_logins": "0+0x60"}),
    "NetmailConfigurationUnusable": above('netmail_config_usable{instance="a"}', 0, 1),
    "NetmailRestartNeeded": above('netmail_config_restart_needed{instance="a"}', 2, 0),
    "NetmailClusterAddressesUnknown": above(
        'netmail_connmgr_cluster_networks_unknown{kind="pods"}', 1, 0
    ),
    "NetmailLoginStoreDown": above('netmail_connmgr_store_up{instance="a"}', 0, 1),
    "NetmailLoginStoreSlow": (
        histogram("netmail_connmgr_store_seconds", 'operation="find",'),
        quick("netmail_connmgr_store_seconds", 'operation="find",'),
    ),
    "NetmailLoginTableFull": rising('netmail_connmgr_registrations_total{outcome="table full"}'),
    "NetmailRegistrationsDropped": rising("netmail_connmgr_waiting_registrations_dropped_total"),
    "NetmailWatchersCutOff": rising("netmail_connmgr_watchers_cut_off_total"),
    "NetmailRateExceeded": rising('netmail_connmgr_rates_exceeded_total{way="auth",rate="user"}'),
    "NetmailPasswordGuessing": (
        {'netmail_connmgr_failed_logins_total{service="imap"}': "0+600x60"},
        {'netmail_connmgr_failed_logins_total{service="imap"}': "0+30x60"},
    ),
    "NetmailCountersUnavailable": rising("netmail_connmgr_counters_unavailable_total"),
    "NetmailDnsListsSilent": (
        {
            'netmail_connmgr_dns_lookups_total{kind="dnsbl",outcome="failed"}': "0+80x60",
            'netmail_connmgr_dns_lookups_total{kind="dnsbl",outcome="not listed"}': "0+20x60",
        },
        {
            'netmail_connmgr_dns_lookups_total{kind="dnsbl",outcome="failed"}': "0+20x60",
            'netmail_connmgr_dns_lookups_total{kind="dnsbl",outcome="not listed"}': "0+80x60",
            'netmail_connmgr_dns_lookups_total{kind="reverse",outcome="unknown"}': "0+900x60",
        },
    ),
    "NetmailAuditEntriesLost": rising("netmail_connmgr_audit_entries_lost_total"),
    "NetmailLegacyUdpFaults": (
        {'netmail_connmgr_udp_faults_total{fault="short"}': "0+600x60"},
        {'netmail_connmgr_udp_faults_total{fault="short"}': "0+30x60"},
    ),
    "NetmailRelayUndecided": often(
        'netmail_smtp_relay_decisions_total{reason="connection manager unreachable"}'
    ),
    "NetmailReplicaStale": above('netmail_smtp_replica_age_seconds{instance="a"}', 60, 2),
    "NetmailSubmissionsFail": (
        {
            'netmail_smtp_messages_total{code="451"}': "0+20x60",
            'netmail_smtp_messages_total{code="250"}': "0+100x60",
        },
        {
            'netmail_smtp_messages_total{code="451"}': "0+2x60",
            'netmail_smtp_messages_total{code="250"}': "0+100x60",
        },
    ),
    "NetmailDeliveriesDeferred": (
        {
            'netmail_deliver_recipients_total{outcome="deferred",way="smtp"}': "0+80x60",
            'netmail_deliver_recipients_total{outcome="delivered",way="smtp"}': "0+20x60",
        },
        {
            'netmail_deliver_recipients_total{outcome="deferred",way="smtp"}': "0+20x60",
            'netmail_deliver_recipients_total{outcome="delivered",way="smtp"}': "0+80x60",
        },
    ),
    "NetmailDeliverAbsent": ({}, {"netmail_deliver_items_under_way": "0+0x60"}),
    "NetmailRegistrationsWaiting": above("netmail_pop_imap_registrations_waiting", 3, 0),
    "NetmailLoginsUnavailable": often('netmail_pop_imap_logins_total{outcome="unavailable"}'),
    "NetmailNmapAbsent": ({}, {"netmail_nmap_store_bytes": "4096+0x60"}),
    "NetmailQueueOld": above('netmail_nmap_queue_oldest_due_seconds{instance="a"}', 1000, 10),
    "NetmailStoreCommitSlow": (
        histogram("netmail_nmap_store_commit_seconds", 'instance="a",'),
        quick("netmail_nmap_store_commit_seconds", 'instance="a",'),
    ),
    "NetmailRevocationsPending": above('netmail_nmap_pending_revocations{instance="a"}', 2, 0),
    "NetmailPasswordHashingBusy": above('netmail_nmap_password_hash_waiting{instance="a"}', 64, 2),
}


_AGENTS_SERIES = """
import prometheus_client
from netmail_connmgr.adapters import metrics
from netmail_pop_imap.adapters import metrics
from netmail_smtp.adapters import deliver_metrics, metrics
metrics.sessions("smtp")
print(prometheus_client.generate_latest().decode())
"""
"""What agents tell before anything has happened; the SMTP agent has had its first client."""


def promtool(*argv: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    return subprocess.run(
        ["promtool", *argv], check=False, capture_output=True, text=True, cwd=folder, timeout=120
    )


def test_every_alert_is_tried_and_nothing_else() -> None:
    assert set(CASES) == set(RULES)
    assert all(rule["alert"] == name for name, rule in RULES.items())


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    runbooks = ROOT / "docs" / "runbooks"
    assert {path.stem for path in runbooks.glob("Netmail*.md")} == set(RULES)
    listed = (runbooks / "README.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        assert f"({name}.md) | {rule['labels']['severity']} |" in listed


def missing_series(text: str) -> list[str]:
    """The series of NetMail in TEXT that no agent has."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "services").rglob("*.py"))

    def exists(series: str) -> bool:
        plain = re.sub(r"(_total|(_seconds)?(_bucket|_sum|_count)|_seconds)$", "", series)
        return f'"{series}"' in source or f'"{plain}"' in source

    asked = set(re.findall(r"\bnetmail_([a-z_]+)", text))
    assert asked
    return sorted(series for series in asked if not exists(series))


def test_every_series_that_an_alert_asks_for_exists_in_an_agent() -> None:
    assert missing_series("\n".join(rule["expr"] for rule in RULES.values())) == []


def test_every_counter_that_an_alert_goes_by_is_there_before_it_counts_anything() -> None:
    """Else its first event is no increase, and the alert misses it."""
    said = subprocess.run(
        [sys.executable, "-c", _AGENTS_SERIES], check=True, capture_output=True, text=True
    ).stdout
    told = [(name, labels or "") for name, labels in re.findall(r"(?m)^(\w+)(\{.*\})? ", said)]
    asked = {
        (name, labels)
        for rule in RULES.values()
        for name, labels in re.findall(r"(netmail_\w+_total)(\{[^}]*\})?\[", rule["expr"])
        if not name.startswith("netmail_nmap")
    }
    assert len(asked) > 10
    for name, labels in asked:
        wanted = [f'{key}="({text})"' for key, text in re.findall(r'(\w+)=~?"([^"]*)"', labels)]
        assert any(
            name == series and all(re.search(one, has) for one in wanted) for series, has in told
        ), (name, labels)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.parts[-3])
def test_every_series_that_a_dashboard_asks_for_exists_in_an_agent(path: Path) -> None:
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert missing_series("\n".join(asked)) == []


def test_every_series_that_scaling_goes_by_exists_in_an_agent() -> None:
    keda = {"autoscaling": {"mode": "keda"}}
    scaled = render(
        {"domain": "example.org", "smtp": {"serve": keda, "deliver": keda}, "pop-imap": keda}
    ).of_kind("ScaledObject")
    triggers = [trigger["metadata"] for one in scaled for trigger in one["spec"]["triggers"]]
    assert len(triggers) == 3
    assert missing_series("\n".join(trigger["query"] for trigger in triggers)) == []


def test_a_series_that_no_agent_has_is_found() -> None:
    assert missing_series("rate(netmail_smtp_messages_lost_total[5m])") == [
        "smtp_messages_lost_total"
    ]


def test_alerts_fire_when_their_cause_is_made_and_are_quiet_otherwise(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "netmail", "rules": list(RULES.values())}]})
    )
    tests = [
        test
        for name, (firing, quiet) in CASES.items()
        for test in (_test(name, firing, fires=True), _test(name, quiet, fires=False))
    ]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    checked = promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = promtool("test", "rules", "tests.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def _test(name: str, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    return {
        "name": f"{name}, {'firing' if fires else 'quiet'}",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                "eval_time": "50m",
                "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}],
            }
        ],
    }


def _anywhere(rule: dict[str, Any]) -> dict[str, Any]:
    """A chart's rule without the namespace that it is about, once in each selector."""
    selectors = re.findall(r"netmail_[a-z_]+(\{[^}]*\})", rule["expr"])
    assert len(selectors) == rule["expr"].count("netmail_") > 0
    assert all(selector.count('namespace="netmail"') == 1 for selector in selectors)
    assert rule["labels"]["namespace"] == "netmail"
    plain = rule["expr"].replace('{namespace="netmail"}', "").replace('namespace="netmail",', "")
    labels = {name: text for name, text in rule["labels"].items() if name != "namespace"}
    return {**rule, "expr": plain, "labels": labels}


def test_the_charts_carry_the_alerts_and_dashboards() -> None:
    charts = ("connmgr", "nmap", "smtp", "pop-imap")
    on = {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}
    rendered = render({"domain": "example.org", **dict.fromkeys(charts, on)})
    rules = [
        rule
        for one in rendered.of_kind("PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert {rule["alert"]: _anywhere(rule) for rule in rules} == RULES
    for chart in charts:
        held = rendered.object("ConfigMap", f"netmail-{chart}-dashboard")["data"]
        assert json.loads(held[f"netmail-{chart}.json"])["panels"]
