"""The lists of addresses, which are judged before anything else."""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from netmail_common.address_ranges import AddressSet
from netmail_common.networks import Address, Located, Network, Standing

__all__ = ["AddressLists", "Listing", "client_address"]


class Listing(Enum):
    """What the lists say about an address."""

    ALLOWED = "allowed"
    BLOCKED = "blocked"
    NONE = "in no list"


class AddressLists:
    """Addresses that always may, and addresses that never may connect.

    Args:
        blocked: who may not; the map of networks knows who always may.

    Attributes:
        blocks: whether anybody is blocked.
    """

    def __init__(self, blocked: Iterable[Network] = ()) -> None:
        self._blocked = AddressSet(blocked)
        self.blocks = bool(self._blocked)

    def look_up(self, octets: bytes, where: Located) -> Listing:
        """Looks an address up, as it came and as the IPv4 address in it.

        Args:
            octets: 4 or 16 of them.
            where: the same address, located.
        """
        if where.standing is Standing.LISTED:
            return Listing.ALLOWED
        if not self.blocks:
            return Listing.NONE
        # A shared network may be blocked, too.
        if ip_address(octets) in self._blocked or client_address(octets, where) in self._blocked:
            return Listing.BLOCKED
        return Listing.NONE


def client_address(octets: bytes, where: Located) -> Address:
    """The client's own address: the IPv4 address behind a translation, else as it came."""
    if len(where.key) == 4:
        return IPv4Address(where.key)
    return IPv6Address(octets)
