"""How many connections a listener has, in all and from each address."""

import asyncio
from collections import Counter
from ipaddress import IPv4Address, IPv6Address

__all__ = ["ConnectionLimits", "Place"]

_IPV6_HOST = 64


class ConnectionLimits:
    """Counts open connections.

    Args:
        total: connections at most.
        per_address: connections at most from one IPv4 address or one IPv6 /64, which one host
            has to itself.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[int] = Counter()
        self.connections = 0

    def take(self, address: IPv4Address | IPv6Address) -> "Place | None":
        """A place for one more connection from ADDRESS; None when there is none."""
        key = limit_key(address)
        if self.connections >= self._total or self._open.get(key, 0) >= self._per_address:
            return None
        self.connections += 1
        self._open[key] += 1
        return Place(self, key)

    def _give_back(self, key: int) -> None:
        self.connections -= 1
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


class Place:
    """One connection's place among the allowed ones."""

    __slots__ = ("_key", "_limits")

    def __init__(self, limits: ConnectionLimits, key: int) -> None:
        self._limits: ConnectionLimits | None = limits
        self._key = key

    def release(self) -> None:
        """Gives the place back; again changes nothing."""
        if self._limits is not None:
            self._limits._give_back(self._key)  # noqa: SLF001 - two halves of one thing
            self._limits = None

    def follow(self, protocol: asyncio.Protocol) -> None:
        """Releases the place when PROTOCOL's connection is lost, whatever carries it by then."""
        lost = protocol.connection_lost

        def connection_lost(error: Exception | None) -> None:
            del protocol.connection_lost  # breaks the reference cycle
            self.release()
            lost(error)

        protocol.connection_lost = connection_lost  # type: ignore[assignment,method-assign]


def limit_key(address: IPv4Address | IPv6Address) -> int:
    """What counts as one address; those of both families never meet."""
    if isinstance(address, IPv4Address):
        return int(address)
    return -1 - (int(address) >> (128 - _IPV6_HOST))
