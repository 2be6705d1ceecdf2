"""Between the API's messages and the domain."""

from collections.abc import Iterable

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    Login,
    LoginProtocol,
    Reason,
    Revocation,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.mail_address import AddressError, MailAddress
from netmail_common.networks import NetworkMap, network_of

from netmail_connmgr.domain.connections import ConnectionQuestion, Service
from netmail_connmgr.domain.door import Candidate, NotAdmitted
from netmail_connmgr.domain.table import Outcome, Registered

MAX_SENDERS = 1000
"""Senders of one message that are looked at; with more it is refused."""

MAX_TYPED_NAME = 255
"""Characters of a name from outside that are looked at."""

_PROTOCOLS = {
    pb.PROTOCOL_POP3: LoginProtocol.POP3,
    pb.PROTOCOL_IMAP: LoginProtocol.IMAP,
    pb.PROTOCOL_LEGACY_UDP: LoginProtocol.LEGACY_UDP,
    pb.PROTOCOL_WHOSON: LoginProtocol.WHOSON,
    pb.PROTOCOL_AUTH_POLICY: LoginProtocol.AUTH_POLICY,
}
_PROTOCOL_NUMBERS = {protocol: number for number, protocol in _PROTOCOLS.items()}
_BINDINGS = {
    pb.SENDER_BINDING_UNSPECIFIED: Binding.STRICT,
    pb.SENDER_BINDING_STRICT: Binding.STRICT,
    pb.SENDER_BINDING_DOMAIN: Binding.DOMAIN,
    pb.SENDER_BINDING_ANY: Binding.ANY,
}
_SERVICES = {
    pb.SERVICE_SMTP: Service.SMTP,
    pb.SERVICE_SUBMISSION: Service.SUBMISSION,
    pb.SERVICE_POP3: Service.POP3,
    pb.SERVICE_IMAP: Service.IMAP,
}
_OUTCOMES = {
    Outcome.REGISTERED: pb.REGISTER_OUTCOME_REGISTERED,
    Outcome.SHARED_NETWORK: pb.REGISTER_OUTCOME_SHARED_NETWORK,
    Outcome.REVOKED: pb.REGISTER_OUTCOME_REVOKED,
    Outcome.INVALID: pb.REGISTER_OUTCOME_INVALID,
    Outcome.EXPIRED: pb.REGISTER_OUTCOME_EXPIRED,
    Outcome.TABLE_FULL: pb.REGISTER_OUTCOME_TABLE_FULL,
}
_DECISIONS = {
    Decision.ALLOWED: pb.DECISION_ALLOWED,
    Decision.DENIED: pb.DECISION_DENIED,
    Decision.MUST_AUTHENTICATE: pb.DECISION_MUST_AUTHENTICATE,
}
_REASONS = {
    Reason.LOGIN: pb.REASON_LOGIN,
    Reason.NO_LOGIN: pb.REASON_NO_LOGIN,
    Reason.EXPIRED: pb.REASON_EXPIRED,
    Reason.SHARED_NETWORK: pb.REASON_SHARED_NETWORK,
    Reason.NEVER_GRANTS: pb.REASON_NEVER_GRANTS,
    Reason.SENDER_NOT_OWNED: pb.REASON_SENDER_NOT_OWNED,
    Reason.SENDER_OF_OTHER_USER: pb.REASON_SENDER_OF_OTHER_USER,
    Reason.NO_USER: pb.REASON_NO_USER,
    Reason.LISTED: pb.REASON_LISTED,
    Reason.BLOCKED: pb.REASON_BLOCKED,
}


def user_key(message: pb.UserKey) -> UserKey:
    """A user; ANONYMOUS for an unset or empty message."""
    return UserKey(message.name, message.context)


def named_user(message: pb.UserKey) -> UserKey | None:
    """A user; None for an unset or empty message."""
    user = user_key(message)
    return None if user == ANONYMOUS else user


def candidate(item: pb.LoginRegistration) -> Candidate:
    """A login to admit.

    Raises: NotAdmitted, for an unknown protocol.
    """
    protocol = _PROTOCOLS.get(item.protocol)
    if protocol is None:
        raise NotAdmitted("protocol")
    agent_knows_epochs = protocol in {LoginProtocol.POP3, LoginProtocol.IMAP}
    return Candidate(
        user=user_key(item.user),
        client_address=item.client_address,
        protocol=protocol,
        addresses=tuple(item.addresses),
        domains=tuple(item.domains),
        messaging_server=item.messaging_server,
        agent=item.agent,
        session_id=item.session_id,
        age=item.age_ms / 1000,
        credential_epoch=item.credential_epoch if agent_knows_epochs else None,
        renewal=item.renewal,
    )


