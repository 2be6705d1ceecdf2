"""The lists of addresses that are judged before anything else."""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from netmail_common.address_ranges import AddressSet
from netmail_common.networks import Address, Located, Network, Standing

__all__ = ["AddressLists", "Listing", "client_address"]

_MAY_BE_ALLOWED = frozenset({Standing.GRANTS, Standing.BLOCKED})


class Listing(Enum):
    """What the lists say about an address."""

    ALLOWED = "allowed"
    BLOCKED = "blocked"
    NONE = "in no list"


class AddressLists:
    """Addresses that always may, and addresses that never may.

    Args:
        allowed: may connect, and relay without a login. Wins over blocked, so that a range may
            have exceptions.
        blocked: may not connect.
    """

    def __init__(self, allowed: Iterable[Network] = (), blocked: Iterable[Network] = ()) -> None:
        self._allowed = AddressSet(allowed)
        self._blocked = AddressSet(blocked)

    @property
    def blocks(self) -> bool:
        """Whether anybody is blocked."""
        return bool(self._blocked)

    def look_up(self, octets: bytes, where: Located) -> Listing:
        """Looks an address up, as it came and as the IPv4 address in it.

        A shared network, or one that proves nothing, is never allowed: who stands behind it may
        have changed since the list was written.

        Args:
            octets: 4 or 16 of them.
            where: the same address, located.
        """
        spellings = {ip_address(octets), client_address(octets, where)}
        if where.standing in _MAY_BE_ALLOWED and any(one in self._allowed for one in spellings):
            return Listing.ALLOWED
        if any(one in self._blocked for one in spellings):
            return Listing.BLOCKED
        return Listing.NONE


def client_address(octets: bytes, where: Located) -> Address:
    """The client's own address: the IPv4 address behind a translation, else as it came."""
    if len(where.key) == 4:
        return IPv4Address(where.key)
    return IPv6Address(octets)
