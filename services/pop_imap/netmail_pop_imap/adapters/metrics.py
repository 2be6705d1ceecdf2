"""Prometheus metrics of the POP/IMAP agent."""

from prometheus_client import Counter, Gauge, Histogram

SESSIONS = Gauge("netmail_pop_imap_sessions", "Open connections.", ["protocol"])
COMMANDS = Counter("netmail_pop_imap_commands_total", "Commands by verb.", ["protocol", "verb"])
COMMAND_SECONDS = Histogram(
    "netmail_pop_imap_command_seconds",
    "Duration of commands that wait for another agent or the client.",
    ["protocol", "verb"],
)
LOGINS = Counter(
    "netmail_pop_imap_logins_total",
    "Logins by outcome: ok, failed, refused, unavailable, revoked.",
    ["protocol", "outcome"],
)
REGISTRATIONS = Counter(
    "netmail_pop_imap_registrations_total",
    "Registrations with the Connection Manager, by kind and outcome.",
    ["kind", "outcome"],
)
REGISTRATIONS_WAITING = Gauge(
    "netmail_pop_imap_registrations_waiting",
    "Logins that are not registered yet because the Connection Manager does not answer.",
)
REVOKED_SESSIONS = Counter(
    "netmail_pop_imap_revoked_sessions_total", "Sessions ended because their login was revoked."
)
