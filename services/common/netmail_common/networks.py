"""From a client's address to the network that logins are kept for: the only place that does it.

An address that embeds an IPv4 address (IPv4-mapped, NAT64, 6to4) is that IPv4 address; any other
IPv6 address stands for its /64. Networks behind which many strangers look the same are shared and
never grant relaying; some kinds of addresses prove nothing and never grant either.
"""

import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netmail_common.address_ranges import AddressSet, Ranges, read_ranges, split_families
from netmail_common.config import ConnectionManagerConfig, Installation

__all__ = [
    "Address",
    "AddressRules",
    "Located",
    "Network",
    "NetworkMap",
    "Standing",
    "network_of",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Standing(StrEnum):
    """Whether a login from an address may grant relaying, and why not."""

    GRANTS = "grants"
    LISTED = "always allowed"
    LOOPBACK = "loopback"
    CARRIER_NAT = "carrier-grade NAT"
    PRIVATE = "private range"
    CONFIGURED = "configured as shared"
    CLUSTER = "an address of the cluster's own"
    BLOCKED = "blocked"
    OWN = "an address of our own"
    LINK_LOCAL = "link-local"
    TEREDO = "Teredo"
    RESERVED = "not a client's address"
    MALFORMED_TRANSLATION = "malformed IPv4 translation"

    @property
    def shared(self) -> bool:
        """True: many clients may stand behind it. False: grants, or proves nothing at all."""
        return self in _SHARED


_SHARED = frozenset(
    {
        Standing.LOOPBACK,
        Standing.CARRIER_NAT,
        Standing.PRIVATE,
        Standing.CONFIGURED,
        Standing.CLUSTER,
        Standing.OWN,
    }
)

_TO_BE_LISTED = frozenset({Standing.GRANTS, Standing.LISTED, Standing.BLOCKED})
"""What lists may say something about: the rest is shared or proves nothing."""

_V4_NEVER = (
    (IPv4Network("0.0.0.0/8"), Standing.RESERVED),
    (IPv4Network("169.254.0.0/16"), Standing.LINK_LOCAL),
    (IPv4Network("224.0.0.0/3"), Standing.RESERVED),
)
# Addresses of ::/8 other than ::1 and the translations handled before are nobody's: ::/96 held
# the IPv4-compatible ones, ::ffff:0:0:0/96 the translated ones of SIIT (RFC 4291 2.5.5, RFC 2765).
_V6_NEVER = (
    (IPv6Network("::/8"), Standing.RESERVED),
    (IPv6Network("fe80::/10"), Standing.LINK_LOCAL),
    (IPv6Network("ff00::/8"), Standing.RESERVED),
    (IPv6Network("2001::/32"), Standing.TEREDO),
)
_V4_LOOPBACK = IPv4Network("127.0.0.0/8")
_V4_PRIVATE = tuple(IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
# Site-local addresses are deprecated (RFC 3879), and were private.
_V6_PRIVATE = tuple(IPv6Network(n) for n in ("fc00::/7", "fec0::/10"))

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_NAT64_LENGTHS = frozenset({32, 40, 48, 56, 64, 96})


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What an installation says about addresses.

    Attributes:
        ipv6_prefix: length of the prefix that an IPv6 client is known by.
        nat64_prefixes: NAT64 prefixes besides 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052 2.2);
            a longer one wins over a shorter one.
        shared_networks: never grant, besides loopback, link-local and 100.64.0.0/10.
        granting_networks: private ranges that grant where private ranges are shared.
        private_ranges_shared: RFC 1918 and ULA ranges never grant.
        loopback_grants: loopback addresses grant; for a demonstration only.
        allowed_networks: whose clients need no login, unless another rule says that they are shared
            or prove nothing. They win over blocked ones.
        blocked_networks: whose clients may not connect; no login from there grants.
        own_addresses: of this machine or pod: whatever comes from there came to us from elsewhere
            first. Only these, not the rest of their /64.
        cluster_networks: that the cluster we are in uses itself, for nodes, pods and Services: as
            shared as shared_networks, whatever granting_networks says.
    """

    ipv6_prefix: int = 64
    nat64_prefixes: tuple[IPv6Network, ...] = ()
    shared_networks: tuple[Network, ...] = ()
    granting_networks: tuple[Network, ...] = ()
    private_ranges_shared: bool = False
    loopback_grants: bool = False
    allowed_networks: tuple[Network, ...] = ()
    blocked_networks: tuple[Network, ...] = ()
    own_addresses: frozenset[Address] = frozenset()
    cluster_networks: tuple[Network, ...] = ()

    @classmethod
    def from_config(cls, config: ConnectionManagerConfig) -> "AddressRules":
        """The rules of a Connection Manager.

        Raises: ValueError, for a NAT64 prefix that RFC 6052 does not know.
        """
        rules = cls(
            ipv6_prefix=config.ipv6_prefix,
            nat64_prefixes=tuple(IPv6Network(text) for text in config.nat64_prefixes),
            shared_networks=tuple(ipaddress.ip_network(n) for n in config.shared_networks),
            granting_networks=tuple(ipaddress.ip_network(n) for n in config.granting_networks),
            private_ranges_shared=config.private_ranges_shared,
            loopback_grants=config.loopback_grants,
            allowed_networks=_read_all(config.lists.allowed),
            blocked_networks=_read_all(config.lists.blocked),
        )
        NetworkMap(rules)
        return rules

    @classmethod
    def of_installation(cls, installation: Installation, name: str) -> "AddressRules":
        """The rules of a Connection Manager, with the proxies of the listeners that it serves.

        Raises: KeyError; ValueError, as from_config does.
        """
        rules = cls.from_config(installation.connection_manager(name))
        proxies = {
            ipaddress.ip_network(network)
            for server in installation.messaging_servers
            if server.connection_manager == name
            for listener in (*server.smtp.listeners, *server.pop_imap.listeners)
            for network in listener.proxy_trusted_networks
        }
        return replace(rules, shared_networks=(*rules.shared_networks, *proxies))


@dataclass(frozen=True, slots=True)
class Located:
    """Where a client is.

    Attributes:
        key: first address of its network, 4 or 16 octets.
        prefix_length: of the network.
        standing: whether a login from there may grant, and why not.
        grants: whether it may.
        place: what logins are kept by: the key, with one more octet where they do not grant. A
            login through a shared spelling of a network must not vouch for its other spellings.
    """

    key: bytes
    prefix_length: int
    standing: Standing
    grants: bool = field(init=False, repr=False, compare=False)
    place: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Finds out once what is asked for at each decision."""
        grants = self.standing is Standing.GRANTS
        object.__setattr__(self, "grants", grants)
        object.__setattr__(self, "place", self.key if grants else self.key + b"-")

    @property
    def network(self) -> Network:
        """The network that its logins are kept for."""
        if len(self.key) == 4:
            return IPv4Network((self.key, self.prefix_length))
        return IPv6Network((self.key, self.prefix_length))

    @property
    def reason(self) -> Standing:
        """Same as standing."""
        return self.standing


class _Family:
    """The rules for one address family."""

    def __init__(
        self,
        rules: AddressRules,
        never: Iterable[tuple[Network, Standing]],
        configured: Ranges,
        cluster: Ranges,
        private: Ranges,
        granting: Ranges,
    ) -> None:
        self._never = [(int(n[0]), int(n[-1]), standing) for n, standing in never]
        self._configured = configured
        self._cluster = cluster
        self._private = private if rules.private_ranges_shared else None
        self._granting = granting

    def standing(self, address: int, low: int, high: int) -> Standing:
        """Judges an address of the network low to high, loopback and carrier NAT aside.

        A network is shared if any part of it is: its logins are kept as one.
        """
        for first, last, standing in self._never:
            if first <= address <= last:
                return standing
        named = self.named(low, high)
        if named is not None:
            return named
        if (
            self._private is not None
            and self._private.touch(low, high)
            and not self._granting.hold(low, high)
        ):
            return Standing.PRIVATE
        return Standing.GRANTS

    def named(self, low: int, high: int) -> Standing | None:
        """How addresses that somebody named are shared; None: nobody named any of them."""
        if self._configured.touch(low, high):
            return Standing.CONFIGURED
        return Standing.CLUSTER if self._cluster.touch(low, high) else None


class NetworkMap:
    """The one function from an address to its network, under the rules of an installation.

    Raises: ValueError, for a NAT64 prefix whose length RFC 6052 2.2 does not know.
    """

    def __init__(self, rules: AddressRules) -> None:
        self.rules = rules
        for prefix in rules.nat64_prefixes:
            if prefix.prefixlen not in _NAT64_LENGTHS:
                raise ValueError(
                    f"NAT64 prefix {prefix}: RFC 6052 2.2 knows the lengths 32, 40, 48, 56, 64, 96"
                )
        self._nat64 = sorted(
            ((n.prefixlen, int(n.network_address)) for n in {*_NAT64, *rules.nat64_prefixes}),
            reverse=True,
        )
        shared_v4, shared_v6 = split_families(rules.shared_networks)
        cluster_v4, cluster_v6 = split_families(rules.cluster_networks)
        granting_v4, granting_v6 = split_families(rules.granting_networks)
        self._v4 = _Family(
            rules,
            _V4_NEVER,
            Ranges(shared_v4),
            Ranges(cluster_v4),
            Ranges(_V4_PRIVATE),
            Ranges(granting_v4),
        )
        self._v6 = _Family(
            rules,
            _V6_NEVER,
            Ranges(shared_v6),
            Ranges(cluster_v6),
            Ranges(_V6_PRIVATE),
            Ranges(granting_v6),
        )
        self._allowed = AddressSet(rules.allowed_networks)
        self._blocked = AddressSet(rules.blocked_networks)
        self._has_lists = bool(self._allowed or self._blocked)
        self._own = frozenset(int(address) for address in rules.own_addresses)
        self._cached = functools.lru_cache(maxsize=4096)(self._locate)

    def locate(self, address: Address | bytes) -> Located:
        """Finds the network of an address; a zone id counts for nothing.

        Args:
            address: an address object, or its 4 or 16 octets in network order.

        Raises: ValueError, if the octets are not 4 or 16.
        """
        return self._cached(address if isinstance(address, bytes) else address.packed)

    def _locate(self, packed: bytes) -> Located:
        if len(packed) not in {4, 16}:
            raise ValueError("an address has 4 or 16 octets")
        number = int.from_bytes(packed, "big")
        if len(packed) == 4:
            return self._locate_v4(number)
        if number >> 32 == 0xFFFF:
            return self._locate_v4(number & _V4_MASK)
        if number >> 112 == 0x2002:
            return self._embedded(number, (number >> 80) & _V4_MASK, six_to_four=True)
        for length, prefix in self._nat64:
            if (number ^ prefix) >> (128 - length) == 0:
                return self._embedded(number, _rfc6052(number, length), six_to_four=False)
        return self._locate_v6(number)

    def _locate_v4(self, number: int) -> Located:
        if number >> 24 == 127:
            standing = Standing.GRANTS if self.rules.loopback_grants else Standing.LOOPBACK
        elif number >> 22 == 100 << 2 | 1:  # 100.64.0.0/10, RFC 6598
            standing = Standing.CARRIER_NAT
        elif number in self._own:
            standing = Standing.OWN
        else:
            standing = self._v4.standing(number, number, number)
        standing = self._by_lists(standing, number, IPv4Address)
        return Located(number.to_bytes(4, "big"), 32, standing)

    def _locate_v6(self, number: int) -> Located:
        if number == 1:
            standing = Standing.GRANTS if self.rules.loopback_grants else Standing.LOOPBACK
            return Located(number.to_bytes(16, "big"), 128, standing)
        hosts = (1 << (128 - self.rules.ipv6_prefix)) - 1
        low = number & ~hosts
        standing = self._v6.standing(number, low, low | hosts)
        if standing is Standing.GRANTS and number in self._own:
            standing = Standing.OWN
        standing = self._by_lists(standing, number, IPv6Address)
        return Located(low.to_bytes(16, "big"), self.rules.ipv6_prefix, standing)

    def _embedded(self, number: int, v4: int | None, *, six_to_four: bool) -> Located:
        if v4 is None:
            return replace(self._locate_v6(number), standing=Standing.MALFORMED_TRANSLATION)
        located = self._locate_v4(v4)
        if _cannot_be_behind_translator(v4) or (six_to_four and _V4_PRIVATE_RANGES.touch(v4, v4)):
            return replace(located, standing=Standing.MALFORMED_TRANSLATION)
        # It may be named in its IPv6 spelling.
        named = self._v6.named(number, number)
        if located.standing in _TO_BE_LISTED and named is not None:
            return replace(located, standing=named)
        standing = self._by_lists(located.standing, number, IPv6Address)
        return replace(located, standing=standing)

    def _by_lists(
        self, standing: Standing, number: int, kind: type[IPv4Address] | type[IPv6Address]
    ) -> Standing:
        """The standing of an address, after a look at the lists."""
        if not self._has_lists or standing not in _TO_BE_LISTED or standing is Standing.LISTED:
            return standing
        address = kind(number)
        if address in self._allowed:
            return Standing.LISTED
        return Standing.BLOCKED if address in self._blocked else standing


def _read_all(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(network for text in texts for network in read_ranges(text))


def network_of(place: bytes) -> bytes:
    """The key of the network that a place is in."""
    return place[:-1] if len(place) in {5, 17} else place


_V4_MASK = 0xFFFFFFFF
_V4_PRIVATE_RANGES = Ranges(_V4_PRIVATE)
_NEVER_EMBEDDED = Ranges([_V4_LOOPBACK, *(network for network, _ in _V4_NEVER)])


def _cannot_be_behind_translator(v4: int) -> bool:
    """Loopback, link-local and reserved addresses have no business in NAT64 or 6to4."""
    return _NEVER_EMBEDDED.touch(v4, v4)


def _rfc6052(number: int, length: int) -> int | None:
    """The IPv4 address behind a NAT64 prefix of LENGTH bits (RFC 6052 2.2).

    Bits 64 to 71 must be zero, and so should be what follows the address: another value means
    that the prefix in use is another one. None then.
    """
    if length == 96:
        return number & _V4_MASK
    if (number >> 56) & 0xFF:
        return None
    # Without the octet of bits 64 to 71 the address is in one piece behind the prefix.
    joined = (number >> 64) << 56 | number & ((1 << 56) - 1)
    suffix_bits = 120 - length - 32
    if joined & ((1 << suffix_bits) - 1):
        return None
    return (joined >> suffix_bits) & _V4_MASK
