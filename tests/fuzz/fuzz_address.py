"""Fuzz target: from an address to its network, beside a slower reading of the same rules."""

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netmail_common.networks import AddressRules, NetworkMap, network_of

_PREFIXES = tuple(
    IPv6Network(text)
    for text in (
        "2001:db8::/32",
        "2001:db9:100::/40",
        "2001:dba:122::/48",
        "2001:dbb:122:300::/56",
        "2001:dbc:122:344::/64",
        "2001:dbd:122:344::/96",
    )
)
_RULES = AddressRules(
    nat64_prefixes=_PREFIXES,
    shared_networks=(
        IPv4Network("203.0.113.0/25"),
        IPv6Network("2001:dbe::8/125"),
        IPv6Network("2002:c000:200::/40"),
    ),
    granting_networks=(IPv4Network("10.1.0.0/16"), IPv6Network("fd00:1::/32")),
    private_ranges_shared=True,
)
_MAP = NetworkMap(_RULES)
_NEVER_V4 = [
    IPv4Network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "224.0.0.0/3")
]
_PRIVATE_V4 = [IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_NEVER_V6 = [IPv6Network(n) for n in ("::/8", "fe80::/10", "ff00::/8", "2001::/32")]
_PRIVATE_V6 = [IPv6Network(n) for n in ("fc00::/7", "fec0::/10")]
_TRANSLATIONS = [
    *_PREFIXES,
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
]


def seeds() -> Iterable[bytes]:
    """An address of each kind."""
    for text in (
        "192.0.2.1",
        "127.0.0.1",
        "10.1.2.3",
        "100.64.0.1",
        "203.0.113.5",
        "::1",
        "::192.0.2.1",
        "::ffff:192.0.2.1",
        "::ffff:0:192.0.2.1",
        "64:ff9b::192.0.2.1",
        "64:ff9b:1:c000:2:100::",
        "2002:c000:201::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8:c000:221::",
        "2001:db9:1c0:2:21::",
        "2001:dba:122:c000:2:2100::",
        "2001:dbb:122:3c0:0:221::",
        "2001:dbc:122:344:c0:2:2100::",
        "2001:dbd:122:344::192.0.2.33",
        "2001:dbe::9",
        "fd00:1::1",
        "fd00:2::1",
        "fe80::1",
        "2001:dbf::1",
    ):
        yield ipaddress.ip_address(text).packed


def one_input(data: bytes) -> None:
    """4 or 16 octets have a network, and it grants as the slower reading says."""
    try:
        located = _MAP.locate(data)
    except ValueError:
        assert len(data) not in {4, 16}
        return
    assert len(data) in {4, 16}
    address = ipaddress.ip_address(data)
    assert network_of(located.place) == located.key
    assert located.grants == (located.place == located.key)
    embedded = _embedded(address)
    if isinstance(embedded, IPv6Address):
        assert embedded in located.network
    elif embedded is not None:
        assert located.network == IPv4Network(embedded)
    assert located.grants == _grants(address, embedded), (address, located)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    """The address that counts; None: a translation that is malformed."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    for prefix in _TRANSLATIONS:
        if address in prefix:
            return _translated(address, prefix.prefixlen)
    return address


def _translated(address: IPv6Address, length: int) -> IPv4Address | None:
    """RFC 6052 2.2, bit by bit."""
    bits = f"{int(address):0128b}"
    if length == 96:
        return IPv4Address(int(bits[96:], 2))
    rest = bits[length:64] + bits[72:]
    if int(bits[64:72], 2) or int(rest[32:], 2):
        return None
    return IPv4Address(int(rest[:32], 2))


def _grants(address: IPv4Address | IPv6Address, counts: IPv4Address | IPv6Address | None) -> bool:
    if counts is None:
        return False
    if isinstance(counts, IPv6Address):
        network = IPv6Network((int(counts) >> 64 << 64, 64))
        shared = [n for n in _RULES.shared_networks if isinstance(n, IPv6Network)]
        return not (
            any(counts in never for never in _NEVER_V6)
            or any(network.overlaps(one) for one in shared)
            or (
                any(network.overlaps(private) for private in _PRIVATE_V6)
                and not network.subnet_of(IPv6Network("fd00:1::/32"))
            )
        )
    if isinstance(address, IPv6Address) and any(
        address in one for one in _RULES.shared_networks if isinstance(one, IPv6Network)
    ):
        return False
    private = any(counts in one for one in _PRIVATE_V4)
    if isinstance(address, IPv6Address) and address.sixtofour is not None and private:
        return False
    return not (
        any(counts in never for never in _NEVER_V4)
        or counts in IPv4Network("203.0.113.0/25")
        or (private and counts not in IPv4Network("10.1.0.0/16"))
    )
