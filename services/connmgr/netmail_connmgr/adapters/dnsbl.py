"""Looks clients up in DNS lists (RFC 5782)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

import dns.name
import dns.reversename
from netmail_common.address_ranges import Ranges, read_ranges
from netmail_common.config import DnsblConfig
from netmail_common.logging import get_logger
from netmail_common.networks import Address

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.dns_resolver import DnsUnknown, Resolver
from netmail_connmgr.adapters.lookups import LookupBusy, Lookups
from netmail_connmgr.domain.connection_rules import BlockZone, ZoneAnswer
from netmail_connmgr.domain.connections import Service

__all__ = ["BlockLists", "zones_of"]

MAX_KEPT = 100_000
MAX_UNDER_WAY = 500
_FAILURES = 10
"""Questions in a row without an answer after which a zone is left alone."""
_REST = 30.0
"""Seconds that it is."""

_Key = tuple[str, Address]

log = get_logger(__name__)


def zones_of(config: DnsblConfig) -> list[BlockZone]:
    """The zones of the configuration."""
    return [
        BlockZone(
            name=zone.zone,
            answers=Ranges([network for text in zone.answers for network in read_ranges(text)]),
            services=frozenset(service for name in zone.services for service in _SERVICES[name]),
            denies=zone.action == "deny",
            comment=zone.comment,
        )
        for zone in config.zones
    ]


_SERVICES = {
    # Who asks without a service asks for a mail server.
    "smtp": (Service.SMTP, Service.UNKNOWN),
    "submission": (Service.SUBMISSION,),
    "pop3": (Service.POP3,),
    "imap": (Service.IMAP,),
}


class BlockLists:
    """Asks the zones, all at once; keeps what they said for the configured times.

    Args:
        resolver: that is asked.
        config: times.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        resolver: Resolver,
        config: DnsblConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.zones = zones_of(config)
        self._resolver = resolver
        self._config = config
        self._clock = clock
        self._zones = {zone.name: zone for zone in self.zones}
        self._health = {zone.name: _ZoneHealth(zone.name) for zone in self.zones}
        self._lookups = Lookups[_Key, ZoneAnswer](
            self._ask, self._keep, max_kept=MAX_KEPT, max_under_way=MAX_UNDER_WAY, clock=clock
        )

    async def look_up(
        self, address: Address, zones: Sequence[BlockZone], *, all_of_them: bool = False
    ) -> list[ZoneAnswer]:
        """What the zones say, in their order; it takes no longer than the configured timeout.

        Args:
            address: of the client.
            zones: to ask; of `zones`.
            all_of_them: wait for each zone; else the first one that denies ends the waiting.
        """
        kept = {zone.name: self._lookups.kept((zone.name, address)) for zone in zones}
        answers = {name: answer for name, answer in kept.items() if answer is not None}
        if all_of_them or not any(map(_denies, answers.values())):
            missing = [zone for zone in zones if zone.name not in answers]
            answers.update(await self._wait_for(address, missing, all_of_them=all_of_them))
        return [answers.get(zone.name) or ZoneAnswer(zone, unknown=True) for zone in zones]

    async def close(self) -> None:
        """Ends the questions that are under way."""
        await self._lookups.close()

    async def _wait_for(
        self, address: Address, zones: Sequence[BlockZone], *, all_of_them: bool
    ) -> dict[str, ZoneAnswer]:
        answers: dict[str, ZoneAnswer] = {}
        waiting = {
            asyncio.ensure_future(self._look_up_in(zone, address))
            for zone in zones
            if self._health[zone.name].may_ask(self._clock())
        }
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.timeout
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting,
                    timeout=max(0.0, deadline - loop.time()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    break
                for answer in (task.result() for task in done):
                    answers[answer.zone.name] = answer
                if not all_of_them and any(map(_denies, answers.values())):
                    break
        finally:
            for task in waiting:
                task.cancel()
        return answers

    async def _look_up_in(self, zone: BlockZone, address: Address) -> ZoneAnswer:
        try:
            return await self._lookups.get((zone.name, address))
        except DnsUnknown:
            pass
        except LookupBusy:
            metrics.DNS_LOOKUPS.labels("dnsbl", "too many").inc()
        return ZoneAnswer(zone, unknown=True)

    async def _ask(self, key: _Key) -> ZoneAnswer:
        name, address = key
        zone, health = self._zones[name], self._health[name]
        try:
            records = await self._resolver.ask(_question(address, name), "A", self._config.timeout)
        except DnsUnknown:
            metrics.DNS_LOOKUPS.labels("dnsbl", "failed").inc()
            health.failed(self._clock())
            raise
        health.answered()
        texts = [record.to_text() for record in records]
        listed = tuple(text for text in texts if _counts(text, zone))
        metrics.DNS_LOOKUPS.labels("dnsbl", "listed" if listed else "not listed").inc()
        return ZoneAnswer(zone, listed)

    def _keep(self, answer: ZoneAnswer) -> float:
        return self._config.hit_cache if answer.listed else self._config.miss_cache


class _ZoneHealth:
    """Leaves a zone alone whose servers say nothing: every client would have to wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failures = 0
        self._rests_until = float("-inf")

    def may_ask(self, now: float) -> bool:
        return now >= self._rests_until

    def answered(self) -> None:
        self._failures = 0

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._failures >= _FAILURES and now >= self._rests_until:
            log.warning("DNS list does not answer", zone=self._name, left_alone_for=_REST)
            self._rests_until = now + _REST
            # One more failure after that, and it rests again.
            self._failures = _FAILURES - 1


def _question(address: Address, zone: str) -> dns.name.Name:
    """The name to ask for: the octets or nibbles backwards, then the zone (RFC 5782 2.1, 2.4)."""
    pointer = dns.reversename.from_address(str(address))
    suffix = dns.reversename.ipv4_reverse_domain
    if address.version == 6:
        suffix = dns.reversename.ipv6_reverse_domain
    name: dns.name.Name = pointer.relativize(suffix) + dns.name.from_text(zone)
    return name


def _counts(text: str, zone: BlockZone) -> bool:
    number = int(IPv4Address(text))
    return zone.answers.touch(number, number)


def _denies(answer: ZoneAnswer) -> bool:
    return bool(answer.listed) and answer.zone.denies
