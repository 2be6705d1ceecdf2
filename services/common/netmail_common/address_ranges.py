"""Sets of addresses that are asked often: sorted ranges, looked up by bisection."""

import bisect
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)

__all__ = ["AddressSet", "Ranges", "read_ranges", "split_families"]

_MAPPED = IPv6Network("::ffff:0:0/96")


class Ranges:
    """A set of addresses of one family, as disjoint sorted ranges."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._low: list[int] = []
        self._high: list[int] = []
        for low, high in sorted((int(n[0]), int(n[-1])) for n in networks):
            if self._high and low <= self._high[-1] + 1:
                self._high[-1] = max(self._high[-1], high)
            else:
                self._low.append(low)
                self._high.append(high)

    def touch(self, low: int, high: int) -> bool:
        """Whether any of low to high is in the set."""
        index = bisect.bisect_right(self._low, high) - 1
        return index >= 0 and self._high[index] >= low

    def hold(self, low: int, high: int) -> bool:
        """Whether all of low to high is in the set."""
        index = bisect.bisect_right(self._low, low) - 1
        return index >= 0 and self._high[index] >= high


class AddressSet:
    """A set of addresses of both families; IPv4-mapped ones are IPv4."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        v4, v6 = split_families(networks)
        self._v4 = Ranges(v4)
        self._v6 = Ranges(v6)
        self._empty = not (v4 or v6)

    def __bool__(self) -> bool:
        """Whether there is any address in it."""
        return not self._empty

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the address is in the set."""
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped
            if mapped is None:
                return self._v6.touch(int(address), int(address))
            address = mapped
        return self._v4.touch(int(address), int(address))


def split_families(
    networks: Iterable[IPv4Network | IPv6Network],
) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Parts networks by family; IPv4-mapped ones are IPv4."""
    v4: list[IPv4Network] = []
    v6: list[IPv6Network] = []
    for network in networks:
        if isinstance(network, IPv4Network):
            v4.append(network)
        elif network.subnet_of(_MAPPED):
            v4.append(IPv4Network((network.network_address.packed[12:], network.prefixlen - 96)))
        else:
            v6.append(network)
    return v4, v6


def read_ranges(text: str) -> Iterable[IPv4Network | IPv6Network]:
    """Reads a network in CIDR form, or a range `first-last` of addresses, both included.

    Raises: ValueError.
    """
    first, dash, last = text.partition("-")
    if not dash:
        return [ip_network(text)]
    low, high = ip_address(first), ip_address(last)
    if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
        return list(summarize_address_range(low, high))
    if isinstance(low, IPv6Address) and isinstance(high, IPv6Address):
        return list(summarize_address_range(low, high))
    raise ValueError(f"{text!r} is not a range of addresses")
