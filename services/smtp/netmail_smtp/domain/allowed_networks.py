"""Checks `smtp.allowed_networks`: a shared network must not open the relay."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from netmail_common.networks import AddressRules

Network = IPv4Network | IPv6Network

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_SHARED = ("169.254.0.0/16", "fe80::/10", "100.64.0.0/10", "2001::/32")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


class SharedNetworkError(ValueError):
    """A network may not relay because strangers may stand behind it."""


def read_allowed_networks(texts: Iterable[str], rules: AddressRules) -> tuple[Network, ...]:
    """Reads the networks.

    Args:
        texts: in CIDR form.
        rules: what counts as shared.

    Raises: SharedNetworkError, naming both networks.
    """
    shared = list(_shared_networks(rules))
    networks = tuple(ip_network(text) for text in texts)
    for network in networks:
        for other in shared:
            if _overlap(network, other) and not _granted(network, rules):
                raise SharedNetworkError(
                    f"allowed_networks: {network} overlaps the shared network {other}"
                )
    return networks


def is_within(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
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


def _granted(network: Network, rules: AddressRules) -> bool:
    """Whether the configuration says that this private range, which is shared else, grants."""
    if any(_overlap(network, shared) for shared in rules.shared_networks):
        return False
    private = [ip_network(text) for text in _PRIVATE]
    return _inside(network, private) and _inside(network, rules.granting_networks)


def _inside(network: Network, others: Iterable[Network]) -> bool:
    return any(
        _overlap(network, other) and other.prefixlen <= network.prefixlen for other in others
    )


def _overlap(one: Network, other: Network) -> bool:
    return (
        one.version == other.version
        and one.network_address <= other.broadcast_address  # type: ignore[operator] # same version
        and other.network_address <= one.broadcast_address  # type: ignore[operator] # same version
    )
