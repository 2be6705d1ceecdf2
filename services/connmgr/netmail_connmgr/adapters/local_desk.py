"""The front desk in the process that owns the table: gRPC and every front end end here."""

import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Decision,
    Login,
    Registration,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.metrics import timed
from netmail_common.networks import Located, NetworkMap, Standing

from netmail_connmgr.adapters import metrics, record
from netmail_connmgr.domain.connections import (
    ConnectionChecks,
    ConnectionQuestion,
    ConnectionVerdict,
)
from netmail_connmgr.domain.counters import CountersUnavailable
from netmail_connmgr.domain.door import Candidate, NotAdmitted, admit, check_user
from netmail_connmgr.domain.explanation import explain_decision
from netmail_connmgr.domain.front_desk import (
    Answer,
    Enquiry,
    FrontDeskUnavailable,
    RelayedMail,
)
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.store import LoginStore, RevokeOrder, StoreError
from netmail_connmgr.domain.table import Found, Outcome, Registered

__all__ = ["LocalDesk"]

T = TypeVar("T")

_INVALID = Registered(Outcome.INVALID)
_MAX_DECIDED = 4096
_MAX_ADMITTED = 4096


class MailCounter(Protocol):
    """Counts mail, as adapters/event_desk.EventDesk does."""

    async def count_mail(self, mails: Sequence[RelayedMail]) -> Sequence[bool]:
        """Whether each is within the rates of its sender: what is not is not counted.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """


class _Decided(NamedTuple):
    """A decision about a place, and all that it was made of."""

    question: SenderQuestion
    logins: tuple[Login, ...]
    standing: Standing
    max_users: int
    decision: SenderDecision


