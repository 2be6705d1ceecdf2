"""DNS for deliveries: MX and addresses, without blocking the loop."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from netmail_common.config import Address
from netmail_common.config._base import parse_host_port

from netmail_smtp.domain.deliver_outcome import DeliveryFailure, permanent, temporary
from netmail_smtp.domain.deliver_route import IPAddress, MxRecord

LIFETIME = 20.0
"""Seconds for one question, retries included."""
_CACHE = 20_000


class DnsFailed(Exception):
    """The question has no answer; `failure` says whether one may come."""

    def __init__(self, failure: DeliveryFailure) -> None:
        super().__init__(failure.diagnostic)
        self.failure = failure


class Resolver:
    """Asks the configured servers, else those of the system; remembers answers for their TTL."""

    def __init__(self, servers: Sequence[Address] = (), *, lifetime: float = LIFETIME) -> None:
        """Makes a resolver.

        Args:
            servers: host:port with an IP address as host; empty: the system's resolvers, and its
                other sources (hosts file) for the names in routes.
            lifetime: seconds for one question.

        Raises: ValueError when a server is not an IP address.
        """
        self._own_servers = bool(servers)
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            # Routes may be all that there is; whatever needs DNS waits.
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        if servers:
            self._resolver.nameservers = [_nameserver(server) for server in servers]
        self._resolver.cache = dns.resolver.LRUCache(_CACHE)
        self._resolver.lifetime = lifetime
        self._resolver.use_edns(0, 0, 1232)

    async def mx(self, domain: str) -> list[MxRecord]:
        """The MX records of DOMAIN; none when it exists without.

        Raises: DnsFailed.
        """
        answer = await self._ask(domain, "MX")
        return [
            MxRecord(record.preference, record.exchange.to_text(omit_final_dot=True).lower())
            if record.exchange != dns.name.root
            else MxRecord(record.preference, "")
            for record in answer
            if isinstance(record, MX)
        ]

    async def addresses(self, host: str, *, ipv6: bool) -> list[IPAddress]:
        """AAAA (with IPV6), then A. Empty: the host has no address.

        Raises: DnsFailed when the host does not exist, or one of the questions got no answer and
            the other no address.
        """
        kinds = ["AAAA", "A"] if ipv6 else ["A"]
        answers = await asyncio.gather(
            *(self._ask(host, kind) for kind in kinds), return_exceptions=True
        )
        found: list[IPAddress] = []
        failed: DnsFailed | None = None
        for answer in answers:
            if isinstance(answer, DnsFailed):
                if failed is None or answer.failure.retryable:
                    failed = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += [ipaddress.ip_address(record.to_text()) for record in answer]
        if not found and failed is not None:
            raise failed
        return found

    async def route_addresses(self, host: str, *, ipv6: bool) -> list[IPAddress]:
        """Addresses of a host that a route names: the system's hosts file counts too.

        Raises: DnsFailed.
        """
        if self._own_servers:
            return await self.addresses(host, ipv6=ipv6)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM, family=0 if ipv6 else socket.AF_INET
            )
        except OSError as error:
            # A route's host is our operator's word: it will be there one day.
            raise DnsFailed(temporary("4.4.3", f"no address for {host}")) from error
        ordered = dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found)
        return sorted(ordered, key=lambda address: -address.version)

    async def _ask(self, name: str, kind: str) -> list[dns.rdata.Rdata]:
        try:
            answer = await self._resolver.resolve(
                dns.name.from_text(name), kind, raise_on_no_answer=False, search=False
            )
        except dns.resolver.NXDOMAIN as error:
            raise DnsFailed(permanent("5.1.2", f"{name} does not exist in DNS")) from error
        except (dns.exception.Timeout, dns.resolver.NoNameservers) as error:
            raise DnsFailed(temporary("4.4.3", f"no answer from DNS for {name} {kind}")) from error
        except (dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong) as error:
            raise DnsFailed(permanent("5.1.2", f"{name} is not a domain name")) from error
        except (dns.exception.DNSException, OSError) as error:
            raise DnsFailed(temporary("4.4.3", f"DNS fails for {name} {kind}")) from error
        return list(answer.rrset or ())


def _nameserver(address: str) -> dns.nameserver.Nameserver:
    host, port = parse_host_port(address)
    ipaddress.ip_address(host)
    return dns.nameserver.Do53Nameserver(host, port)
