"""One log line, one count and one audit entry for each registration, decision and revocation.

What is asked in crowds comes here in crowds: counters are raised once for all that is alike.
"""

import contextlib
import functools
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from netmail_common.connmgr.model import (
    Binding,
    Decision,
    LoginProtocol,
    Reason,
    Registration,
    SenderDecision,
    UserKey,
)
from netmail_common.connmgr.rates import RelayWanted
from netmail_common.logging import get_logger, in_one_write

from netmail_connmgr.adapters import metrics
from netmail_connmgr.domain.audit import AuditEntry, AuditKind, Repeats
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Verdict
from netmail_connmgr.domain.front_desk import Enquiry
from netmail_connmgr.domain.rates import RateVerdict
from netmail_connmgr.domain.store import RevokeOrder
from netmail_connmgr.domain.table import Outcome, Registered

log = get_logger(__name__)

# Looked up at each decision, which is to take no longer than it must.
_decisions = functools.lru_cache(maxsize=64)(metrics.DECISIONS.labels)
_registrations = functools.lru_cache(maxsize=256)(metrics.REGISTRATIONS.labels)

_LOGGED_NAME = 64
_LOGGED_ADDRESS = 320

Details = dict[str, str | int | bool]


class _Audit:
    """Where entries of the audit log go: a process is one Connection Manager."""

    def __init__(self) -> None:
        self.note: Callable[[AuditEntry], None] | None = None
        self.repeats = Repeats()

    def write(self, entry: AuditEntry) -> None:
        if self.note is not None:
            self.note(entry)

    def write_once(self, entry: AuditEntry, *same: object) -> None:
        """Writes it unless an entry about the SAME was written within a minute."""
        if self.note is None:
            return
        unwritten = self.repeats.admit((entry.event, entry.address, *same), time.monotonic())
        if unwritten is not None:
            details = {**entry.details, "unwritten": unwritten} if unwritten else entry.details
            self.note(replace(entry, details=details))


_audit = _Audit()


@contextlib.contextmanager
def audited_by(note: Callable[[AuditEntry], None]) -> Iterator[None]:
    """Gives NOTE the entries of the audit log until the block ends."""
    earlier, _audit.note = _audit.note, note
    try:
        yield
    finally:
        _audit.note = earlier


def is_audited() -> bool:
    """Whether there is an audit log."""
    return _audit.note is not None


def registrations(items: Iterable[Registration], answers: Iterable[Registered]) -> None:
    """Valid registrations and what became of them; a session's renewals are for debugging."""
    counted: dict[tuple[LoginProtocol, bool, Outcome], int] = {}
    written = is_audited() or log.is_enabled_for(logging.INFO)
    with in_one_write():
        for item, answer in zip(items, answers, strict=True):
            same = item.protocol, item.renewal, answer.outcome
            counted[same] = counted.get(same, 0) + 1
            if written:
                _registration(item, answer)
    for (protocol, renewal, outcome), number in counted.items():
        kind = "renewal" if renewal else "login"
        _registrations(protocol.name.lower(), kind, outcome.value).inc(number)


def _registration(item: Registration, answer: Registered) -> None:
    kept = answer.outcome.keeps
    event = "login registered" if kept else "login refused"
    details: Details = {
        "reason": answer.outcome.value,
        "protocol": item.protocol.name.lower(),
        "server": item.messaging_server,
        "agent": item.agent,
        "session": item.session_id,
        "remaining": int(answer.remaining),
    }
    user, address = item.profile.user, item.client_address
    goes_on = kept and item.renewal and answer.renewed
    level = logging.DEBUG if goes_on else logging.INFO
    if log.is_enabled_for(level):  # what is not written is not put together either
        kind = "renewal" if item.renewal else "login"
        log.log(level, event, user=str(user), address=address_text(address), kind=kind, **details)
    if not goes_on and is_audited():
        entry_kind = AuditKind.LOGIN if kept else AuditKind.DENIAL
        entry = AuditEntry(entry_kind, event, user, address, details=details)
        _audit.write(entry) if kept else _audit.write_once(entry, user, answer.outcome)


def not_admitted(name: str, client_address: bytes, why: str) -> None:
    """A registration that is not valid; what it says is not trusted to be short or printable."""
    metrics.REGISTRATIONS.labels("none", "none", Outcome.INVALID.value).inc()
    log.warning(
        "login refused",
        user=repr(name[:_LOGGED_NAME]),
        address=address_text(client_address),
        reason=f"invalid: {why}",
    )
    details: Details = {
        "typed": repr(name[:_LOGGED_NAME]),
        "reason": f"invalid: {why}",
    }
    entry = AuditEntry(AuditKind.DENIAL, "login refused", address=client_address, details=details)
    _audit.write_once(entry, why)


def decisions(enquiries: Iterable[Enquiry], answers: Iterable[SenderDecision]) -> None:
    """Relay decisions."""
    counted: dict[tuple[Decision, Reason], int] = {}
    written = is_audited() or log.is_enabled_for(logging.INFO)
    with in_one_write():
        for enquiry, answer in zip(enquiries, answers, strict=True):
            same = answer.decision, answer.reason
            counted[same] = counted.get(same, 0) + 1
            if written:
                _decision(enquiry, answer)
    for (one, reason), number in counted.items():
        _decisions(one.value, reason.value).inc(number)


