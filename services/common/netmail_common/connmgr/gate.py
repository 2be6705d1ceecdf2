"""The agents' side of abuse protection: who may connect, who may log in, who may send how much.

The Connection Manager knows, and its stream tells whom it suspects: about others nobody asks. If
it is away, everybody is let in, and what known senders send is counted in this process.
"""

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_common.config import RatesConfig
from netmail_common.connmgr.client import ConnectionManagerClient, ConnectionManagerUnavailable
from netmail_common.connmgr.clients_seen import ClientsSeen, probe_token
from netmail_common.connmgr.events import Beaten, Connected, Lost, Suspected, WatchEvent
from netmail_common.connmgr.model import UserKey
from netmail_common.connmgr.rates import RATE_WINDOW, RateCount, RelayWanted, rate_counts
from netmail_common.connmgr.suspects import Suspects
from netmail_common.logging import get_logger
from netmail_common.networks import NetworkMap
from netmail_common.sliding_windows import SlidingWindows

__all__ = ["Admission", "Door", "Gate", "RelayAnswer", "Visitor"]

log = get_logger(__name__)
K = TypeVar("K")
T = TypeVar("T")

_FRESHLY_SUSPECTED = 60.0
"""Seconds for which this process asks about whom it has seen fail, whatever the stream says."""
_SUCCESS_COUNTS_FOR = 3600.0
"""Seconds for which a user's success from a network is not reported again."""
_NAME_LASTS = 3600.0
"""Seconds for which it is remembered whose name was typed."""
_QUIET = 10.0
"""Seconds between two complaints about a Connection Manager that does not answer."""
_REPORT_EVERY = 20.0
"""Seconds between two reports of where clients came from."""
_PROBES_AT_ONCE = 2
_MAX_REMEMBERED = 100_000
_MAX_COMMENT = 300


