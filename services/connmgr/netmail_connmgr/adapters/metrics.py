"""What the Connection Manager counts."""

import itertools

from netmail_common.connmgr.model import LoginProtocol
from netmail_common.metrics import counter, duration, gauge

from netmail_connmgr.domain.connections import Service
from netmail_connmgr.domain.table import Outcome

REGISTRATIONS = counter(
    "connmgr_registrations", "Logins that wanted to be remembered", ["protocol", "kind", "outcome"]
)
DECISIONS = counter("connmgr_decisions", "Relay decisions", ["decision", "reason"])
REVOCATIONS = counter("connmgr_revocations", "Revocations made")
REVOKED_LOGINS = counter("connmgr_revoked_logins", "Logins that revocations ended")
LOGINS = gauge("connmgr_logins", "Logins in the table")
WATCHERS = gauge("connmgr_watchers", "Streams that watch the table", ["mode"])
WATCHERS_CUT_OFF = counter("connmgr_watchers_cut_off", "Streams that were too slow")
CONNECTIONS = counter(
    "connmgr_connection_checks",
    "Connections and logins that were judged; the rule that decided",
    ["verdict", "rule"],
)
DNS_LOOKUPS = counter(
    "connmgr_dns_lookups",
    "Questions to DNS about clients, by what came of them",
    ["kind", "outcome"],
)
DURATION = duration("connmgr_store", "Time that the store took", ["operation"])
FRONT_END_REQUESTS = counter(
    "connmgr_front_end_requests",
    "Requests of servers that are not ours, and what became of them",
    ["front_end", "outcome"],
)
UDP_REQUESTS = counter("connmgr_udp_requests", "Requests by UDP port 689", ["protocol", "kind"])
UDP_FAULTS = counter(
    "connmgr_udp_faults",
    "Datagrams to UDP port 689 that nothing was done for, or whose reply was lost, by fault",
    ["fault"],
)

FAILED_LOGINS = counter(
    "connmgr_failed_logins", "Logins that failed, by service, as agents reported them", ["service"]
)
SUSPECTS = gauge("connmgr_suspects", "Users and networks whose logins agents ask about")
RATES_EXCEEDED = counter(
    "connmgr_rates_exceeded",
    "Times that a known sender wanted to send more than its rate, by way (auth, login) and rate"
    " (user, network, login)",
    ["way", "rate"],
)
COUNTERS_UNAVAILABLE = counter(
    "connmgr_counters_unavailable",
    "Questions about failed logins or rates that the store did not answer: they were let pass",
)
AUDIT_LOST = counter(
    "connmgr_audit_entries_lost", "Entries of the audit log that could not be written"
)
STORE_UP = gauge("connmgr_store_up", "1 while the login store answers; a shared one was read whole")
WAITING = gauge(
    "connmgr_waiting_registrations", "Registrations that wait for the store to come back"
)
WAITING_DROPPED = counter(
    "connmgr_waiting_registrations_dropped", "Registrations that there was no room to keep for it"
)

CLUSTER_NETWORKS = gauge(
    "connmgr_cluster_networks", "Networks that the cluster uses itself, as its API says", ["kind"]
)
CLUSTER_UNKNOWN = gauge(
    "connmgr_cluster_networks_unknown",
    "1: addresses of the cluster's nodes, pods or Services are not known, and one may grant",
    ["kind"],
)


def _begin_at_zero() -> None:
    """Makes what alerts go by: a series that begins with its first event has no increase by it."""
    for protocol, kind in itertools.product(LoginProtocol, ("login", "renewal")):
        REGISTRATIONS.labels(protocol.name.lower(), kind, Outcome.TABLE_FULL.value)
    for service in Service:
        FAILED_LOGINS.labels(service.name.lower())
    for way, rate in itertools.product(("auth", "login"), ("user", "network", "login")):
        RATES_EXCEEDED.labels(way, rate)
    for outcome in ("listed", "not listed", "failed", "too many"):
        DNS_LOOKUPS.labels("dnsbl", outcome)
    for fault in ("source not allowed", "malformed", "name", "no answer from the table"):
        UDP_FAULTS.labels(fault)


_begin_at_zero()
