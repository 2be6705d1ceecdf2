"""The lists of addresses, which are judged before anything else."""

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.domain.lists import AddressLists, Listing, client_address

ALLOWED = (ip_network("192.0.2.64/26"), ip_network("2001:db8:a::/48"))
BLOCKED = (ip_network("192.0.2.0/24"), ip_network("2001:db8:b::7/128"), ip_network("10.0.0.0/8"))
RULES = AddressRules(allowed_networks=ALLOWED, blocked_networks=BLOCKED)
NETWORKS = NetworkMap(RULES)


def look_up(text: str, networks: NetworkMap = NETWORKS) -> Listing:
    octets = ip_address(text).packed
    return AddressLists(BLOCKED).look_up(octets, networks.locate(octets))


@pytest.mark.parametrize(
    ("text", "listing"),
    [
        ("192.0.2.63", Listing.BLOCKED),
        ("192.0.2.64", Listing.ALLOWED),
        ("192.0.2.127", Listing.ALLOWED),
        ("192.0.2.128", Listing.BLOCKED),
        ("192.0.1.255", Listing.NONE),
        ("192.0.3.0", Listing.NONE),
        ("::ffff:192.0.2.1", Listing.BLOCKED),
        ("64:ff9b::192.0.2.1", Listing.BLOCKED),
        ("2002:c000:201::1", Listing.BLOCKED),
        ("::ffff:192.0.2.65", Listing.ALLOWED),
        ("2001:db8:a:1::1", Listing.ALLOWED),
        ("2001:db8:b::7", Listing.BLOCKED),
        ("2001:db8:b::8", Listing.NONE),
        ("10.1.2.3", Listing.BLOCKED),
        ("::192.0.2.65", Listing.NONE),
        ("::ffff:0:192.0.2.65", Listing.NONE),
    ],
)
def test_an_address_is_found_however_it_is_spelled(text: str, listing: Listing) -> None:
    assert look_up(text) is listing


@pytest.mark.parametrize("text", ["192.0.2.65", "64:ff9b::192.0.2.65", "2001:db8:a::1"])
def test_what_is_shared_is_not_allowed_by_a_list(text: str) -> None:
    shared = (ip_network("192.0.2.65/32"), ip_network("2001:db8:a::/64"))
    networks = NetworkMap(AddressRules(allowed_networks=ALLOWED, shared_networks=shared))
    assert look_up(text, networks) is not Listing.ALLOWED


def test_an_address_of_our_own_is_not_allowed_by_a_list() -> None:
    own = frozenset({ip_address("192.0.2.65"), ip_address("2001:db8:a::1")})
    networks = NetworkMap(AddressRules(allowed_networks=ALLOWED, own_addresses=own))
    assert look_up("192.0.2.65", networks) is Listing.BLOCKED
    assert look_up("2001:db8:a::1", networks) is Listing.NONE


def test_a_blocked_client_of_a_shared_network_is_blocked() -> None:
    networks = NetworkMap(AddressRules(shared_networks=(ip_network("192.0.2.0/24"),)))
    assert look_up("192.0.2.1", networks) is Listing.BLOCKED


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("2001:db8::5", "2001:db8::5"),
    ],
)
def test_the_client_behind_a_translation_is_the_ipv4_address(text: str, client: str) -> None:
    octets = ip_address(text).packed
    assert client_address(octets, NETWORKS.locate(octets)) == ip_address(client)


@given(st.integers(0, 2**32 - 1), st.integers(8, 32), st.booleans())
def test_only_what_would_grant_is_allowed_by_a_list(number: int, length: int, mapped: bool) -> None:
    network = IPv4Network((number >> (32 - length) << (32 - length), length))
    octets = number.to_bytes(4, "big")
    if mapped:
        octets = bytes(10) + b"\xff\xff" + octets
    listed = NetworkMap(AddressRules(allowed_networks=(network,))).locate(octets)
    allowed = AddressLists().look_up(octets, listed) is Listing.ALLOWED
    assert allowed is NetworkMap(AddressRules()).locate(octets).grants
