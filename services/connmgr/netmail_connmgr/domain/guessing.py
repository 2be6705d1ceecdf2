"""Failed logins: who has guessed too often is slowed down, then not listened to.

Failures count against the client's network and against the user. A user is never denied on a
network where he has logged in before: there his failures count apart, and only slow him down. So
neither strangers nor his own forgotten telephone lock him out. Behind a shared network nobody can
be told from anybody: there failures count by user and listener only.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Protocol

from netmail_common.address_ranges import AddressSet
from netmail_common.config import GuessingConfig
from netmail_common.connmgr.model import ANONYMOUS, UserKey
from netmail_common.mail_address import fold
from netmail_common.networks import Located, NetworkMap
from netmail_common.sliding_windows import PARTS

from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
    Service,
    Verdict,
)
from netmail_connmgr.domain.counters import Count, Counted, Counters
from netmail_connmgr.domain.suspicions import Suspect

__all__ = ["Guessing", "GuessingRules", "Suspects", "concerns"]

DAY = 86_400.0
_NAME_WINDOW = DAY / 2
"""Of names that nobody has. Counters are kept by window: a crowd of these pushes out no others."""
_FIRST_DELAY = 0.5
_KNOWN_DELAY = 1.0
"""Seconds that a user waits at most where he is known, whatever his other devices do there."""
_MAX_FRESH = 50_000
_DENIED = "Too many failed logins, try again later"


class Suspects(Protocol):
    """Who takes note of whom agents must ask about."""

    def suspect(self, who: Suspect, seconds: float) -> bool:
        """Suspects somebody for so long; whether that is new."""

    def acquit(self, who: Suspect) -> None:
        """Suspects somebody no more."""


@dataclass(frozen=True, slots=True)
class GuessingRules:
    """What failed logins lead to.

    Attributes:
        window: seconds over which failures of a network are counted; a user's are over a day.
        address_delay_from: failures of a network from which its logins are slowed down.
        address_deny_from: from which they are denied.
        user_delay_from: failures of a user from which logins of his are slowed down.
        user_deny_from: from which logins on networks that are new to him are denied.
        max_delay: seconds.
        known_for: seconds for which a login makes its network known to the user.
        exempt: clients that are neither slowed down nor denied, and never counted.
    """

    window: float = 3600.0
    address_delay_from: int = 5
    address_deny_from: int = 20
    user_delay_from: int = 5
    user_deny_from: int = 20
    max_delay: float = 8.0
    known_for: float = 30 * DAY
    exempt: AddressSet = field(default_factory=lambda: AddressSet(()))

    @classmethod
    def from_config(cls, config: GuessingConfig) -> "GuessingRules":
        """The configured ones."""
        return cls(
            window=config.window,
            address_delay_from=config.address_delay_from,
            address_deny_from=config.address_deny_from,
            user_delay_from=config.user_delay_from,
            user_deny_from=config.user_deny_from,
            max_delay=config.max_delay,
            known_for=config.known_address_days * DAY,
            exempt=AddressSet(map(ip_network, config.exempt_networks)),
        )

    def delay(self, failures: float, start: int) -> float:
        """Seconds that a login is slowed down after so many failures; doubles with each."""
        if failures < start:
            return 0.0
        return min(self.max_delay, _FIRST_DELAY * math.pow(2.0, min(failures - start, 16.0)))


def concerns(question: ConnectionQuestion) -> bool:
    """Whether failed logins have a say: mail to us has nothing to do with them."""
    return question.is_login or question.service is Service.POP3 or question.service is Service.IMAP


class Guessing:
    """Counts failed logins and judges by them. Every method may raise CountersUnavailable.

    Args:
        counters: shared by all replicas.
        suspects: is told whom to ask about.
        networks: gives the map from addresses to networks of this moment.
        rules: limits.
        clock: seconds, never going back.
        listeners: Messaging Server and name of each, whose counters can be forgotten.
    """

    def __init__(
        self,
        counters: Counters,
        suspects: Suspects,
        networks: Callable[[], NetworkMap],
        rules: GuessingRules,
        *,
        clock: Callable[[], float],
        listeners: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._counters = counters
        self._suspects = suspects
        self._networks = networks
        self._rules = rules
        self._clock = clock
        self._listeners = tuple(listeners)
        self._noted: dict[tuple[UserKey, bytes], float] = {}

    def use(self, rules: GuessingRules, listeners: Iterable[tuple[str, str]]) -> None:
        """Judges by other rules from now on; what was counted stays."""
        self._rules = rules
        self._listeners = tuple(listeners)

    async def failed(self, questions: Sequence[ConnectionQuestion]) -> list[float]:
        """Counts failed logins; for each the seconds to wait before it is answered.

        Raises: ValueError, for an address that is none.
        """
        cases = [self._case(question) for question in questions]
        known = await self._known(cases)
        asked = [
            self._counts(case, case.user is not None and is_known, 1)
            for case, is_known in zip(cases, known, strict=True)
        ]
        answers = iter(await self._counters.count([one.count for many in asked for one in many]))
        delays = []
        for case, many in zip(cases, asked, strict=True):
            delay = 0.0
            for one in many:
                counted = next(answers)
                delay = max(
                    delay, self._rules.delay(counted.total + (not counted.admitted), one.slow)
                )
                if counted.total >= min(one.slow, one.count.limit):
                    self._suspect(case, one)
            delays.append(delay)
        return delays

    async def check(self, questions: Sequence[ConnectionQuestion]) -> list[ConnectionVerdict]:
        """Judges connections, and logins that are about to be judged.

        Raises: ValueError, for an address that is none.
        """
        concerned = [question for question in questions if concerns(question)]
        verdicts = iter(await self._judge(concerned) if concerned else ())
        return [
            next(verdicts) if concerns(question) else ConnectionVerdict() for question in questions
        ]

    def not_noted(self, logins: Iterable[tuple[UserKey, bytes]]) -> list[tuple[UserKey, bytes]]:
        """Of users who have logged in from an address those that no recent note says it of."""
        now, until = self._clock(), self._noted.get
        return [login for login in logins if until(login, 0.0) <= now]

    async def logged_in(self, logins: Sequence[tuple[UserKey, bytes]]) -> None:
        """Takes note of users who have logged in from an address.

        Raises: ValueError, for an address that is none.
        """
        rules, now = self._rules, self._clock()
        networks, noted = self._networks(), self._noted
        until = now + min(DAY, rules.known_for / 10)
        keys: list[str] = []
        for user, address in logins:
            if noted.get((user, address), 0.0) > now:
                continue
            where = networks.locate(address)
            if where.standing.shared or not rules.known_for:
                continue
            noted[user, address] = until
            keys += (_known_key(user, where.key), _key("network", where.key))
        if len(self._noted) > _MAX_FRESH:
            self._noted.clear()
        if keys:
            await self._counters.note(keys, rules.known_for)

    async def forget(self, user: UserKey | None, address: bytes) -> int:
        """Forgets failures of a user, a network (4 or 16 octets of an address of it), or both.

        Returns: counters that were not zero.

        Raises: ValueError, for an address that is none.
        """
        keys: list[str] = []
        if user is not None:
            self._suspects.acquit(user)
            keys.append(_key("user", user.name, user.context))
            keys.append(_key("name", fold(user.name)))
            for listener in self._listeners:
                keys.append(_key("user", user.name, user.context, *listener))
                keys.append(_key("name", fold(user.name), *listener))
        if address:
            case = self._case(ConnectionQuestion(address, user=user))
            self._suspects.acquit(case.network)
            keys.append(_key("address", case.network))
            if user is not None:
                keys.append(case.own_key)
        return await self._counters.forget(keys)

    async def _judge(self, questions: Sequence[ConnectionQuestion]) -> list[ConnectionVerdict]:
        cases = [self._case(question) for question in questions]
        known = await self._known(cases)
        asked = [
            self._counts(case, is_known, 0) for case, is_known in zip(cases, known, strict=True)
        ]
        answers = iter(await self._counters.count([one.count for many in asked for one in many]))
        return [
            self._verdict(case, [(one, next(answers)) for one in many])
            for case, many in zip(cases, asked, strict=True)
        ]

    def _case(self, question: ConnectionQuestion) -> "_Case":
        located = self._networks().locate(question.client_address)
        return _Case(
            network=located.key,
            shared=located.standing.shared,
            exempt=self._is_exempt(question.client_address, located),
            user=question.user,
            typed_name=fold(question.typed_name) if question.typed_name else "",
            listener=(question.messaging_server, question.listener),
        )

    def _is_exempt(self, octets: bytes, located: Located) -> bool:
        """By the address itself, or by the IPv4 address that is embedded in it."""
        if not self._rules.exempt:
            return False
        embedded = octets if len(located.key) == 16 else located.key
        return any(ip_address(spelling) in self._rules.exempt for spelling in (octets, embedded))

    async def _known(self, cases: Sequence["_Case"]) -> list[bool]:
        """Whether there is a note that speaks for the client."""
        keys = [case.vouching_key for case in cases if case.vouching_key]
        noted = iter(await self._counters.noted(keys) if keys else ())
        return [bool(case.vouching_key) and next(noted) for case in cases]

    def _counts(self, case: "_Case", known: bool, amount: int) -> list["_Asked"]:
        """The counters that a case is about: all of them if something is to be added."""
        rules = self._rules
        if case.exempt:
            return []
        who = Count(
            case.who_key,
            amount,
            DAY if case.user is not None else _NAME_WINDOW,
            float(rules.user_deny_from),
        )
        if case.shared:
            return [_Asked(who, rules.user_delay_from)] if case.is_login else []
        address = Count(
            _key("address", case.network), amount, rules.window, float(rules.address_deny_from)
        )
        if known:
            if case.user is None:
                return []
            own = Count(case.own_key, amount, DAY)
            return [_Asked(own, rules.user_delay_from, longest=_KNOWN_DELAY)]
        asked = [_Asked(address, rules.address_delay_from, is_network=True)]
        if case.is_login:
            asked.append(_Asked(who, rules.user_delay_from))
        return asked

    def _suspect(self, case: "_Case", asked: "_Asked") -> None:
        who: Suspect | None = case.network if asked.is_network else case.user
        if who is not None:
            self._suspects.suspect(who, asked.count.window * (1 + 1 / PARTS))

    def _verdict(
        self, case: "_Case", counted: Sequence[tuple["_Asked", Counted]]
    ) -> ConnectionVerdict:
        waits = [answer.wait for one, answer in counted if answer.total >= one.count.limit]
        if waits:
            return ConnectionVerdict(
                Verdict.DENY_TEMPORARY,
                comment=_DENIED,
                delay=self._rules.max_delay,
                deny_for=max(waits),
                rule="guessing",
            )
        if case.user is None:
            # Whoever it is, he is slowed down when that is known.
            return ConnectionVerdict()
        delay = max(
            (
                min(one.longest, self._rules.delay(answer.total, one.slow))
                for one, answer in counted
            ),
            default=0.0,
        )
        return ConnectionVerdict(delay=delay, rule="guessing" if delay else "")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A counter that is asked.

    Attributes:
        slow: the total from which it slows down.
        is_network: it is the network's, not the user's.
        longest: seconds that a login which did not fail is slowed down.
    """

    count: Count
    slow: int
    is_network: bool = False
    longest: float = math.inf


