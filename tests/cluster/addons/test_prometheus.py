"""Alerts and dashboards on a real Prometheus: quiet while all is well, loud for their causes.

Alerts wait for their `for:` before they fire, up to half an hour: those that wait at most three
minutes are seen to fire, the others at least to have begun (pending). Time itself is tried with
promtool, in tests/helm.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.cluster.addons import causes
from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.addons.monitoring import (
    AGENTS,
    MONITORED,
    Prometheus,
    alert_names,
    panels,
    watching,
)
from tests.cluster.conftest import values_for
from tests.cluster.support import Cluster, Outside, Release, Sink, SteadyLoad
from tests.cluster.support.patience import patience
from tests.cluster.support.release import merged, release

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * TIMEOUT)]

_STEADY = 75
"""Seconds of load before the first look."""
NEED_A_CAUSE = {
    "connmgr: UDP 689, requests (1)": "an agent that speaks UDP 689",
    "connmgr: Front ends (1)": "a Postfix, Dovecot or WHOSON that asks",
    "connmgr: Connections judged (1)": "lists, DNS lists, or a client who has failed to log in",
}
"""Panels that may be empty in an installation without it."""
NOT_MADE = {
    "NetmailLoginStoreDown": "needs Valkey",
    "NetmailLoginStoreSlow": "needs Valkey",
    "NetmailCountersUnavailable": "needs Valkey",
    "NetmailRegistrationsDropped": "needs Valkey",
    "NetmailWatchersCutOff": "needs SMTP agents that hang six times in a quarter of an hour",
    "NetmailStoreCommitSlow": "needs a slow disk",
}
"""Alerts whose cause is not made here; promtool tries their rules."""
PER_POD = {"NetmailConfigurationUnusable", "NetmailRestartNeeded", "NetmailReplicaStale"}
"""Alerts of which each pod has its own."""
_FEW_LOGINS = 3
_LONG_AGO = 900.0
"""NetmailQueueOld's."""


@pytest.fixture(scope="module")
def watched(cluster: Cluster, sink: Sink, hosts: Sequence[Outside]) -> Iterator[Release]:
    """The default installation with monitoring, an audit log, and UDP 689 for the first host."""
    needs(cluster, "prometheus", "prometheuses.monitoring.coreos.com")
    udp = {
        "name": "legacy-udp",
        "containerPort": 6890,
        "port": causes.UDP_PORT,
        "protocol": "UDP",
    }
    values = merged(
        values_for(sink),
        MONITORED,
        {
            "connectionManager": {
                "audit": {"directory": causes.AUDIT},
                "legacy_udp": {
                    "listen": ["0.0.0.0:6890"],
                    "allowed_sources": [f"{hosts[0].address}/32"],
                    "plain": True,
                },
            },
            "connmgr": {"frontEnds": {"ports": [udp]}},
        },
    )
    with release(cluster, f"{NAMESPACE}-prometheus", values) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(watched: Release) -> Prometheus:
    """Knows the agents and their alerts."""
    return watching(watched)


def test_nothing_is_alerted_while_all_is_well_and_dashboards_have_what_they_ask_for(
    watched: Release, prometheus: Prometheus, sink: Sink, hosts: Sequence[Outside]
) -> None:
    assert set(prometheus.rules()) == alert_names(watched)
    prometheus.wait_for_silence(120)  # agents were absent until they were there
    began = time.monotonic()
    with SteadyLoad(watched, sink, hosts) as load:
        time.sleep(_STEADY)
        load.wait_for(2)
        asked = panels(watched)
        empty = {panel: query for panel, query in asked.items() if not prometheus.query(query)}
    history = prometheus.history(time.monotonic() - began)
    print(
        f"\n{len(prometheus.rules())} alerts, pending or firing under steady load: {history};"
        f" {len(asked)} queries of dashboards, empty: {sorted(empty)};"
        f" {load.check()}; patience {patience():.1f}"
    )
    assert history == {}
    assert set(empty) <= set(NEED_A_CAUSE), empty


@dataclass(slots=True)
class Diary:
    """Which alerts' causes were made, and when they were seen."""

    prometheus: Prometheus
    began: float
    good: str
    """The configuration file of before."""
    made: dict[str, int] = field(default_factory=dict)

    def wait_for(self, state: str, *names: str, within: float = 240) -> None:
        """Waits until these alerts are pending or firing."""
        self.prometheus.wait_for_alerts(names, state, within * patience())
        now = round(self.age())
        self.made.update(dict.fromkeys(names, now))
        print(f"\n{now} s: {self.prometheus.alerts()}")

    def age(self) -> float:
        """Seconds since the first cause."""
        return time.monotonic() - self.began


@pytest.fixture(scope="module")
def diary(watched: Release, prometheus: Prometheus) -> Diary:
    """Empty."""
    file = causes.ConfigurationFile(watched)
    return Diary(prometheus, time.monotonic(), file.text())


def test_deliveries_that_come_to_nothing(
    watched: Release, diary: Diary, sink: Sink, hosts: Sequence[Outside]
) -> None:
    sink.refuse = "451 4.3.0 later"
    try:
        causes.submit(watched, hosts[0], 20)
        diary.wait_for("pending", "NetmailDeliveriesDeferred")
        watched.scale("deliver", 0)
    finally:
        sink.refuse = ""
    causes.submit(watched, hosts[0], 3)  # for NetmailQueueOld