def connection_question(message: pb.ConnectionCheck | pb.Event) -> ConnectionQuestion:
    """The client, and whose login it is about; both messages say it alike."""
    return ConnectionQuestion(
        client_address=message.client_address,
        service=_SERVICES.get(message.service, Service.UNKNOWN),
        messaging_server=message.messaging_server,
        listener=message.listener,
        agent=message.agent,
        user=named_user(message.user),
        typed_name=message.typed_name[:MAX_TYPED_NAME],
    )


def register_result(registered: Registered) -> pb.RegisterLoginResult:
    """What became of a registration; the remaining time is rounded down."""
    return pb.RegisterLoginResult(
        outcome=_OUTCOMES[registered.outcome], remaining_seconds=int(registered.remaining)
    )


def question(check: pb.SenderCheck) -> SenderQuestion:
    """The senders and the binding; one that is unknown to us counts as strict.

    Of too many senders one counts, as no address: a stranger may write as many as he likes, and
    his message must neither hold up others nor fail the call that theirs go with.
    """
    if len(check.senders) > MAX_SENDERS or len(check.owners) > MAX_SENDERS:
        return SenderQuestion(
            (CheckedSender(check.senders[-1] if check.senders else ""),), Binding.STRICT
        )
    owners = {owner.address: owner for owner in check.owners if owner.known}
    return SenderQuestion(
        senders=tuple(_senders(check.senders, owners)),
        binding=_BINDINGS.get(check.binding, Binding.STRICT),
    )


def _senders(texts: Iterable[str], owners: dict[str, pb.SenderOwner]) -> Iterable[CheckedSender]:
    for text in texts:
        try:
            address = MailAddress.from_wire(text)
        except AddressError:
            yield CheckedSender(text)
            continue
        owner = owners.get(text)
        yield CheckedSender(
            address=text,
            key=address.key(),
            domain=address.domain,
            known=owner is not None,
            owner=named_user(owner.owner) if owner is not None else None,
        )


def sender_decision(decision: SenderDecision, remaining: float) -> pb.SenderDecision:
    """The answer to a check; the login that is named counts for so many seconds more."""
    message = pb.SenderDecision(
        decision=_DECISIONS[decision.decision],
        reason=_REASONS[decision.reason],
        users=[_user(user) for user in decision.users],
        user_count=decision.user_count,
        refused_sender=decision.refused_sender,
    )
    login = decision.login
    if login is not None:
        message.user.CopyFrom(_user(login.user))
        message.remaining_seconds = int(remaining)
        message.protocol = _PROTOCOL_NUMBERS[login.protocol]
        message.session_id = login.session_id
    return message


def login_message(login: Login, networks: NetworkMap, now: float) -> pb.Login:
    """A login as it stands at a time on its clock."""
    network = network_of(login.place)
    return pb.Login(
        user=_user(login.user),
        network=network,
        prefix_length=networks.locate(login.client_address).prefix_length,
        client_address=login.client_address,
        protocol=_PROTOCOL_NUMBERS[login.protocol],
        messaging_server=login.messaging_server,
        age_ms=int((now - login.verified) * 1000),
        remaining_seconds=_remaining(login, now),
        grants=network == login.place,
        addresses=login.profile.addresses,
        credential_epoch=login.credential_epoch or 0,
        session_id=login.session_id,
    )


def revocation_message(revocation: Revocation, now: float) -> pb.Revocation:
    """A revocation as it stands at a time on its clock."""
    return pb.Revocation(
        user=_user(revocation.user) if revocation.user is not None else None,
        client_address=revocation.client_address or b"",
        credential_epoch=revocation.credential_epoch,
        reason=revocation.reason,
        age_ms=int((now - revocation.made) * 1000),
        network=revocation.network or b"",
        prefix_length=revocation.prefix_length,
    )


def _user(user: UserKey) -> pb.UserKey:
    return pb.UserKey(name=user.name, context=user.context)


def _remaining(login: Login, now: float) -> int:
    return max(0, int(login.expires - now))
