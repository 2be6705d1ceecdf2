"""Prometheus metrics of the POP/IMAP agent."""

from functools import cache

from netmail_common.metrics import counter, duration, gauge
from prometheus_client import Histogram

SESSIONS = gauge("pop_imap_sessions", "Open connections.", ["protocol"])
COMMANDS = counter("pop_imap_commands", "Commands by verb.", ["protocol", "verb"])
_COMMAND_SECONDS = duration(
    "pop_imap_command",
    "Duration of commands that wait for another agent or for the client.",
    ["protocol", "verb"],
)


@cache  # finding the one for its labels takes longer than to observe
def command_seconds(protocol: str, verb: str) -> Histogram:
    """Of one of our verbs."""
    return _COMMAND_SECONDS.labels(protocol, verb)


LOGINS = counter(
    "pop_imap_logins",
    "Logins by outcome: ok, failed, plaintext refused, unavailable, revoked, malformed, cancelled.",
    ["protocol", "outcome"],
)
for _protocol in ("imap", "pop3"):  # an alert goes by it: an increase is one from 0
    LOGINS.labels(_protocol, "unavailable")
REGISTRATIONS = counter(
    "pop_imap_registrations",
    "Registrations with the Connection Manager, by kind (login, retry, renewal, restart) and"
    " outcome.",
    ["kind", "outcome"],
)
REGISTRATIONS_WAITING = gauge(
    "pop_imap_registrations_waiting",
    "Logins not registered yet: the Connection Manager does not answer, or its table is full.",
)
REVOKED_SESSIONS = counter(
    "pop_imap_revoked_sessions", "Sessions ended because their login was revoked."
)