class Door(Enum):
    """Where a client wants in."""

    SMTP = pb.SERVICE_SMTP
    SUBMISSION = pb.SERVICE_SUBMISSION
    POP3 = pb.SERVICE_POP3
    IMAP = pb.SERVICE_IMAP


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client at a listener."""

    address: IPv4Address | IPv6Address
    door: Door
    listener: str


@dataclass(frozen=True, slots=True)
class Admission:
    """What a client is answered.

    Attributes:
        allowed: whether it may go on.
        permanent: denied, and not only for now.
        comment: for the client, printable ASCII; may be empty.
        require_auth: it must authenticate, or be known by a login, before it sends anything.
        delay: seconds before a login is answered.
        rule: which one decided, for the log.
    """

    allowed: bool = True
    permanent: bool = False
    comment: str = ""
    require_auth: bool = False
    delay: float = 0.0
    rule: str = ""


_WELCOME = Admission()


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """Whether a known sender may send so much.

    Attributes:
        rate: that is exceeded: user, network or login.
        retry_after: seconds until he may, about.
    """

    accepted: bool = True
    rate: str = ""
    retry_after: float = 0.0


_ACCEPTED = RelayAnswer()


class Gate:
    """Asks the Connection Manager where it must be asked. Belongs to one event loop.

    Args:
        client: of the Connection Manager; None: there is none, everybody is let in.
        networks: the map from addresses to networks.
        messaging_server: whose agent this is.
        agent: name of this process, for the log.
        rates: of known senders; None: they have none.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        client: ConnectionManagerClient | None,
        networks: NetworkMap,
        *,
        messaging_server: str,
        agent: str,
        rates: RatesConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._networks = networks
        self._server = messaging_server
        self._agent = agent
        self._rates = rates
        self._clock = clock
        self._counted_here = SlidingWindows()
        self._connected = False
        self._check_connections = False
        self._suspects = Suspects()
        self._fresh: dict[UserKey | bytes, float] = {}
        self._names: dict[str, tuple[UserKey, float]] = {}
        self._welcomed: dict[tuple[UserKey, bytes], float] = {}
        self._quiet_until = 0.0
        self._reports: dict[asyncio.Task[pb.EventResult | None], UserKey] = {}
        self._prefix = f"{secrets.token_hex(8)}.{os.getpid()}."
        self._numbers = itertools.count()
        self._seen = ClientsSeen()
        self._report_at = clock()
        self._telling: asyncio.Task[None] | None = None
        self._probes = 0

    def use(self, networks: NetworkMap, rates: RatesConfig | None) -> None:
        """Goes on with other address rules and rates; what was counted here stays."""
        self._networks = networks
        self._rates = rates

    @property
    def connected(self) -> bool:
        """Whether the Connection Manager is there to be asked; without it this process counts."""
        return self._connected

    def take(self, event: WatchEvent) -> None:
        """Takes an event of the process's stream of the Connection Manager."""
        match event:
            case Connected():
                self._connected = True
                self._check_connections = event.check_connections
                self._suspects.begin()
            case Lost():
                self._connected = False
            case Suspected():
                self._suspects.change(event)
            case Beaten():
                self._tell_clients()
            case _:
                pass

    def seen(self, visitor: Visitor) -> None:
        """A client has connected; where from is told now and then."""
        self._seen.add(visitor.listener, visitor.address)

    async def probe(self, visitor: Visitor, text: str) -> str | None:
        """Answers a person who asks which address arrived.

        Args:
            visitor: who asks.
            text: `netmail-doctor TOKEN`.

        Returns: the address and what it is worth; None: it was no such question.
        """
        token = probe_token(text)
        if token is None or self._client is None or self._probes >= _PROBES_AT_ONCE:
            return None
        self._probes += 1
        try:
            answer = await self._client.answer_probe(token, visitor.address.packed)
        except (ConnectionManagerUnavailable, grpc.aio.AioRpcError):
            return None
        finally:
            self._probes -= 1
        worth = "grants" if answer.grants else f"never grants, {answer.standing}"
        return f"{visitor.address} {_one_line(worth)}"

    def asks_about(self, visitor: Visitor) -> bool:
        """Whether `connecting` has to ask, and may take its time."""
        return self._check_connections or self._suspected(self._network(visitor))

    async def connecting(self, visitor: Visitor) -> Admission:
        """Whether a client may connect."""
        if not self.asks_about(visitor):
            return _WELCOME
        return await self._check(visitor)

    async def may_try(self, visitor: Visitor, typed_name: str) -> Admission:
        """Whether a password is to be looked at that came with a name as it was typed.

        Whose name that is, is known here if a login with it failed a while ago.
        """
        user, until = self._names.get(typed_name, (None, 0.0))
        if user is not None and until > self._clock() and self._suspected(user):
            return await self._check(visitor, user=user)
        if self._suspected(self._network(visitor)):
            return await self._check(visitor, typed_name=typed_name)
        return _WELCOME

    async def succeeded(self, visitor: Visitor, user: UserKey) -> Admission:
        """Whether a user may log in who has proved who he is.

        Denied: he is to be answered like one who has not.
        """
        network = self._network(visitor)
        if self._suspected(user) or self._suspected(network):
            await self._reported(user)
            admission = await self._check(visitor, user=user)
            if not admission.allowed:
                return admission
        else:
            admission = _WELCOME
        if visitor.door in {Door.SMTP, Door.SUBMISSION} and self._is_news(user, network):
            event = self._event(visitor, user=user, login_succeeded=pb.LoginSucceeded())
            self._report(event).add_done_callback(
                lambda report: self._news_taken(report, (user, network))
            )
        return admission

    async def failed(self, visitor: Visitor, user: UserKey | None, typed_name: str) -> float:
        """Counts a login that failed; how many seconds to wait before it is answered.

        It is counted even if nobody waits for that any more.

        Args:
            visitor: who tried.
            user: whose password it was not; None: no such user exists.
            typed_name: the name as it was typed.
        """
        event = self._event(
            visitor,
            user=user,
            typed_name="" if user else typed_name,
            login_failed=pb.LoginFailed(),
        )
        now = self._clock()
        if user is not None:
            # Of many guesses at once none may slip in before the stream tells.
            _remember(self._fresh, user, now + _FRESHLY_SUSPECTED)
            _remember(self._names, typed_name, (user, now + _NAME_LASTS))
        result = await asyncio.shield(self._report(event))
        delay = result.delay_ms / 1000 if result is not None else 0.0
        if delay:
            _remember(self._fresh, self._network(visitor), now + _FRESHLY_SUSPECTED)
        return delay

    async def relay(
        self,
        visitor: Visitor,
        user: UserKey | None,
        *,
        authenticated: bool,
        session_id: str,
        recipients: int,
        messages: int,
    ) -> RelayAnswer:
        """Counts mail of a known sender, unless it would exceed one of his rates.

        Args:
            visitor: who sends.
            user: as whom; None: by a login without a user.
            authenticated: by SMTP AUTH. False: by a login.
            session_id: of the login or the session that authenticated.
            recipients: how many more.
            messages: how many more; 0: more recipients for one that was counted.
        """
        if self._rates is None:
            return _ACCEPTED
        where = self._networks.locate(visitor.address)
        wanted = RelayWanted(
            user=user,
            network=None if where.standing.shared else where.key,
            session_id=session_id,
            authenticated=authenticated,
            recipients=recipients,
            messages=messages,
        )
        counts = list(rate_counts(self._rates, wanted))
        if not counts:
            return _ACCEPTED
        event = self._event(visitor, user=user)
        event.relay_wanted.CopyFrom(
            pb.RelayWanted(
                authenticated=authenticated,
                recipients=recipients,
                messages=messages,
                session_id=session_id,
            )
        )
        result = await self._ask(lambda client: client.report_event(event))
        if result is None:
            return self._count_here(counts)
        return RelayAnswer(result.accepted, result.rate, float(result.retry_after_seconds))

    async def close(self) -> None:
        """Waits for reports that are under way."""
        telling = [] if self._telling is None else [self._telling]
        await asyncio.gather(*self._reports, *telling, return_exceptions=True)

    def _tell_clients(self) -> None:
        now = self._clock()
        if self._client is None or now < self._report_at:
            return
        if self._telling is not None and not self._telling.done():
            return
        self._report_at = now + _REPORT_EVERY
        request = self._seen.take(self._server)
        if request is not None:
            self._telling = asyncio.create_task(self._report_clients(self._client, request))

    async def _report_clients(
        self, client: ConnectionManagerClient, request: pb.ReportClientsRequest
    ) -> None:
        """What cannot be told is lost: it is about the last hour only."""
        try:
            await client.report_clients(request)
        except (ConnectionManagerUnavailable, grpc.aio.AioRpcError) as error:
            log.debug("clients not reported", error=type(error).__name__)

    def _network(self, visitor: Visitor) -> bytes:
        return self._networks.locate(visitor.address).key

    def _suspected(self, who: UserKey | bytes) -> bool:
        return who in self._suspects or self._fresh.get(who, 0.0) > self._clock()

    def _is_news(self, user: UserKey, network: bytes) -> bool:
        now = self._clock()
        if self._welcomed.get((user, network), 0.0) > now:
            return False
        _remember(self._welcomed, (user, network), now + _SUCCESS_COUNTS_FOR)
        return True

    def _news_taken(
        self, report: asyncio.Task[pb.EventResult | None], news: tuple[UserKey, bytes]
    ) -> None:
        """Of what nobody has heard the next login tells again."""
        if report.cancelled() or report.result() is None:
            self._welcomed.pop(news, None)

    async def _check(
        self, visitor: Visitor, *, user: UserKey | None = None, typed_name: str = ""
    ) -> Admission:
        check = pb.ConnectionCheck(
            client_address=visitor.address.packed,
            service=visitor.door.value,
            messaging_server=self._server,
            listener=visitor.listener,
            agent=self._agent,
            user=_message(user),
            typed_name=typed_name,
        )
        decision = await self._ask(lambda client: client.check_connection(check))
        if decision is None:
            return _WELCOME
        denied = decision.verdict in {
            pb.CONNECTION_VERDICT_DENY_TEMPORARY,
            pb.CONNECTION_VERDICT_DENY_PERMANENT,
        }
        return Admission(
            allowed=not denied,
            permanent=decision.verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT,
            comment=_one_line(decision.comment),
            require_auth=decision.require_auth,
            delay=decision.delay_ms / 1000,
            rule=decision.rule,
        )

    def _event(
        self,
        visitor: Visitor,
        *,
        user: UserKey | None,
        typed_name: str = "",
        login_failed: pb.LoginFailed | None = None,
        login_succeeded: pb.LoginSucceeded | None = None,
    ) -> pb.Event:
        return pb.Event(
            event_id=f"{self._prefix}{next(self._numbers)}",
            client_address=visitor.address.packed,
            service=visitor.door.value,
            messaging_server=self._server,
            listener=visitor.listener,
            agent=self._agent,
            user=_message(user),
            typed_name=typed_name,
            login_failed=login_failed,
            login_succeeded=login_succeeded,
        )

    def _count_here(self, counts: Sequence[RateCount]) -> RelayAnswer:
        """Counts by this process alone: the Connection Manager is away."""
        now, windows = self._clock(), self._counted_here
        for index, one in enumerate(counts):
            tally = windows.count(one.key, one.amount, RATE_WINDOW, now, limit=one.limit)
            if not tally.admitted:
                for other in counts[:index]:
                    windows.count(other.key, -other.amount, RATE_WINDOW, now)
                return RelayAnswer(
                    accepted=False, rate=one.rate, retry_after=min(tally.wait, RATE_WINDOW)
                )
        return _ACCEPTED

    def _report(self, event: pb.Event) -> asyncio.Task[pb.EventResult | None]:
        task = asyncio.create_task(self._ask(lambda client: client.report_event(event)))
        user = UserKey(event.user.name, event.user.context)
        self._reports[task] = user
        task.add_done_callback(self._reports.pop)
        return task

    async def _reported(self, user: UserKey) -> None:
        """Waits until what has failed before is counted."""
        reports = [task for task, whom in self._reports.items() if whom == user]
        if reports:
            await asyncio.wait(reports)

    async def _ask(self, call: Callable[[ConnectionManagerClient], Awaitable[T]]) -> T | None:
        """Asks the Connection Manager; None: it is away, or has nothing to say."""
        if self._client is None or not self._connected:
            return None
        try:
            return await call(self._client)
        except ConnectionManagerUnavailable as error:
            self._complain("connection manager does not answer", error.reason)
        except grpc.aio.AioRpcError as error:
            self._complain("connection manager refuses the question", error.code().name)
        return None

    def _complain(self, what: str, reason: str) -> None:
        """One line now and then, however many logins go on without an answer."""
        if self._clock() >= self._quiet_until:
            self._quiet_until = self._clock() + _QUIET
            log.warning(what, reason=reason)


def _one_line(text: str) -> str:
    """What may be told to a client, whoever wrote it."""
    return "".join(one for one in text[:_MAX_COMMENT] if one.isascii() and one.isprintable())


def _message(user: UserKey | None) -> pb.UserKey | None:
    return None if user is None else pb.UserKey(name=user.name, context=user.context)


def _remember(where: dict[K, T], key: K, value: T) -> None:
    if len(where) >= _MAX_REMEMBERED:
        where.clear()
    where[key] = value
