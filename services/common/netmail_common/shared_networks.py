"""What the configuration may not name: networks behind which strangers look like friends."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from netmail_common.address_ranges import read_ranges
from netmail_common.networks import Address, AddressRules, Network

__all__ = ["SharedNetworkError", "is_within", "read_trusted_networks"]

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_SHARED = ("169.254.0.0/16", "fe80::/10", "100.64.0.0/10", "2001::/32")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


class SharedNetworkError(ValueError):
    """A network may not be trusted because strangers may stand behind it."""


def read_trusted_networks(
    texts: Iterable[str], rules: AddressRules, what: str
) -> tuple[Network, ...]:
    """Reads networks whose clients are trusted by their address alone.

    Args:
        texts: in CIDR form, or `first-last`.
        rules: what counts as shared.
        what: the key in the configuration, for the error.

    Raises: SharedNetworkError, naming both networks.
    """
    shared = list(_shared_networks(rules))
    networks = tuple(network for text in texts for network in read_ranges(text))
    for network in networks:
        for other in shared:
            if _overlap(network, other) and not _granted(network, rules):
                raise SharedNetworkError(f"{what}: {network} overlaps the shared network {other}")
    return networks


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in networks if network.version == address.version)


def _shared_networks(rules: AddressRules) -> Iterable[Network]:
    texts = list(_SHARED)
    if not rules.loopback_grants:
        texts.extend(_LOOPBACK)
    if rules.private_ranges_shared:
        texts.extend(_PRIVATE)
    yield from (ip_network(text) for text in texts)
    yield from rules.shared_networks
    yield from rules.cluster_networks


def _granted(network: Network, rules: AddressRules) -> bool:
    """Whether the configuration says that this private range, which is shared else, grants."""
    named = (*rules.shared_networks, *rules.cluster_networks)
    if any(_overlap(network, shared) for shared in named):
        return False
    private = [ip_network(text) for text in _PRIVATE]
    return _inside(network, private) and _inside(network, rules.granting_networks)


def _inside(network: Network, others: Iterable[Network]) -> bool:
    return any(
        _overlap(network, other) and other.prefixlen <= network.prefixlen for other in others
    )


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False
