"""Who a client is without SMTP AUTH: in an allowed network, or logged in by POP3 or IMAP."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc
from netmail.connmgr.v1 import connmgr_pb2
from netmail_common.config import SenderBinding
from netmail_common.connmgr import ConnectionManagerUnavailable
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress
from netmail_common.networks import Address, Network, NetworkMap
from netmail_common.nmap import Resolution
from netmail_common.shared_networks import is_within

from netmail_smtp.domain.relay import KnownSender, Stranger, Unknown, Way

_log = get_logger(__name__)

MAX_MISSES = 10
"""Questions a network may ask in a second without being known."""
_MAX_TRACKED = 100_000
_GOOD_FOR = 60.0

_BINDINGS = {
    SenderBinding.STRICT: connmgr_pb2.SENDER_BINDING_STRICT,
    SenderBinding.DOMAIN: connmgr_pb2.SENDER_BINDING_DOMAIN,
    SenderBinding.ANY: connmgr_pb2.SENDER_BINDING_ANY,
}
_PROTOCOLS = {
    connmgr_pb2.PROTOCOL_POP3: "POP3 login",
    connmgr_pb2.PROTOCOL_IMAP: "IMAP4 login",
    connmgr_pb2.PROTOCOL_LEGACY_UDP: "login by UDP 689",
}


class SenderChecker(Protocol):
    """The Connection Manager, as far as the SMTP Agent asks it."""

    async def check_sender(self, check: connmgr_pb2.SenderCheck) -> connmgr_pb2.SenderDecision:
        """Raises: ConnectionManagerUnavailable."""


class MissLimiter:
    """Counts questions per network that were not answered with yes, over one second.

    A network that was known a moment ago asks as often as it likes. Networks are what logins are
    kept for: of an IPv6 client's many addresses none begins anew.

    Args:
        networks: the Connection Manager's.
        limit: questions in a second.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        networks: NetworkMap,
        limit: int = MAX_MISSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks = networks
        self._limit = limit
        self._clock = clock
        self._misses: dict[bytes, deque[float]] = {}
        self._good: dict[bytes, float] = {}

    def may_ask(self, address: Address) -> bool:
        """Counts one question; False: too many came from this address's network."""
        now = self._clock()
        network = self._networks.locate(address).key
        if self._good.get(network, 0.0) > now:
            return True
        misses = self._misses.get(network)
        if misses is None:
            if len(self._misses) >= _MAX_TRACKED:
                self._misses.clear()
            misses = self._misses[network] = deque()
        while misses and misses[0] <= now - 1.0:
            misses.popleft()
        if len(misses) >= self._limit:
            return False
        misses.append(now)
        return True

    def answered(self, address: Address, *, known: bool) -> None:
        """Takes the answer: yes does not count, and vouches for the next ones."""
        network = self._networks.locate(address).key
        if not known:
            self._good.pop(network, None)
            return
        if len(self._good) >= _MAX_TRACKED:
            self._good.clear()
        self._good[network] = self._clock() + _GOOD_FOR
        self._misses.pop(network, None)


class Recognizer:
    """Finds out whether an address may relay.

    Args:
        checker: the Connection Manager's client; None: this Messaging Server has none.
        messaging_server: its name.
        allowed: smtp.allowed_networks.
        limiter: of questions from strangers.
    """

    def __init__(
        self,
        checker: SenderChecker | None,
        *,
        messaging_server: str,
        allowed: Sequence[Network],
        limiter: MissLimiter,
    ) -> None:
        self._checker = checker
        self._messaging_server = messaging_server
        self._allowed = tuple(allowed)
        self._limiter = limiter

    def allowed_network(self, address: Address) -> KnownSender | None:
        """A sender known by an allowed network, if the address is in one."""
        if is_within(address, self._allowed):
            return KnownSender(Way.NETWORK, detail="allowed network")
        return None

    async def by_login(
        self,
        address: Address,
        senders: Sequence[MailAddress],
        binding: SenderBinding,
        owners: Sequence[connmgr_pb2.SenderOwner],
    ) -> KnownSender | Stranger:
        """Asks the Connection Manager.

        Args:
            address: of the client.
            senders: of the message, as far as they are known.
            binding: the listener's.
            owners: what the directory says about senders in our domains.
        """
        if self._checker is None:
            return Stranger(Unknown.NO_LOGIN)
        if not self._limiter.may_ask(address):
            return Stranger(Unknown.TOO_MANY_CHECKS)
        check = connmgr_pb2.SenderCheck(
            client_address=address.packed,
            senders=[sender.wire for sender in senders],
            binding=_BINDINGS[binding],
            messaging_server=self._messaging_server,
            owners=owners,
        )
        try:
            decision = await self._checker.check_sender(check)
        except ConnectionManagerUnavailable as error:
            _log.warning("connection manager does not answer", reason=error.reason)
            return Stranger(Unknown.UNREACHABLE)
        except grpc.aio.AioRpcError as error:
            _log.error("connection manager refuses the question", code=error.code().name)
            return Stranger(Unknown.UNREACHABLE)
        self._limiter.answered(address, known=decision.decision == connmgr_pb2.DECISION_ALLOWED)
        match decision.decision:
            case connmgr_pb2.DECISION_ALLOWED:
                return _known(decision)
            case connmgr_pb2.DECISION_DENIED:
                return Stranger(Unknown.SENDER_REFUSED, decision.refused_sender, decision.user.name)
            case _:
                return Stranger(Unknown.NO_LOGIN)


def sender_owners(
    senders: Sequence[MailAddress], found: Sequence[Resolution]
) -> list[connmgr_pb2.SenderOwner]:
    """What Resolve said about senders, in the Connection Manager's words."""
    owners = []
    for sender, resolution in zip(senders, found, strict=True):
        if not resolution.tells_owner:
            continue
        owner = None
        if resolution.owner is not None:
            owner = connmgr_pb2.UserKey(
                name=resolution.owner.name, context=resolution.owner.context
            )
        owners.append(connmgr_pb2.SenderOwner(address=sender.wire, owner=owner, known=True))
    return owners


def _known(decision: connmgr_pb2.SenderDecision) -> KnownSender:
    return KnownSender(
        Way.LOGIN,
        user=decision.user.name,
        context=decision.user.context,
        detail=_PROTOCOLS.get(decision.protocol, "login"),
        user_count=decision.user_count or 1,
        all_users=tuple(f"{user.name}@{user.context}" for user in decision.users),
    )
