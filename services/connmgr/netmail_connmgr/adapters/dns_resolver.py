"""Questions to DNS, by dnspython: an answer, none, or nobody could say."""

import asyncio
import ipaddress
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdataclass
import dns.resolver
from netmail_common.config import Address
from netmail_common.config._base import parse_host_port

__all__ = ["DnsUnknown", "Resolver", "nameservers"]


AT_ONCE = 200
_TRY = 1.5
"""Seconds after which a question is asked again."""


class DnsUnknown(Exception):
    """DNS did not say; it may another time."""


def nameservers(addresses: Sequence[Address]) -> list[dns.nameserver.Nameserver]:
    """Reads `host:port` of resolvers.

    Raises: ValueError, when a host is not an IP address.
    """
    servers: list[dns.nameserver.Nameserver] = []
    for text in addresses:
        host, port = parse_host_port(text)
        ipaddress.ip_address(host)
        servers.append(dns.nameserver.Do53Nameserver(host, port))
    return servers


class Resolver:
    """Asks the given servers, else those of the system. It keeps nothing: whoever asks does.

    Args:
        servers: to ask; empty: the system's.
        at_once: questions; each has a socket of its own. The others wait for their turn.
    """

    def __init__(
        self, servers: Sequence[dns.nameserver.Nameserver], *, at_once: int = AT_ONCE
    ) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        if servers:
            self._resolver.nameservers = list(servers)
        # A datagram may be lost: there is time for another one.
        self._resolver.timeout = _TRY
        self._resolver.use_edns(0, 0, 1232)
        self._turn = asyncio.Semaphore(at_once)

    async def ask(
        self,
        name: dns.name.Name,
        kind: str,
        timeout: float,  # noqa: ASYNC109 - the library retries within it
    ) -> list[dns.rdata.Rdata]:
        """The records of a name; none if there are none.

        Args:
            name: absolute.
            kind: "A", "PTR", ...
            timeout: seconds, retries and the waiting for a turn included.

        Raises: DnsUnknown.
        """
        try:
            async with asyncio.timeout(timeout), self._turn:
                answer = await self._resolver.resolve(
                    name, kind, raise_on_no_answer=False, search=False, lifetime=timeout
                )
        except dns.resolver.NXDOMAIN:
            return []
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise DnsUnknown(type(error).__name__) from error
        return list(answer.rrset or ())