def _decision(enquiry: Enquiry, answer: SenderDecision) -> None:
    senders = enquiry.question.senders
    sender = answer.refused_sender or (senders[0].address if senders else "")
    allowed = answer.decision is Decision.ALLOWED
    event = "relaying allowed" if allowed else "relaying refused"
    user = answer.login.user if answer.login is not None else None
    # Somebody looked a client up; nobody wanted to relay.
    only_looked_up = not allowed and not senders and enquiry.question.binding is Binding.ANY
    level = logging.DEBUG if only_looked_up else logging.INFO
    if log.is_enabled_for(level):
        log.log(
            level,
            event,
            address=address_text(enquiry.client_address),
            user=str(user) if user is not None else "",
            users=answer.user_count,
            reason=answer.reason.value,
            sender=sender[:_LOGGED_ADDRESS],
            asked_by=enquiry.front_end,
        )
    if not is_audited():
        return
    if only_looked_up:
        return
    details: Details = {
        "reason": answer.reason.value,
        "sender": sender[:_LOGGED_ADDRESS],
        "session": answer.login.session_id if answer.login is not None else "",
        "asked_by": enquiry.front_end,
    }
    kind = AuditKind.RELAY if allowed else AuditKind.DENIAL
    entry = AuditEntry(kind, event, user, enquiry.client_address, answer.users, details)
    _audit.write_once(entry, user, answer.reason, enquiry.front_end, sender if allowed else "")


def relayed(
    wanted: RelayWanted, client_address: bytes, server: str, users: tuple[UserKey, ...] = ()
) -> None:
    """Mail of a known sender that may go; USERS: everybody with a login on his network."""
    details: Details = {
        "way": "auth" if wanted.authenticated else "login",
        "recipients": wanted.recipients,
        "messages": wanted.messages,
        "session": wanted.session_id,
        "server": server,
    }
    _audit.write(
        AuditEntry(AuditKind.RELAY, "mail relayed", wanted.user, client_address, users, details)
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
    details: Details = {
        "reason": order.reason,
        "epoch": order.credential_epoch,
        "logins": revoked,
    }
    address = order.client_address or b""
    _audit.write(
        AuditEntry(AuditKind.REVOCATION, "logins revoked", order.user, address, details=details)
    )


def connections(
    questions: Iterable[ConnectionQuestion], answers: Iterable[ConnectionVerdict]
) -> None:
    """Connections, and logins that are about to be judged; who is let in is only counted."""
    let_in: dict[str, int] = {}
    for question, answer in zip(questions, answers, strict=True):
        if answer.verdict is Verdict.ALLOWED:
            let_in[answer.rule] = let_in.get(answer.rule, 0) + 1
        else:
            metrics.CONNECTIONS.labels(answer.verdict.name.lower(), answer.rule or "none").inc()
            _turned_away(question, answer)
    for rule, number in let_in.items():
        metrics.CONNECTIONS.labels(Verdict.ALLOWED.name.lower(), rule or "none").inc(number)


def _turned_away(question: ConnectionQuestion, answer: ConnectionVerdict) -> None:
    event = "login denied" if question.is_login else "connection denied"
    details: Details = {
        "rule": answer.rule,
        "verdict": answer.verdict.value,
        "service": question.service.name.lower(),
        "server": question.messaging_server,
        "listener": question.listener,
    }
    log.info(
        event,
        address=address_text(question.client_address),
        user=str(question.user) if question.user is not None else "",
        reason=answer.comment,
        **details,
    )
    address, user = question.client_address, question.user
    entry = AuditEntry(AuditKind.DENIAL, event, user, address, details=details)
    _audit.write_once(entry, user, answer.rule)


def failed_login(question: ConnectionQuestion, delay: float) -> None:
    """A login that failed. What was typed instead of a user's name may be a password."""
    service = question.service.name.lower()
    metrics.FAILED_LOGINS.labels(service).inc()
    log.info(
        "login failed",
        address=address_text(question.client_address),
        user=str(question.user) if question.user is not None else "",
        service=service,
        delay=delay,
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
    details: Details = {
        "rate": verdict.rate,
        "way": way,
        "recipients": wanted.recipients,
        "retry_after": int(verdict.retry_after),
        "session": wanted.session_id,
        "server": server,
    }
    log.warning(
        "rate exceeded",
        user=str(wanted.user) if wanted.user is not None else "",
        address=address_text(client_address),
        **details,
    )
    _audit.write(
        AuditEntry(AuditKind.RATE, "rate exceeded", wanted.user, client_address, details=details)
    )


@functools.lru_cache(maxsize=4096)
def address_text(octets: bytes) -> str:
    """An address as people write it; hexadecimal if it is none."""
    if len(octets) == 4:
        return socket.inet_ntoa(octets)
    if len(octets) == 16:
        return str(ipaddress.ip_address(octets))
    return octets[:32].hex()
