"""Answers the datagrams of UDP port 689 over the front desk."""

import asyncio
import functools
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    Decision,
    LoginProtocol,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.logging import get_logger
from netmail_common.shared_networks import is_within

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.datagram_socket import Datagram, DatagramSocket
from netmail_connmgr.adapters.fault_log import FaultLog
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
    Service,
    Verdict,
)
from netmail_connmgr.domain.door import MAX_NAME_OCTETS, Candidate, NotAdmitted, check_user
from netmail_connmgr.domain.front_desk import Enquiry, FrontDesk, FrontDeskUnavailable
from netmail_connmgr.protocol.legacy_udp import (
    MAX_DATAGRAM,
    Connect,
    PlainEnquiry,
    Reception,
    Refused,
    Register,
    Relay,
    Reply,
    protocol_of,
)

__all__ = ["LegacyNames", "LegacyUdp"]

_FRONT_END = "UDP 689"
_MAX_WAITING = 4096
"""Datagrams that the desk is asked about; beyond that no more are read until it has answered."""
_ANSWER_WITHIN = 15.0
"""Seconds; clients wait for 19."""
_DRAIN = 2.0
_MAX_KNOWN = 8192
_PROTOCOL = LoginProtocol.LEGACY_UDP
_ANY_LOGIN = SenderQuestion(binding=Binding.ANY)
_DENIED = "Connection refused"
_NO_REVERSE_NAME = "Your address has no reverse name, please authenticate"

log = get_logger(__name__)

T = TypeVar("T")

_requests = functools.lru_cache(maxsize=64)(
    lambda kind: metrics.UDP_REQUESTS.labels(protocol_of(kind), kind)
)


@functools.lru_cache(maxsize=_MAX_KNOWN)
def _enquiry(address: bytes) -> Enquiry:
    return Enquiry(address, _ANY_LOGIN, _FRONT_END)


Source = tuple[str, int]


class LegacyNames:
    """Between the names that agents send and users of contexts.

    Args:
        default_context: of bare names.
        book: what addresses a user has, as far as the agents' directory is not ours.
    """

    def __init__(self, setup: FrontEndSetup, default_context: str, book: AddressBook) -> None:
        self._setup = setup
        self._book = book
        self._default_context = default_context
        self._map = book.map
        self._known = functools.lru_cache(maxsize=_MAX_KNOWN)(self._look_up)
        self._text = functools.lru_cache(maxsize=_MAX_KNOWN)(self._write)

    def candidate(self, name: str, address: bytes, agent: str) -> Candidate:
        """The login of a user; an empty name is nobody's.

        It has no session: each renews, none is a repetition of an earlier one.

        Raises: NotAdmitted, for a name that none can have.
        """
        if self._map is not self._book.map:
            self._map = self._book.map
            self._known.cache_clear()
        return self._known(name, address, agent)

    def text(self, decision: SenderDecision) -> str:
        """Who is named; empty: nobody, or a name that has no room, which is never cut."""
        return self._text(decision.login.profile.user) if decision.login is not None else ""

    def _write(self, user: UserKey) -> str:
        name = user.name if user.context == self._default_context else str(user)
        octets = len(name) if name.isascii() else len(name.encode())
        return name if octets <= MAX_NAME_OCTETS else ""

    def _look_up(self, name: str, address: bytes, agent: str) -> Candidate:
        if not name:
            return Candidate(ANONYMOUS, address, _PROTOCOL, agent=agent)
        user = self._setup.user(name, self._default_context)
        check_user(user)
        return self._setup.candidate(user, address, _PROTOCOL, self._map, agent=agent)