@dataclass(frozen=True, slots=True)
class _Case:
    """A question, with its client located."""

    network: bytes
    shared: bool
    exempt: bool
    user: UserKey | None
    typed_name: str
    listener: tuple[str, str]

    @property
    def is_login(self) -> bool:
        return self.user is not None or bool(self.typed_name)

    @property
    def who_key(self) -> str:
        """Of the failures of the user, or of a name that nobody has."""
        listener = self.listener if self.shared else ()
        if self.user is None:
            return _key("name", self.typed_name, *listener)
        return _key("user", self.user.name, self.user.context, *listener)

    @property
    def own_key(self) -> str:
        """Of the user's failures on a network that he is known on."""
        return _key("own", *(self.user or ("", "")), self.network)

    @property
    def known_key(self) -> str:
        """Noted while the network is known to the user."""
        return _known_key(self.user or ANONYMOUS, self.network)

    @property
    def vouching_key(self) -> str:
        """Of the note that speaks for the client: the user's own, else anybody's there."""
        if self.exempt or self.shared:
            return ""
        return self.known_key if self.user is not None else _key("network", self.network)


def _known_key(user: UserKey, network: bytes) -> str:
    return _key("known", *user, network)


def _key(kind: str, *parts: str | bytes) -> str:
    """A short name of a counter or note that tells nothing of whom it is about."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        octets = part if isinstance(part, bytes) else part.encode("utf-8", "replace")
        digest.update(len(octets).to_bytes(4, "big"))
        digest.update(octets)
    return f"{kind}:{digest.hexdigest()}"