class LocalDesk:
    """FrontDesk over a store; belongs to its event loop.

    Attributes:
        guard: knows when this process stood still.
        connections: the rules about connections; None: everybody may connect.
        count_failure: told of failed logins; None: nobody counts them.
        events: counts mail of known senders; None: nobody does.
        remember_logins: told of who has logged in from where; None: nobody wants to know.
    """

    def __init__(
        self,
        store: LoginStore,
        networks: NetworkMap,
        *,
        max_users_per_network: int,
        connections: ConnectionChecks | None = None,
        count_failure: Callable[[ConnectionQuestion], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._max_users = max_users_per_network
        self._networks = networks
        self._admitted = functools.lru_cache(maxsize=_MAX_ADMITTED)(self._admit)
        self.guard = StallGuard(store.now())
        self.connections = connections
        self.count_failure = count_failure
        self.events: MailCounter | None = None
        self.remember_logins: Callable[[Iterable[tuple[UserKey, bytes]]], None] | None = None
        self._decided: dict[bytes, _Decided] = {}

    @property
    def networks(self) -> NetworkMap:
        """The one map from addresses to networks; may be replaced at any time."""
        return self._networks

    @networks.setter
    def networks(self, networks: NetworkMap) -> None:
        self._networks = networks
        self._admitted.cache_clear()

    def limit_users(self, most: int) -> None:
        """Is strict with networks of more users from now on."""
        self._max_users = most

    async def register(self, candidates: Sequence[Candidate]) -> Sequence[Registered]:
        """Registers logins; what is not admitted is answered by Outcome.INVALID.

        Raises: FrontDeskUnavailable.
        """
        lost = self.guard.lost(self._store.now())
        if lost:  # they may have waited in a socket, unread, for so long
            candidates = [one._replace(age=one.age + lost) for one in candidates]
        admitted: list[Registration] = []
        refused: list[int] = []
        for index, candidate in enumerate(candidates):
            # Without a session it says the same each time.
            admitting = self._admit if candidate.session_id else self._admitted
            try:
                admitted.append(admitting(candidate))
            except NotAdmitted as verdict:
                refused.append(index)
                record.not_admitted(candidate.user.name, candidate.client_address, str(verdict))
        results: list[Registered] = []
        if admitted:
            results += await self._keep(admitted)
        for index in refused:  # growing: each finds its place
            results.insert(index, _INVALID)
        return results

    def _admit(self, candidate: Candidate) -> Registration:
        """Raises: NotAdmitted."""
        return admit(candidate, self._networks)

    async def _keep(self, admitted: list[Registration]) -> Sequence[Registered]:
        """Registers logins that are admitted, and tells whoever wants to know of them."""
        with timed(metrics.DURATION.labels("register")):
            answers = await _ask(self._store.register(admitted))
        record.registrations(admitted, answers)
        if self.remember_logins is not None:
            granted = Outcome.REGISTERED
            self.remember_logins(
                [
                    (one.profile.user, one.client_address)
                    for one, answer in zip(admitted, answers, strict=True)
                    if answer.outcome is granted
                ]
            )
        metrics.LOGINS.set(await _ask(self._store.size()))
        return answers

    async def enquire(self, enquiries: Sequence[Enquiry]) -> Sequence[Answer]:
        """Decides, and writes down what it decided.

        Raises: ValueError, for an address that is none; FrontDeskUnavailable.
        """
        located = [self.networks.locate(enquiry.client_address) for enquiry in enquiries]
        found = await self._find(located)
        decisions = [
            self._decide(enquiry, where, logins)
            for enquiry, where, logins in zip(enquiries, located, found, strict=True)
        ]
        if self._store.settling() and any(map(_may_lack_a_login, located, decisions)):
            raise FrontDeskUnavailable("logins are being told again")
        record.decisions(enquiries, decisions)
        return list(map(_answer, decisions, found))

    async def _find(self, located: Sequence[Located]) -> Sequence[Found]:
        """The logins of each network; none where nobody's login counts, however many there are."""
        wanted = [where.place for where in located if where.grants]
        if not wanted:
            return [Found(self._store.now())] * len(located)
        with timed(metrics.DURATION.labels("find")):
            found = await _ask(self._store.find(wanted))
        if len(wanted) == len(located):
            return found
        of_granting = iter(found)
        now = self._store.now()
        return [next(of_granting) if where.grants else Found(now) for where in located]

    @property
    def checks_every_connection(self) -> bool:
        """Whether connections are to be asked about that no suspicion is about."""
        return self.connections is not None and self.connections.every_connection

    async def check_connections(
        self, questions: Sequence[ConnectionQuestion]
    ) -> Sequence[ConnectionVerdict]:
        """Judges clients by the lists, DNSBL, reverse DNS and failed logins."""
        if self.connections is None:
            return [ConnectionVerdict()] * len(questions)
        return await self.connections.check(questions)

    async def count_mail(self, mails: Sequence[RelayedMail]) -> Sequence[bool]:
        """Counts mail; whether it is within the rates of its sender: what is not is not counted.

        Raises: ValueError, for an address that is none; FrontDeskUnavailable.
        """
        if self.events is None:
            return [True] * len(mails)
        try:
            return await self.events.count_mail(mails)
        except CountersUnavailable:
            metrics.COUNTERS_UNAVAILABLE.inc(len(mails))
            raise FrontDeskUnavailable("counters") from None

    async def login_failed(self, question: ConnectionQuestion) -> None:
        """Counts a failed login."""
        if self.count_failure is not None:
            await self.count_failure(question)

    async def log_out(self, user: UserKey | None, client_address: bytes) -> None:
        """Ends the login of a user from an address; of a name that none can have, nothing.

        Without a user it ends everybody's from there.

        Raises: ValueError, for an address that is none; FrontDeskUnavailable.
        """
        try:
            check_user(user or ANONYMOUS)
        except NotAdmitted:
            return
        where = self.networks.locate(client_address)
        order = RevokeOrder(
            user=user,
            network=where.key,
            credential_epoch=0,
            client_address=client_address,
            prefix_length=where.prefix_length,
            reason="logged out",
        )
        with timed(metrics.DURATION.labels("revoke")):
            revoked = await _ask(self._store.revoke(order))
        record.revocation(order, revoked)
        metrics.LOGINS.set(await _ask(self._store.size()))

    async def explain(self, enquiry: Enquiry) -> tuple[Answer, list[str]]:
        """Decides for people: what each rule said; nothing is written down.

        Raises: ValueError, for an address that is none; FrontDeskUnavailable.
        """
        octets = enquiry.client_address
        where = self.networks.locate(octets)
        (logins,) = await _ask(self._store.find([where.place]))
        decision = self._decide(enquiry, where, logins)
        lines = explain_decision(
            octets,
            where,
            enquiry.question,
            logins,
            decision,
            max_users=self._max_users,
        )
        if self._store.settling() and _may_lack_a_login(where, decision):
            lines.append("result: 'try again later' for now; see settle_time")
        return _answer(decision, logins), lines

    async def explain_connection(
        self, question: ConnectionQuestion
    ) -> tuple[ConnectionVerdict, list[str]]:
        """Judges a client for people: what each rule said; nothing is written down.

        Raises: ValueError, for an address that is none.
        """
        if self.connections is None:
            return ConnectionVerdict(), ["nobody judges connections"]
        return await self.connections.explain(question)

    def _decide(self, enquiry: Enquiry, where: Located, logins: Found) -> SenderDecision:
        """Decides; as before, if it is about the very same logins and names no senders."""
        if enquiry.question.senders or not logins.logins:
            return self._newly(enquiry, where, logins)
        known = self._decided.get(where.place)
        if (
            known is not None
            and known.logins is logins.logins
            and known.question is enquiry.question
            and known.standing is where.standing
            and known.max_users == self._max_users
        ):
            return known.decision
        decision = self._newly(enquiry, where, logins)
        if len(self._decided) >= _MAX_DECIDED:
            self._decided.clear()
        self._decided[where.place] = _Decided(
            enquiry.question, logins.logins, where.standing, self._max_users, decision
        )
        return decision

    def _newly(self, enquiry: Enquiry, where: Located, logins: Found) -> SenderDecision:
        return decide(
            enquiry.question,
            where.standing,
            logins.logins,
            max_users=self._max_users,
            expired=logins.expired,
        )


def _may_lack_a_login(where: Located, decision: SenderDecision) -> bool:
    """Whether one more login might have decided otherwise."""
    return where.grants and decision.decision is not Decision.ALLOWED


def _answer(decision: SenderDecision, logins: Found) -> Answer:
    login = decision.login
    return Answer(decision, max(0.0, login.expires - logins.now) if login is not None else 0.0)


async def _ask(call: Awaitable[T]) -> T:
    """Asks the store; its errors become the front desk's."""
    try:
        return await call
    except StoreError as error:
        raise FrontDeskUnavailable(type(error).__name__) from error