class LegacyUdp:
    """Reads what has come, asks the desk in batches, answers; belongs to one event loop.

    Args:
        sources: who is answered; everybody else gets silence.
        wall_clock: seconds since 1970; only salts depend on it.
    """

    def __init__(
        self,
        reception: Reception,
        desk: FrontDesk,
        names: LegacyNames,
        sources: Sequence[IPv4Network],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._reception = reception
        self._desk = desk
        self._names = names
        self._sources = sources
        self._wall_clock = wall_clock
        self._faults = FaultLog("UDP 689: datagrams refused", metrics.UDP_FAULTS)
        self._known_source = functools.lru_cache(maxsize=_MAX_KNOWN)(self._check_source)
        self._sockets: list[DatagramSocket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def open(self, bound: socket.socket) -> int:
        """Serves a socket until the end; its port."""
        opened = DatagramSocket(bound, MAX_DATAGRAM, self._received)
        self._sockets.append(opened)
        return opened.port

    async def close(self) -> None:
        """Reads no more, answers what was asked if that does not take long, and ends."""
        for opened in self._sockets:
            opened.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_DRAIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for opened in self._sockets:
            opened.close()

    def _received(self, opened: DatagramSocket, batch: Sequence[Datagram]) -> None:
        now, known_source, receive = self._wall_clock(), self._known_source, self._reception.receive
        kinds: list[str] = []
        replies: list[Datagram] = []
        registers: list[tuple[Source, Register]] = []
        enquiries: list[tuple[Source, PlainEnquiry | Relay]] = []
        connects: list[tuple[Source, Connect]] = []
        for data, source in batch:
            address = known_source(source[0])
            if address is None:
                self._faults.count("source not allowed")
                continue
            try:
                request = receive(data, address, now)
            except Refused as refused:
                self._faults.count(refused.fault)
                if refused.reply is not None:
                    replies.append((refused.reply, source))
                continue
            kinds.append(request.kind)
            if isinstance(request, Register):
                registers.append((source, request))
            elif isinstance(request, Reply):
                replies.append((request.data, source))
            elif isinstance(request, Connect):
                connects.append((source, request))
            else:
                enquiries.append((source, request))
        for kind, number in Counter(kinds).items():
            _requests(kind).inc(number)
        self._send(opened, replies)
        # A login that came before a question counts for it; a look into DNS holds up neither.
        self._start(
            len(registers) + len(enquiries), self._answer_logins, opened, registers, enquiries
        )
        self._start(len(connects), self._answer_connects, opened, connects)

    async def _answer_logins(
        self,
        opened: DatagramSocket,
        registers: Sequence[tuple[Source, Register]],
        enquiries: Sequence[tuple[Source, PlainEnquiry | Relay]],
    ) -> None:
        if registers:
            self._send(opened, await self._register(registers))
        if enquiries:
            self._send(opened, await self._enquire(enquiries))

    async def _register(self, asked: Sequence[tuple[Source, Register]]) -> list[Datagram]:
        candidates, candidate = [], self._names.candidate
        waiting: list[tuple[Source, Register]] = []
        replies: list[Datagram] = []
        for one in asked:
            source, request = one
            try:
                candidates.append(candidate(request.name, request.address, source[0]))
            except NotAdmitted:
                self._faults.count("name")
                if (data := request.refused()) is not None:
                    replies.append((data, source))
            else:
                waiting.append(one)
        registered = await self._ask(self._desk.register(candidates))
        kept = [one.outcome.keeps for one in registered or ()] or [False] * len(waiting)
        for (source, request), is_kept in zip(waiting, kept, strict=True):
            data = request.done() if is_kept else request.failed()
            if data is not None:
                replies.append((data, source))
        return replies

    async def _enquire(
        self, asked: Sequence[tuple[Source, PlainEnquiry | Relay]]
    ) -> list[Datagram]:
        answers = await self._ask(
            self._desk.enquire([_enquiry(request.address) for _, request in asked])
        )
        replies: list[Datagram] = []
        for index, (source, request) in enumerate(asked):
            data: bytes | None
            if answers is None:
                data = request.unavailable()
            elif (decision := answers[index].decision).decision is Decision.ALLOWED:
                data = request.known(self._names.text(decision))
            else:
                data = request.unknown()
            if data is not None:
                replies.append((data, source))
        return replies

    async def _answer_connects(
        self, opened: DatagramSocket, asked: Sequence[tuple[Source, Connect]]
    ) -> None:
        """Clients are let in if nobody can say: that is no permission to relay."""
        questions = [
            ConnectionQuestion(request.address, Service.SMTP, listener=_FRONT_END, agent=source[0])
            for source, request in asked
        ]
        verdicts = await self._ask(self._desk.check_connections(questions))
        if verdicts is None:
            verdicts = [ConnectionVerdict()] * len(asked)
        self._send(
            opened,
            [
                (_judged(request, verdict), source)
                for (source, request), verdict in zip(asked, verdicts, strict=True)
            ],
        )

    async def _ask(self, call: Awaitable[T]) -> T | None:
        """What the desk says; None: nothing in time."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                return await call
        except (FrontDeskUnavailable, TimeoutError):
            self._faults.count("no answer from the table")
            return None

    def _start(
        self, number: int, work: Callable[..., Coroutine[None, None, None]], *args: object
    ) -> None:
        """Goes on with so many datagrams in the background."""
        if not number:
            return
        self._waiting += number
        if self._waiting >= _MAX_WAITING:
            for opened in self._sockets:
                opened.pause()
        task = asyncio.get_running_loop().create_task(work(*args))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, number))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._waiting -= number
        if self._waiting < _MAX_WAITING:
            for opened in self._sockets:
                opened.resume()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.count("error of ours")
            log.error("UDP 689: datagrams lost by an error", exc_info=error)

    def _send(self, opened: DatagramSocket, replies: Sequence[Datagram]) -> None:
        for _ in range(opened.send(replies)):
            self._faults.count("reply not sent")

    def _check_source(self, host: str) -> bytes | None:
        """The octets of an agent's address; None: it is none of those that are answered."""
        address = IPv4Address(host)
        return address.packed if is_within(address, self._sources) else None


def _judged(request: Connect, verdict: ConnectionVerdict) -> bytes:
    if verdict.verdict is Verdict.ALLOWED:
        comment = verdict.comment or (_NO_REVERSE_NAME if verdict.require_auth else "")
        return request.allowed(comment, require_auth=verdict.require_auth)
    permanently = verdict.verdict is Verdict.DENY_PERMANENT
    return request.denied(verdict.comment or _DENIED, permanently=permanently)
