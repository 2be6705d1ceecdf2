"""One log line and one count for each registration, decision and revocation."""

import ipaddress

from netmail_common.connmgr.model import Decision, Registration, SenderDecision
from netmail_common.connmgr.rates import RelayWanted
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Verdict
from netmail_connmgr.domain.front_desk import Enquiry
from netmail_connmgr.domain.rates import RateVerdict
from netmail_connmgr.domain.store import RevokeOrder
from netmail_connmgr.domain.table import Outcome, Registered

log = get_logger(__name__)

_KEPT = frozenset({Outcome.REGISTERED, Outcome.SHARED_NETWORK})
_LOGGED_NAME = 64
_LOGGED_ADDRESS = 320


def registration(item: Registration, answer: Registered) -> None:
    """A valid registration and what became of it; a session's renewals are for debugging."""
    kind = "renewal" if item.renewal else "login"
    protocol = item.protocol.name.lower()
    metrics.REGISTRATIONS.labels(protocol, kind, answer.outcome.value).inc()
    kept = answer.outcome in _KEPT
    write = log.debug if kept and item.renewal and answer.renewed else log.info
    write(
        "login registered" if kept else "login refused",
        user=str(item.profile.user),
        address=address_text(item.client_address),
        reason=answer.outcome.value,
        kind=kind,
        protocol=protocol,
        server=item.messaging_server,
        agent=item.agent,
        session=item.session_id,
        remaining=int(answer.remaining),
    )


def not_admitted(name: str, client_address: bytes, why: str) -> None:
    """A registration that is not valid; what it says is not trusted to be short or printable."""
    metrics.REGISTRATIONS.labels("none", "none", Outcome.INVALID.value).inc()
    log.warning(
        "login refused",
        user=repr(name[:_LOGGED_NAME]),
        address=address_text(client_address),
        reason=f"invalid: {why}",
    )


def decision(enquiry: Enquiry, answer: SenderDecision) -> None:
    """A relay decision."""
    senders = enquiry.question.senders
    sender = answer.refused_sender or (senders[0].address if senders else "")
    metrics.DECISIONS.labels(answer.decision.value, answer.reason.value).inc()
    log.info(
        "relaying allowed" if answer.decision is Decision.ALLOWED else "relaying refused",
        address=address_text(enquiry.client_address),
        user=str(answer.login.user) if answer.login is not None else "",
        users=answer.user_count,
        reason=answer.reason.value,
        sender=sender[:_LOGGED_ADDRESS],
        asked_by=enquiry.front_end,
    )


def revocation(order: RevokeOrder, revoked: int) -> None:
    """A revocation that the store has."""
    metrics.REVOCATIONS.inc()
    metrics.REVOKED_LOGINS.inc(revoked)
    log.info(
        "logins revoked",
        user=str(order.user) if order.user is not None else "",
        address=address_text(order.client_address or b""),
        reason=order.reason,
        epoch=order.credential_epoch,
        logins=revoked,
    )


def connection(question: ConnectionQuestion, answer: ConnectionVerdict) -> None:
    """A connection, or a login that is about to be judged; who is let in is only counted."""
    metrics.CONNECTIONS.labels(answer.verdict.name.lower(), answer.rule or "none").inc()
    if answer.verdict is Verdict.ALLOWED:
        return
    log.info(
        "login denied" if question.is_login else "connection denied",
        address=address_text(question.client_address),
        user=str(question.user) if question.user is not None else "",
        rule=answer.rule,
        reason=answer.comment,
        verdict=answer.verdict.value,
        service=question.service.name.lower(),
        server=question.messaging_server,
        listener=question.listener,
    )


def rate_exceeded(
    wanted: RelayWanted, verdict: RateVerdict, client_address: bytes, server: str, *, again: bool
) -> None:
    """A known sender that wants to send more than it may; AGAIN within a minute is only counted."""
    way = "auth" if wanted.authenticated else "login"
    metrics.RATES_EXCEEDED.labels(way, verdict.rate).inc()
    if again:
        return
    log.warning(
        "rate exceeded",
        user=str(wanted.user) if wanted.user is not None else "",
        address=address_text(client_address),
        rate=verdict.rate,
        way=way,
        recipients=wanted.recipients,
        retry_after=int(verdict.retry_after),
        session=wanted.session_id,
        server=server,
    )


def address_text(octets: bytes) -> str:
    """An address as people write it; hexadecimal if it is none."""
    if len(octets) in {4, 16}:
        return str(ipaddress.ip_address(octets))
    return octets[:32].hex()
