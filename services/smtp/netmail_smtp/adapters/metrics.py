"""Prometheus metrics of the receiving side."""

import functools

from netmail_common.metrics import counter, duration, gauge
from prometheus_client import Counter, Gauge, Histogram

COMMANDS = counter("smtp_commands", "SMTP commands by verb and reply class.", ("verb", "reply"))
COMMAND_SECONDS = duration("smtp_command", "Time from a command to its reply.", ("verb",))
RELAY_DECISIONS = counter(
    "smtp_relay_decisions", "Decisions about recipients.", ("reason", "accepted")
)
MESSAGES = counter(
    "smtp_messages", "Messages after their end, by reply code.", ("listener", "code")
)
MESSAGE_OCTETS = counter("smtp_message_octets", "Octets of messages that were accepted.")
LOGIN_DECISIONS = counter(
    "smtp_login_decisions",
    "Relay decisions by login: by this process's replica of the login table, or by a call to the"
    " Connection Manager.",
    ("by",),
)
REPLICA_LOGINS = gauge("smtp_replica_logins", "Logins in this process's replica.")
REPLICA_AGE = gauge(
    "smtp_replica_age_seconds",
    "Seconds since the replica knew everything that the Connection Manager did.",
)
AUTHENTICATIONS = counter(
    "smtp_authentications", "SMTP AUTH exchanges by outcome.", ("mechanism", "outcome")
)
SESSIONS = gauge("smtp_sessions", "Sessions that are open.", ("listener",))


@functools.lru_cache(maxsize=256)
def relay_decisions(reason: str, *, accepted: bool) -> Counter:
    """RELAY_DECISIONS with its labels; there are few reasons."""
    return RELAY_DECISIONS.labels(reason, "yes" if accepted else "no")


relay_decisions("connection manager unreachable", accepted=False)  # an alert goes by it


@functools.lru_cache(maxsize=2)
def login_decisions(by: str) -> Counter:
    """LOGIN_DECISIONS with its label: replica or call."""
    return LOGIN_DECISIONS.labels(by)


@functools.lru_cache(maxsize=256)
def messages(listener: str, code: int) -> Counter:
    """MESSAGES with its labels."""
    return MESSAGES.labels(listener, str(code))


@functools.lru_cache(maxsize=64)
def sessions(listener: str) -> Gauge:
    """SESSIONS with its label; what alerts go by begins at 0, so that an increase is seen."""
    for code in (250, 451, 452):
        messages(listener, code)
    return SESSIONS.labels(listener)


class VerbMetrics:
    """COMMANDS and COMMAND_SECONDS, their label lookups done once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def observe(self, verb: str, code: int, seconds: float) -> None:
        """One command was answered with CODE after SECONDS."""
        key = (verb, code // 100)
        known = self._known.get(key)
        if known is None:
            known = COMMANDS.labels(verb, f"{code // 100}xx"), COMMAND_SECONDS.labels(verb)
            self._known[key] = known
        known[0].inc()
        known[1].observe(seconds)
