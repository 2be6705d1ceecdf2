"""Between the front desk's questions and the API's messages, on the asking side."""

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import (
    Binding,
    Decision,
    Login,
    LoginProtocol,
    Profile,
    Reason,
    SenderDecision,
    UserKey,
)

from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
    Service,
    Verdict,
)
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import Answer, Enquiry, RelayedMail
from netmail_connmgr.domain.table import Outcome, Registered

__all__ = [
    "UnknownAnswer",
    "answer",
    "connection_check",
    "connection_verdict",
    "mail_event",
    "registered",
    "registration",
    "sender_check",
    "user_message",
]

# Both sides have the same names.
_PROTOCOLS = {one: pb.Protocol.Value(f"PROTOCOL_{one.name}") for one in LoginProtocol}
_BINDINGS = {one: pb.SenderBinding.Value(f"SENDER_BINDING_{one.name}") for one in Binding}
_SERVICES = {
    one: pb.Service.Value(f"SERVICE_{one.name if one.value else 'UNSPECIFIED'}") for one in Service
}
_OUTCOMES = {pb.RegisterOutcome.Value(f"REGISTER_OUTCOME_{one.name}"): one for one in Outcome}
_DECISIONS = {pb.Decision.Value(f"DECISION_{one.name}"): one for one in Decision}
_REASONS = {pb.Reason.Value(f"REASON_{one.name}"): one for one in Reason}
_VERDICTS = {pb.ConnectionVerdict.Value(f"CONNECTION_VERDICT_{one.name}"): one for one in Verdict}
_PROTOCOLS_BY_NUMBER = {number: one for one, number in _PROTOCOLS.items()}


class UnknownAnswer(ValueError):
    """The answer is one that this version does not know: nothing may be allowed for it."""


def user_message(user: UserKey) -> pb.UserKey:
    """A user."""
    return pb.UserKey(name=user.name, context=user.context)


def registration(candidate: Candidate, waited: float) -> pb.LoginRegistration:
    """A login that has waited for so many seconds since it was heard of."""
    return pb.LoginRegistration(
        user=user_message(candidate.user),
        addresses=candidate.addresses,
        client_address=candidate.client_address,
        protocol=_PROTOCOLS[candidate.protocol],
        messaging_server=candidate.messaging_server,
        agent=candidate.agent,
        session_id=candidate.session_id,
        age_ms=round((candidate.age + waited) * 1000),
        credential_epoch=candidate.credential_epoch or 0,
        domains=candidate.domains,
        renewal=candidate.renewal,
    )


def registered(result: pb.RegisterLoginResult) -> Registered:
    """What became of it. Raises: UnknownAnswer."""
    outcome = _OUTCOMES.get(result.outcome)
    if outcome is None:
        raise UnknownAnswer("outcome")
    return Registered(outcome, float(result.remaining_seconds))


def sender_check(enquiry: Enquiry) -> pb.SenderCheck:
    """May a client relay?"""
    question = enquiry.question
    return pb.SenderCheck(
        client_address=enquiry.client_address,
        senders=[sender.address for sender in question.senders],
        binding=_BINDINGS[question.binding],
        messaging_server=enquiry.front_end,
        owners=[
            pb.SenderOwner(
                address=sender.address,
                owner=user_message(sender.owner) if sender.owner is not None else None,
                known=True,
            )
            for sender in question.senders
            if sender.known
        ],
    )


def answer(result: pb.SenderDecision, client_address: bytes) -> Answer:
    """The decision about a client. Of the login that is named not all is known.

    Raises: UnknownAnswer.
    """
    decision, reason = _DECISIONS.get(result.decision), _REASONS.get(result.reason)
    if decision is None or reason is None:
        raise UnknownAnswer("decision or reason")
    remaining = float(result.remaining_seconds)
    return Answer(
        SenderDecision(
            decision=decision,
            reason=reason,
            login=_login(result, client_address) if result.HasField("user") else None,
            users=tuple(UserKey(user.name, user.context) for user in result.users),
            user_count=result.user_count,
            refused_sender=result.refused_sender,
        ),
        remaining,
    )


def connection_check(question: ConnectionQuestion) -> pb.ConnectionCheck:
    """May a client connect?"""
    return pb.ConnectionCheck(
        client_address=question.client_address,
        service=_SERVICES[question.service],
        messaging_server=question.messaging_server,
        listener=question.listener,
        agent=question.agent,
        user=user_message(question.user) if question.user is not None else None,
        typed_name=question.typed_name,
    )


def mail_event(mail: RelayedMail) -> pb.Event:
    """Mail of a known sender."""
    return pb.Event(
        client_address=mail.client_address,
        messaging_server=mail.front_end,
        user=user_message(mail.user),
        relay_wanted=pb.RelayWanted(
            authenticated=mail.authenticated,
            recipients=mail.recipients,
            messages=mail.messages,
            session_id=mail.session_id,
        ),
    )


def connection_verdict(result: pb.ConnectionDecision) -> ConnectionVerdict:
    """Whether it may. Raises: UnknownAnswer."""
    verdict = _VERDICTS.get(result.verdict)
    if verdict is None:
        raise UnknownAnswer("verdict")
    return ConnectionVerdict(
        verdict=verdict,
        comment=result.comment,
        require_auth=result.require_auth,
        delay=result.delay_ms / 1000,
        deny_for=float(result.deny_seconds),
        rule=result.rule,
    )


def _login(result: pb.SenderDecision, client_address: bytes) -> Login:
    protocol = _PROTOCOLS_BY_NUMBER.get(result.protocol)
    if protocol is None:
        raise UnknownAnswer("protocol")
    return Login(
        serial=0,
        profile=Profile(UserKey(result.user.name, result.user.context)),
        place=b"",
        client_address=client_address,
        protocol=protocol,
        messaging_server="",
        session_id=result.session_id,
        verified=0.0,
        expires=0.0,
        credential_epoch=None,
    )
