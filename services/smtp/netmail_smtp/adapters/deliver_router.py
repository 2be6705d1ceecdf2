"""From a destination domain to the addresses to try, in order."""

import random
from collections.abc import Callable

from netmail_common.config import RouteConfig
from netmail_common.config._base import parse_host_port

from netmail_smtp.adapters.dns import DnsFailed, Resolver
from netmail_smtp.domain.deliver_outcome import DeliveryFailure, permanent, prevailing
from netmail_smtp.domain.deliver_route import (
    IPAddress,
    MxHosts,
    RouteTable,
    Security,
    Target,
    literal_address,
    order_mx,
)

MAX_TARGETS = 12
"""Addresses tried in one attempt."""


class Router:
    """Routes first, then address literals, then MX."""

    def __init__(
        self,
        routes: RouteTable,
        resolver: Resolver,
        *,
        own_names: frozenset[str],
        smtp_port: int,
        ipv6: bool,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        """Makes a router.

        Args:
            routes: the configured ones.
            resolver: DNS.
            own_names: names under which we may be an MX ourselves.
            smtp_port: of MX hosts.
            ipv6: try IPv6 addresses (before IPv4).
            shuffle: spreads the load over MX hosts of equal preference.
        """
        self._routes = routes
        self._resolver = resolver
        self._own_names = own_names
        self._port = smtp_port
        self._ipv6 = ipv6
        self._shuffle = shuffle

    def use(self, routes: RouteTable) -> None:
        """Goes on with other routes; mail that is under way keeps its own."""
        self._routes = routes

    async def targets(self, domain: str) -> list[Target] | DeliveryFailure:
        """Where to try DOMAIN (A-labels or an address literal); never an empty list."""
        route = self._routes.find(domain)
        if route is not None:
            return await self._by_route(route)
        literal = literal_address(domain)
        if literal is not None:
            return [Target(domain, str(literal), self._port)]
        return await self._by_mx(domain, self._port, Security())

    async def _by_route(self, route: RouteConfig) -> list[Target] | DeliveryFailure:
        # The CA file is the route's too, so any route keeps its sessions to itself.
        own = route.username is not None or route.ca_file is not None
        security = Security(route.tls, route.domain if own else "")
        targets: list[Target] = []
        failures: list[DeliveryFailure] = []
        for text in route.hosts:
            host, port = parse_host_port(text)
            if route.mx:
                found = await self._by_mx(host, port, security)
            else:
                found = await self._by_name(host, port, security)
            if isinstance(found, DeliveryFailure):
                failures.append(found)
            else:
                targets += found
        return targets[:MAX_TARGETS] if targets else prevailing(failures)

    async def _by_name(
        self, host: str, port: int, security: Security
    ) -> list[Target] | DeliveryFailure:
        literal = literal_address(host)
        if literal is not None:
            return [Target(host, str(literal), port, security)]
        try:
            addresses = await self._resolver.route_addresses(host, ipv6=self._ipv6)
        except DnsFailed as error:
            return error.failure
        return _targets(host, addresses, port, security) or _no_address(host)

    async def _by_mx(
        self, domain: str, port: int, security: Security
    ) -> list[Target] | DeliveryFailure:
        try:
            records = await self._resolver.mx(domain)
        except DnsFailed as error:
            return error.failure
        order = order_mx(domain, records, own_names=self._own_names, shuffle=self._shuffle)
        if isinstance(order, DeliveryFailure):
            return order
        return await self._by_hosts(order, port, security)

    async def _by_hosts(
        self, order: MxHosts, port: int, security: Security
    ) -> list[Target] | DeliveryFailure:
        targets: list[Target] = []
        failures: list[DeliveryFailure] = []
        for host in order.hosts:
            try:
                addresses = await self._resolver.addresses(host, ipv6=self._ipv6)
            except DnsFailed as error:
                failures.append(error.failure)
                continue
            found = _targets(host, addresses, port, security)
            targets += found
            if not found:
                failures.append(_no_address(host))
            if len(targets) >= MAX_TARGETS:
                break
        return targets[:MAX_TARGETS] if targets else prevailing(failures)


def _targets(host: str, addresses: list[IPAddress], port: int, security: Security) -> list[Target]:
    return [Target(host, str(address), port, security) for address in addresses]


def _no_address(host: str) -> DeliveryFailure:
    return permanent("5.4.4", f"{host} has no address")