def test_no_connection_manager_and_then_one_that_may_not_learn_addresses(
    watched: Release, diary: Diary, hosts: Sequence[Outside]
) -> None:
    causes.ConfigurationFile(watched).change_manager(max_logins=_FEW_LOGINS)
    diary.wait_for("pending", "NetmailRestartNeeded")
    with causes.no_leave_to_learn_addresses(watched):
        watched.scale("connmgr", 0)
        causes.change_password(watched, "bob")
        with causes.again_and_again(
            lambda: causes.ask_to_relay(watched, hosts[3]),
            lambda: causes.log_in(watched, hosts[1]),
        ):
            diary.wait_for(
                "firing",
                "NetmailConnectionManagerAbsent",
                "NetmailRelayUndecided",
                "NetmailReplicaStale",
                "NetmailRegistrationsWaiting",
            )
            diary.wait_for("pending", "NetmailRevocationsPending")
        watched.scale("connmgr", 1)
        diary.wait_for("pending", "NetmailClusterAddressesUnknown")


def test_a_small_table_of_logins_and_an_audit_log_that_cannot_be_written(
    watched: Release, diary: Diary, hosts: Sequence[Outside]
) -> None:
    logins = [partial(causes.log_in, watched, host) for host in hosts]
    with causes.audit_log_read_only(watched), causes.again_and_again(*logins):
        diary.wait_for("firing", "NetmailLoginTableFull", "NetmailAuditEntriesLost")


def test_no_nmap_agent(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    with causes.half_sent(watched, hosts[0], 30) as clients:
        watched.scale("nmap", 0)
        codes = causes.send_the_rest(clients)
    print(f"\nmessages without an NMAP agent were answered with {sorted(set(codes))}")
    with causes.again_and_again(lambda: causes.log_in(watched, hosts[1])):
        diary.wait_for("pending", "NetmailSubmissionsFail")
        diary.wait_for("firing", "NetmailNmapAbsent", "NetmailLoginsUnavailable")
    watched.scale("nmap", 1)


def test_silent_dns_lists_a_rate_and_garbage(
    watched: Release, diary: Diary, sink: Sink, hosts: Sequence[Outside]
) -> None:
    file = causes.ConfigurationFile(watched)
    few = {"context": "users", "user": "bob", "after_auth": {"recipients": 2}}
    file.change_manager(
        dns_servers=["192.0.2.1:53"],
        dnsbl={"zones": [{"zone": "bl.example.com"}], "timeout": 1.0},
        rates={"overrides": [few]},
    )
    unknown = sink.host  # nobody asks about clients who have logged in
    with causes.again_and_again(lambda: causes.ask_to_relay(watched, unknown)):
        diary.wait_for("pending", "NetmailDnsListsSilent")
    file.change_manager(dnsbl=None, dns_servers=None)
    causes.exceed_a_rate(watched, hosts[0], 5)
    diary.wait_for("firing", "NetmailRateExceeded")
    causes.send_garbage(watched, hosts[0], 2000)
    diary.wait_for("pending", "NetmailLegacyUdpFaults")


def test_passwords_are_guessed(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    patient = dict.fromkeys(
        ("address_delay_from", "address_deny_from", "user_delay_from", "user_deny_from"), 1_000_000
    )
    causes.ConfigurationFile(watched).change_manager(guessing=patient)
    with causes.again_and_again(lambda: causes.guess(watched, hosts[1:3], 70, 10), pause=0):
        diary.wait_for("pending", "NetmailPasswordHashingBusy")
    with causes.again_and_again(lambda: causes.guess(watched, hosts[1:3], 8, 10), pause=0):
        diary.wait_for("pending", "NetmailPasswordGuessing", within=400)


def test_a_configuration_that_nobody_can_use(watched: Release, diary: Diary) -> None:
    file = causes.ConfigurationFile(watched)
    file.put("connection_managers: [")
    diary.wait_for("pending", "NetmailConfigurationUnusable")
    file.put(diary.good)


def test_nobody_delivers_for_a_quarter_of_an_hour(watched: Release, diary: Diary) -> None:
    diary.wait_for("firing", "NetmailDeliverAbsent", within=420)
    diary.wait_for("pending", "NetmailQueueOld", within=_LONG_AGO + 120)
    watched.scale("deliver", 1)


def test_each_alert_came_once_and_no_other_did(
    watched: Release, prometheus: Prometheus, diary: Diary
) -> None:
    history = prometheus.history(diary.age())
    fired = {name: states["firing"] for name, states in history.items() if "firing" in states}
    print(
        f"\nseconds until each was seen: {diary.made}\nfired: {sorted(fired)}"
        f"\nonly pending: {sorted(set(history) - set(fired))}"
    )
    assert set(history) == set(diary.made)
    assert set(diary.made) == alert_names(watched) - set(NOT_MADE)
    assert {name: came for name, came in fired.items() if set(came) != {1}} == {}
    several = {name: came for name, came in fired.items() if len(came) != 1}
    assert set(several) <= PER_POD, several


def test_alerts_end_with_their_causes(watched: Release, prometheus: Prometheus) -> None:
    for component in AGENTS:
        watched.wait_for(component, 1)
    began = time.monotonic()
    prometheus.wait_for_silence(1500)
    print(f"\nno alert pending or firing {time.monotonic() - began:.0f} s after the last cause")
