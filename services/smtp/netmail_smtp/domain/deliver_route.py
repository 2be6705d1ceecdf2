"""Where mail for a domain goes: the route table, MX records (RFC 5321 5.1), null MX (RFC 7505)."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from netmail_common.config import RouteConfig

from netmail_smtp.domain.deliver_outcome import DeliveryFailure, permanent

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
TlsLevel: TypeAlias = Literal["opportunistic", "required", "implicit", "none"]

MAX_HOSTS = 8
"""More MX hosts than this are not tried in one attempt."""


class RouteTable:
    """Finds the route of a domain: its own, else that of the closest `.parent`, else `*`."""

    def __init__(self, routes: Sequence[RouteConfig]) -> None:
        self._routes = {_canonical(route.domain): route for route in routes}

    def find(self, domain: str) -> RouteConfig | None:
        """Gives the route for DOMAIN (A-labels, lower case, or an address literal)."""
        if domain in self._routes:
            return self._routes[domain]
        if not domain.startswith("["):
            parent = domain
            while "." in parent:
                parent = parent.partition(".")[2]
                if f".{parent}" in self._routes:
                    return self._routes[f".{parent}"]
        return self._routes.get("*")


def _canonical(domain: str) -> str:
    return domain.lower().rstrip(".")


@dataclass(frozen=True, slots=True)
class MxRecord:
    """One MX record; the name lower case, without the final dot ("" is the root)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class MxHosts:
    """Names to try, in order."""

    hosts: tuple[str, ...]


def order_mx(
    domain: str,
    records: Sequence[MxRecord],
    *,
    own_names: Iterable[str],
    shuffle: Callable[[list[str]], None],
) -> MxHosts | DeliveryFailure:
    """Orders the MX hosts of DOMAIN; no record means the domain itself.

    Args:
        domain: A-labels, lower case.
        records: what DNS has, in any order.
        own_names: names under which this Messaging Server may be an MX: it and everything that is
            no better than it is left out (RFC 5321 5.1).
        shuffle: spreads the load over hosts of equal preference.
    """
    if not records:
        records = [MxRecord(0, domain)]
    elif all(record.host == "" for record in records):
        return permanent("5.1.10", f"{domain} accepts no mail (null MX)")
    own = frozenset(own_names)
    limit = min((r.preference for r in records if r.host in own), default=None)
    ordered: list[str] = []
    for preference in sorted({r.preference for r in records}):
        if limit is not None and preference >= limit:
            break
        equal = sorted({r.host for r in records if r.preference == preference and r.host})
        shuffle(equal)
        ordered += [host for host in equal if host not in ordered]
    if not ordered:
        return permanent("5.4.6", f"mail for {domain} loops back to this host")
    return MxHosts(tuple(ordered[:MAX_HOSTS]))


def literal_address(domain: str) -> IPAddress | None:
    """The address of an address literal (RFC 5321 4.1.3) or of a bare IP address."""
    text = domain
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if text.lower().startswith("ipv6:"):
            text = text[5:]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Security:
    """What a route asks of the session; everything that makes two sessions not interchangeable."""

    tls: TlsLevel = "opportunistic"
    route: str = ""
    """Domain of the route whose credentials are used; empty: none."""


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one host."""

    host: str
    """Its name, for TLS and for reports."""
    address: str
    port: int
    security: Security = Security()

    def __str__(self) -> str:
        """Gives host[address]:port as logs show it."""
        return f"{self.host}[{self.address}]:{self.port}"
