"""Finds out what the rules about connections must know, and asks them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from netmail_common.logging import get_logger
from netmail_common.networks import Address, Located, NetworkMap

from netmail_connmgr.adapters import record
from netmail_connmgr.adapters.dnsbl import BlockLists
from netmail_connmgr.adapters.reverse_dns import ReverseNames
from netmail_connmgr.domain.connection_rules import (
    MAIL_SERVICES,
    BlockZone,
    Findings,
    ReverseName,
    ZoneAnswer,
    explain,
    judge,
    worth_looking_up,
    zones_for,
)
from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
)
from netmail_connmgr.domain.counters import CountersUnavailable
from netmail_connmgr.domain.guessing import concerns
from netmail_connmgr.domain.lists import AddressLists, Listing, client_address
from netmail_connmgr.domain.store import LoginStore, StoreError

__all__ = ["ConnectionChecker", "LoginJudge"]

log = get_logger(__name__)


class LoginJudge(Protocol):
    """Judges by failed logins."""

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        """Answers each by the verdict of the same index. Raises: CountersUnavailable."""


@dataclass(frozen=True, slots=True)
class _ByDns:
    """What DNS and the login table said; the fields are those of Findings."""

    known: bool | None = False
    zones: Sequence[ZoneAnswer] | None = None
    reverse: ReverseName | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """A question and where its client is."""

    question: ConnectionQuestion
    where: Located
    address: Address
    listing: Listing


class ConnectionChecker:
    """ConnectionChecks over DNS, the login table and whoever counts failed logins.

    Args:
        store: of the table: a client that a login vouches for is none of DNS's business.
        networks: gives the map from addresses to networks, as it is now.
        lists: of those that are always or never let in.
        block_lists: None: off.
        reverse_names: None: off.

    Attributes:
        guessing: judges by failed logins; None: nobody counts them.
    """

    def __init__(
        self,
        store: LoginStore,
        networks: Callable[[], NetworkMap],
        lists: AddressLists,
        *,
        block_lists: BlockLists | None = None,
        reverse_names: ReverseNames | None = None,
        guessing: LoginJudge | None = None,
    ) -> None:
        self._store = store
        self._networks = networks
        self._lists = lists
        self._block_lists = block_lists
        self._reverse_names = reverse_names
        self.guessing = guessing

    def use(
        self,
        lists: AddressLists,
        *,
        block_lists: BlockLists | None,
        reverse_names: ReverseNames | None,
    ) -> None:
        """Judges by other rules from now on; questions to DNS that are under way are answered."""
        self._lists = lists
        self._block_lists = block_lists
        self._reverse_names = reverse_names

    @property
    def every_connection(self) -> bool:
        """Whether connections are to be checked that no suspicion is about."""
        return (
            self._lists.blocks or self._block_lists is not None or self._reverse_names is not None
        )

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        """Judges; whatever cannot be found out in time speaks for the client.

        Raises: ValueError, for an address that is none.
        """
        asked = [self._has_rules_for(question) for question in questions]
        open_ones = [one for one, wanted in zip(questions, asked, strict=True) if wanted]
        found = iter(await self._find_out(open_ones, thorough=False) if open_ones else ())
        verdicts = [judge(next(found)) if wanted else ConnectionVerdict() for wanted in asked]
        record.connections(questions, verdicts)
        return verdicts

    async def explain(self, question: ConnectionQuestion) -> tuple[ConnectionVerdict, list[str]]:
        """Judges, and says what each rule said; every one is asked, and nothing is counted.

        Raises: ValueError, for an address that is none.
        """
        (found,) = await self._find_out([question], thorough=True)
        return judge(found), explain(found)

    async def close(self) -> None:
        """Ends questions to DNS that are under way."""
        for lookups in (self._block_lists, self._reverse_names):
            if lookups is not None:
                await lookups.close()

    def _has_rules_for(self, question: ConnectionQuestion) -> bool:
        """Whether there is anything to find out: most clients no rule has anything to say about."""
        octets = question.client_address
        if self.guessing is not None and concerns(question):
            return True
        if self._lists.look_up(octets, self._networks().locate(octets)) is not Listing.NONE:
            return True
        if self._block_lists is None and self._reverse_names is None:
            return False
        return not question.is_login

    async def _find_out(
        self, questions: Sequence[ConnectionQuestion], *, thorough: bool
    ) -> list[Findings]:
        subjects = [self._subject(question) for question in questions]
        asked = [thorough or one.listing is Listing.NONE for one in subjects]
        open_ones = [one for one, wanted in zip(subjects, asked, strict=True) if wanted]
        by_dns, by_guessing = await asyncio.gather(
            self._ask_dns(open_ones, thorough=thorough), self._ask_guessing(open_ones)
        )
        answers = iter(zip(by_dns, by_guessing, strict=True))
        found = []
        for one, wanted in zip(subjects, asked, strict=True):
            dns, guessing = next(answers) if wanted else (_ByDns(), None)
            found.append(
                Findings(
                    one.address,
                    one.where.standing,
                    one.listing,
                    known=dns.known,
                    zones=dns.zones,
                    reverse=dns.reverse,
                    guessing=guessing,
                )
            )
        return found

    def _subject(self, question: ConnectionQuestion) -> _Subject:
        octets = question.client_address
        where = self._networks().locate(octets)
        return _Subject(
            question, where, client_address(octets, where), self._lists.look_up(octets, where)
        )

    async def _ask_guessing(
        self, subjects: Sequence[_Subject]
    ) -> Sequence[ConnectionVerdict | None]:
        if self.guessing is None or not subjects:
            return [None] * len(subjects)
        try:
            return await self.guessing.check([one.question for one in subjects])
        except CountersUnavailable:
            log.warning("failed logins are not known")
            return [None] * len(subjects)

    async def _ask_dns(self, subjects: Sequence[_Subject], *, thorough: bool) -> list[_ByDns]:
        asked = [self._is_for_dns(one) for one in subjects]
        known = await self._known(
            [one for one, wanted in zip(subjects, asked, strict=True) if wanted]
        )
        lookups = [
            self._look_up(one, known=known[one.where.place], thorough=thorough)
            for one, wanted in zip(subjects, asked, strict=True)
            if wanted
        ]
        answers = iter(await asyncio.gather(*lookups))
        return [next(answers) if wanted else _ByDns() for wanted in asked]

    def _is_for_dns(self, subject: _Subject) -> bool:
        """Whether a rule of DNS is on for a client of this service."""
        if subject.question.is_login:
            return False
        if not worth_looking_up(subject.address, subject.where.standing):
            return False
        return bool(self._zones(subject)) or self._wants_reverse(subject)

    def _zones(self, subject: _Subject) -> list[BlockZone]:
        if self._block_lists is None:
            return []
        return zones_for(subject.question.service, self._block_lists.zones)

    def _wants_reverse(self, subject: _Subject) -> bool:
        return self._reverse_names is not None and subject.question.service in MAIL_SERVICES

    async def _known(self, subjects: Sequence[_Subject]) -> dict[bytes, bool | None]:
        """Whether a login vouches for the clients' networks, by place; None: nobody can say."""
        grants = {one.where.place: one.where.grants for one in subjects}
        if not grants:
            return {}
        try:
            found = await self._store.find(list(grants))
        except StoreError:
            return dict.fromkeys(grants)
        return {
            place: granting and bool(logins.logins)
            for (place, granting), logins in zip(grants.items(), found, strict=True)
        }

    async def _look_up(self, subject: _Subject, *, known: bool | None, thorough: bool) -> _ByDns:
        if known and not thorough:
            return _ByDns(known)
        reverse = asyncio.ensure_future(self._reverse(subject))
        try:
            zones = None
            if self._block_lists is not None:
                zones = await self._block_lists.look_up(
                    subject.address, self._zones(subject), all_of_them=thorough
                )
            if not thorough and any(one.listed and one.zone.denies for one in zones or ()):
                return _ByDns(known, zones)
            return _ByDns(known, zones, await reverse)
        finally:
            reverse.cancel()

    async def _reverse(self, subject: _Subject) -> ReverseName | None:
        if self._reverse_names is None or not self._wants_reverse(subject):
            return None
        return await self._reverse_names.look_up(subject.address)
