"""Alerts and dashboards on a real Prometheus: quiet while all is well, loud for their causes.

Alerts wait for their `for:` before they fire, up to half an hour; here all that wait do so for a
minute once their causes are made. Time itself is tried with promtool, in tests/helm. Those of a
shared store of logins have their causes in test_prometheus_valkey.py.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.cluster.addons import causes
from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.addons.monitoring import (
    AGENTS,
    MONITORED,
    Diary,
    Prometheus,
    alert_names,
    hurried,
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
ELSEWHERE = {
    "NetmailLoginStoreDown",
    "NetmailLoginStoreSlow",
    "NetmailCountersUnavailable",
    "NetmailRegistrationsDropped",
}
"""Alerts that need a shared store."""
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


@pytest.fixture(scope="module")
def diary(watched: Release, prometheus: Prometheus) -> Diary:
    """Empty; from now on no alert waits long."""
    hurried(watched, prometheus)
    return Diary(prometheus)


def test_watchers_that_hang(watched: Release, diary: Diary) -> None:
    ends = causes.hang_watchers(watched, watchers=7, thousands=120)
    assert ends == ["WATCHER_TOO_SLOW"] * 7
    diary.wait_for("NetmailWatchersCutOff")


def test_deliveries_that_come_to_nothing(
    watched: Release, diary: Diary, sink: Sink, hosts: Sequence[Outside]
) -> None:
    sink.refuse = "451 4.3.0 later"
    try:
        causes.submit(watched, hosts[0], 20)
        diary.wait_for("NetmailDeliveriesDeferred")
        watched.scale("deliver", 0)
    finally:
        sink.refuse = ""
    causes.submit(watched, hosts[0], 3)  # for NetmailQueueOld


def test_no_connection_manager_and_then_one_that_may_not_learn_addresses(
    watched: Release, diary: Diary, hosts: Sequence[Outside]
) -> None:
    causes.ConfigurationFile(watched).change_manager(max_logins=_FEW_LOGINS)
    diary.wait_for("NetmailRestartNeeded")
    with causes.no_leave_to_learn_addresses(watched):
        watched.scale("connmgr", 0)
        causes.change_password(watched, "bob")
        with causes.again_and_again(
            lambda: causes.ask_to_relay(watched, hosts[3]),
            lambda: causes.log_in(watched, hosts[1]),
        ):
            diary.wait_for(
                "NetmailConnectionManagerAbsent",
                "NetmailRelayUndecided",
                "NetmailReplicaStale",
                "NetmailRegistrationsWaiting",
                "NetmailRevocationsPending",
            )
        watched.scale("connmgr", 1)
        diary.wait_for("NetmailClusterAddressesUnknown")


def test_a_small_table_of_logins_and_an_audit_log_that_cannot_be_written(
    watched: Release, diary: Diary, hosts: Sequence[Outside]
) -> None:
    logins = [partial(causes.log_in, watched, host) for host in hosts]
    with causes.audit_log_read_only(watched), causes.again_and_again(*logins):
        diary.wait_for(
            "NetmailLoginTableFull", "NetmailAuditEntriesLost", "NetmailRegistrationsWaiting"
        )


def test_no_nmap_agent(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    with causes.half_sent(watched, hosts[0], 30) as clients:
        watched.scale("nmap", 0)
        codes = causes.send_the_rest(clients)
    print(f"\nmessages without an NMAP agent were answered with {sorted(set(codes))}")
    with causes.again_and_again(lambda: causes.log_in(watched, hosts[1])):
        diary.wait_for("NetmailNmapAbsent", "NetmailLoginsUnavailable", "NetmailSubmissionsFail")
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
        diary.wait_for("NetmailDnsListsSilent")
    file.change_manager(dnsbl=None, dns_servers=None)
    causes.exceed_a_rate(watched, hosts[0], 5)
    diary.wait_for("NetmailRateExceeded")
    causes.send_garbage(watched, hosts[0], 2000)
    diary.wait_for("NetmailLegacyUdpFaults")


def test_passwords_are_guessed(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    patient = dict.fromkeys(
        ("address_delay_from", "address_deny_from", "user_delay_from", "user_deny_from"), 1_000_000
    )
    causes.ConfigurationFile(watched).change_manager(guessing=patient)
    with causes.again_and_again(lambda: causes.guess(watched, hosts, 60, 150), pause=0):
        diary.wait_for("NetmailPasswordHashingBusy")
    with causes.again_and_again(lambda: causes.guess(watched, hosts, 8, 10), pause=0):
        diary.wait_for("NetmailPasswordGuessing", within=400)


def test_a_configuration_that_nobody_can_use(watched: Release, diary: Diary) -> None:
    file = causes.ConfigurationFile(watched)
    good = file.text()
    file.put("connection_managers: [")
    diary.wait_for("NetmailConfigurationUnusable")
    file.put(good)


def test_a_slow_disk(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    with (
        causes.slow_disk(watched, "nmap", 2),
        causes.again_and_again(lambda: causes.submit(watched, hosts[0], 1)),
    ):
        diary.wait_for("NetmailStoreCommitSlow")


def test_nobody_delivers_for_a_quarter_of_an_hour(watched: Release, diary: Diary) -> None:
    diary.wait_for("NetmailDeliverAbsent", "NetmailQueueOld", within=_LONG_AGO + 180)
    watched.scale("deliver", 1)


def test_each_alert_fired_once_and_no_other_did(watched: Release, diary: Diary) -> None:
    # While many guess, some logins wait too long for their turn.
    diary.check(consequences={"NetmailLoginsUnavailable"})
    assert set(diary.made) == alert_names(watched) - ELSEWHERE


def test_alerts_end_with_their_causes(watched: Release, prometheus: Prometheus) -> None:
    for component in AGENTS:
        watched.wait_for(component, 1)
    began = time.monotonic()
    prometheus.wait_for_silence(1500)
    print(f"\nno alert pending or firing {time.monotonic() - began:.0f} s after the last cause")
