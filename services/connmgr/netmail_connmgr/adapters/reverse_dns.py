"""Reverse names that resolve back to the address: forward-confirmed reverse DNS."""

import asyncio
import ipaddress
import time
from collections.abc import Callable

import dns.reversename
from dns.rdtypes.ANY.PTR import PTR
from netmail_common.config import ReverseDnsConfig
from netmail_common.networks import Address

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.dns_resolver import DnsUnknown, Resolver
from netmail_connmgr.adapters.lookups import LookupBusy, Lookups
from netmail_connmgr.domain.connection_rules import Reverse, ReverseName

__all__ = ["ReverseNames"]

MAX_KEPT = 100_000
MAX_UNDER_WAY = 500
MAX_NAMES = 10
"""Names of an address that are tried; its owner may write as many as he likes."""
_UNKNOWN_KEPT = 30.0
"""Seconds: a client whose DNS says nothing would wait for it at each connection."""
_UNKNOWN = ReverseName(Reverse.UNKNOWN)


class ReverseNames:
    """Finds reverse names and keeps what it found.

    Args:
        resolver: that is asked.
        config: times.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        resolver: Resolver,
        config: ReverseDnsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._config = config
        self._lookups = Lookups[Address, ReverseName](
            self._ask, self._keep, max_kept=MAX_KEPT, max_under_way=MAX_UNDER_WAY, clock=clock
        )

    async def look_up(self, address: Address) -> ReverseName:
        """The reverse name of a client; it takes no longer than the configured timeout."""
        try:
            return await self._lookups.get(address)
        except LookupBusy:
            metrics.DNS_LOOKUPS.labels("reverse", "too many").inc()
            return _UNKNOWN

    async def close(self) -> None:
        """Ends the questions that are under way."""
        await self._lookups.close()

    async def _ask(self, address: Address) -> ReverseName:
        try:
            async with asyncio.timeout(self._config.timeout):
                found = await self._confirm(address)
        except (DnsUnknown, TimeoutError):
            found = _UNKNOWN
        metrics.DNS_LOOKUPS.labels("reverse", found.result.name.lower()).inc()
        return found

    async def _confirm(self, address: Address) -> ReverseName:
        """Raises: DnsUnknown."""
        timeout = self._config.timeout
        pointer = dns.reversename.from_address(str(address))
        pointers = await self._resolver.ask(pointer, "PTR", timeout)
        names = [record.target for record in pointers if isinstance(record, PTR)]
        if not names:
            return ReverseName(Reverse.MISSING)
        kind = "A" if address.version == 4 else "AAAA"
        tasks = [
            asyncio.ensure_future(self._resolver.ask(name, kind, timeout))
            for name in names[:MAX_NAMES]
        ]
        try:
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        unknown = False
        for name, answer in zip(names, answers, strict=False):
            if isinstance(answer, BaseException):
                unknown = True
            elif any(ipaddress.ip_address(record.to_text()) == address for record in answer):
                return ReverseName(Reverse.CONFIRMED, name.to_text(omit_final_dot=True))
        shown = names[0].to_text(omit_final_dot=True)
        return ReverseName(Reverse.UNKNOWN if unknown else Reverse.UNCONFIRMED, shown)

    def _keep(self, found: ReverseName) -> float:
        if found.result is Reverse.UNKNOWN:
            return min(_UNKNOWN_KEPT, self._config.cache)
        return self._config.cache
