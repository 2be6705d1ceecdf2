"""Sets of addresses, looked up by bisection."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.address_ranges import AddressSet, read_ranges

networks = st.builds(
    lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
    st.integers(0xC0000200, 0xC00003FF),
    st.integers(22, 32),
)


@given(st.lists(networks, max_size=8), st.integers(0xC00001F0, 0xC000040F))
def test_an_address_is_in_the_set_if_it_is_in_one_of_its_networks(
    members: list[IPv4Network], number: int
) -> None:
    address = IPv4Address(number)
    expected = any(address in network for network in members)
    assert (address in AddressSet(members)) is expected
    mapped = IPv6Address(0xFFFF << 32 | number)
    assert (mapped in AddressSet(members)) is expected


def test_a_mapped_network_is_one_of_ipv4() -> None:
    members = AddressSet([ip_network("::ffff:192.0.2.0/120")])
    assert ip_address("192.0.2.9") in members
    assert ip_address("192.0.3.0") not in members


def test_families_never_meet() -> None:
    assert ip_address("::102:304") not in AddressSet([ip_network("1.2.3.4/32")])
    assert ip_address("1.2.3.4") not in AddressSet([ip_network("::/1")])


def test_a_set_without_networks_is_false() -> None:
    assert not AddressSet([])
    assert AddressSet([ip_network("2001:db8::/64")])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_range_holds_its_ends_and_nothing_beside_them(one: int, other: int) -> None:
    low, high = sorted((one, other))
    members = AddressSet(read_ranges(f"{IPv4Address(low)}-{IPv4Address(high)}"))
    assert IPv4Address(low) in members
    assert IPv4Address(high) in members
    assert low == 0 or IPv4Address(low - 1) not in members
    assert high == 2**32 - 1 or IPv4Address(high + 1) not in members


@pytest.mark.parametrize(
    "text", ["192.0.2.1-2001:db8::1", "2001:db8::2-2001:db8::1", "192.0.2.1-", "192.0.2.1/24", ""]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|network|octet|address|host bits"):
        list(read_ranges(text))


def test_ipv6_ranges_are_read() -> None:
    members = AddressSet(read_ranges("2001:db8::5-2001:db8::9"))
    assert ip_address("2001:db8::9") in members
    assert ip_address("2001:db8::a") not in members
