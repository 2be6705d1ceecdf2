"""Who a client is without SMTP AUTH: in an allowed network, or logged in by POP3 or IMAP."""

from collections.abc import Sequence
from typing import Protocol

import grpc
from netmail.connmgr.v1 import connmgr_pb2
from netmail_common.config import SenderBinding
from netmail_common.connmgr import ConnectionManagerUnavailable
from netmail_common.connmgr.model import (
    Binding,
    CheckedSender,
    Login,
    LoginProtocol,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress
from netmail_common.networks import Address, Network
from netmail_common.nmap import Resolution
from netmail_common.shared_networks import is_within

from netmail_smtp.adapters.metrics import login_decisions
from netmail_smtp.domain.miss_limiter import MissLimiter
from netmail_smtp.domain.relay import KnownSender, Stranger, Unknown, Way

_log = get_logger(__name__)

_BINDING_NUMBERS = {
    Binding.STRICT: connmgr_pb2.SENDER_BINDING_STRICT,
    Binding.DOMAIN: connmgr_pb2.SENDER_BINDING_DOMAIN,
    Binding.ANY: connmgr_pb2.SENDER_BINDING_ANY,
}
_LOGINS = {
    LoginProtocol.POP3: "POP3 login",
    LoginProtocol.IMAP: "IMAP4 login",
    LoginProtocol.LEGACY_UDP: "login by UDP 689",
    LoginProtocol.WHOSON: "login by WHOSON",
    LoginProtocol.AUTH_POLICY: "login at another server",
}


class SenderChecker(Protocol):
    """The Connection Manager, as far as the SMTP Agent asks it."""

    async def check_sender(self, check: connmgr_pb2.SenderCheck) -> connmgr_pb2.SenderDecision:
        """Raises: ConnectionManagerUnavailable."""


class Replica(Protocol):
    """The login table, as far as this process knows it."""

    def allows(self, address: bytes, question: SenderQuestion) -> SenderDecision | None:
        """ALLOWED; None: the Connection Manager is to be asked."""

    def hold(self, address: bytes) -> None:
        """Wants to know an address that the Connection Manager has just allowed."""


class Recognizer:
    """Finds out whether an address may relay.

    Args:
        checker: the Connection Manager's client; None: this Messaging Server has none.
        replica: of its login table; None: every question goes to the Connection Manager.
        messaging_server: its name.
        allowed: smtp.allowed_networks.
        limiter: of questions from strangers.
    """

    def __init__(
        self,
        checker: SenderChecker | None,
        *,
        replica: Replica | None,
        messaging_server: str,
        allowed: Sequence[Network],
        limiter: MissLimiter,
    ) -> None:
        self._checker = checker
        self._replica = replica
        self._messaging_server = messaging_server
        self._allowed = tuple(allowed)
        self._limiter = limiter

    def allowed_network(self, address: Address) -> KnownSender | None:
        """A sender known by an allowed network, if the address is in one."""
        if is_within(address, self._allowed):
            return KnownSender(Way.NETWORK, detail="allowed network")
        return None

    async def by_login(
        self, address: Address, senders: Sequence[CheckedSender], binding: SenderBinding
    ) -> KnownSender | Stranger:
        """Looks for a login in the replica, and asks the Connection Manager if it is silent.

        Args:
            address: of the client.
            senders: of the message, as far as they are known, and whose they are.
            binding: the listener's.
        """
        question = SenderQuestion(tuple(senders), Binding(binding.value))
        if self._replica is not None:
            found = self._replica.allows(address.packed, question)
            if found is not None and found.login is not None:
                login_decisions("replica").inc()
                return _known_here(found, found.login)
        if self._checker is None:
            return Stranger(Unknown.NO_LOGIN)
        if not self._limiter.may_ask(address):
            return Stranger(Unknown.TOO_MANY_CHECKS)
        return await self._ask(self._checker, address, question)

    async def _ask(
        self, checker: SenderChecker, address: Address, question: SenderQuestion
    ) -> KnownSender | Stranger:
        login_decisions("call").inc()
        try:
            decision = await checker.check_sender(
                _sender_check(address, question, self._messaging_server)
            )
        except ConnectionManagerUnavailable as error:
            _log.warning("connection manager does not answer", reason=error.reason)
            return Stranger(Unknown.UNREACHABLE)
        except grpc.aio.AioRpcError as error:
            _log.error("connection manager refuses the question", code=error.code().name)
            return Stranger(Unknown.UNREACHABLE)
        allowed = decision.decision == connmgr_pb2.DECISION_ALLOWED
        self._limiter.answered(address, known=allowed)
        if allowed:
            if self._replica is not None:
                self._replica.hold(address.packed)
            return _known(decision)
        if decision.decision == connmgr_pb2.DECISION_DENIED:
            return Stranger(Unknown.SENDER_REFUSED, decision.refused_sender, decision.user.name)
        return Stranger(Unknown.NO_LOGIN)


def checked_senders(
    senders: Sequence[MailAddress], asked: Sequence[MailAddress], found: Sequence[Resolution]
) -> list[CheckedSender]:
    """Senders, with what Resolve said about those that it was asked about."""
    owners = dict(zip(asked, found, strict=True))
    return [_checked(sender, owners.get(sender)) for sender in senders]


def _checked(sender: MailAddress, found: Resolution | None) -> CheckedSender:
    return CheckedSender(
        address=sender.wire,
        key=sender.key(),
        domain=sender.domain,
        known=found is not None and found.tells_owner,
        owner=found.owner if found is not None else None,
    )


def _sender_check(
    address: Address, question: SenderQuestion, messaging_server: str
) -> connmgr_pb2.SenderCheck:
    check = connmgr_pb2.SenderCheck(
        client_address=address.packed,
        senders=[sender.address for sender in question.senders],
        binding=_BINDING_NUMBERS[question.binding],
        messaging_server=messaging_server,
    )
    for sender in question.senders:
        if sender.known:
            owner = check.owners.add(address=sender.address, known=True)
            if sender.owner is not None:
                owner.owner.name, owner.owner.context = sender.owner
    return check


def _known(decision: connmgr_pb2.SenderDecision) -> KnownSender:
    """A sender that the Connection Manager knows."""
    if decision.reason == connmgr_pb2.REASON_LISTED:
        return KnownSender(Way.NETWORK, detail="always allowed")
    try:
        protocol = LoginProtocol(decision.protocol)
    except ValueError:  # one that only a newer Connection Manager knows
        protocol = None
    users = [UserKey(user.name, user.context) for user in decision.users]
    user = UserKey(decision.user.name, decision.user.context)
    return _known_sender(user, protocol, decision.session_id, users, decision.user_count)


def _known_here(decision: SenderDecision, login: Login) -> KnownSender:
    """A sender that the replica knows by this login."""
    return _known_sender(
        login.user, login.protocol, login.session_id, decision.users, decision.user_count
    )


def _known_sender(
    user: UserKey,
    protocol: LoginProtocol | None,
    session_id: str,
    users: Sequence[UserKey],
    user_count: int,
) -> KnownSender:
    return KnownSender(
        Way.LOGIN,
        user=user.name,
        context=user.context,
        detail=_LOGINS[protocol] if protocol is not None else "login",
        user_count=user_count or 1,
        all_users=tuple(f"{one.name}@{one.context}" for one in users),
        session_id=session_id,
    )
