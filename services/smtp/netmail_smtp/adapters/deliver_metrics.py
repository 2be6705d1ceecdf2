"""Figures of the sending side."""

from netmail_common.metrics import counter, duration, gauge

RECIPIENTS = counter(
    "deliver_recipients",
    "Recipients by what an attempt came to: delivered, deferred, failed",
    ["outcome", "way"],
)
for _outcome in ("delivered", "deferred", "failed"):  # an alert goes by them: an increase is from 0
    RECIPIENTS.labels(_outcome, "smtp")
ATTEMPTS = duration("deliver_attempt", "Time of one attempt, queue item by queue item", ["way"])
SESSIONS = counter(
    "deliver_sessions", "SMTP sessions opened, by TLS: none, unverified, verified", ["tls"]
)
UNDER_WAY = gauge("deliver_items_under_way", "Leased queue items that are being delivered")
LEASED = counter("deliver_leased", "Queue items leased")
