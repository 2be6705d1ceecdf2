"""The one function from an address to its network."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.networks import AddressRules, NetworkMap, Standing

DEFAULT = NetworkMap(AddressRules())
KUBERNETES = NetworkMap(
    AddressRules(
        private_ranges_shared=True,
        granting_networks=(
            IPv4Network("10.20.0.0/16"),
            IPv4Network("10.21.0.0/16"),
            IPv6Network("fd00:1::/32"),
        ),
        shared_networks=(
            IPv4Network("203.0.113.0/24"),
            IPv6Network("::ffff:198.51.100.0/120"),
            IPv6Network("2001:db8:5::7/128"),
            IPv6Network("2002:c000:204::/48"),
            IPv6Network("2001:db8:64:1::/96"),
        ),
        nat64_prefixes=(
            IPv6Network("2001:db8:64::/96"),
            IPv6Network("2001:db8:64:1::/96"),
            IPv6Network("64:ff9b:1:fffe::/96"),
            IPv6Network("2001:db8:122:344::/64"),
        ),
    )
)

GRANTS = [
    ("192.0.2.1", "192.0.2.1/32"),
    ("10.0.0.1", "10.0.0.1/32"),
    ("100.63.255.255", "100.63.255.255/32"),
    ("100.128.0.0", "100.128.0.0/32"),
    ("126.255.255.255", "126.255.255.255/32"),
    ("128.0.0.0", "128.0.0.0/32"),
    ("169.253.255.255", "169.253.255.255/32"),
    ("223.255.255.255", "223.255.255.255/32"),
    ("1.0.0.0", "1.0.0.0/32"),
    ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ("::ffff:c000:201", "192.0.2.1/32"),
    ("::ffff:192.0.2.1%eth0", "192.0.2.1/32"),
    ("64:ff9b::192.0.2.1", "192.0.2.1/32"),
    ("64:ff9b::10.0.0.1", "10.0.0.1/32"),
    ("64:ff9b:1:c000:2:100::", "192.0.2.1/32"),
    ("2002:c000:201::", "192.0.2.1/32"),
    ("2002:c000:201:1234:5678:9abc:def0:1", "192.0.2.1/32"),
    ("2001:db8::1", "2001:db8::/64"),
    ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
    ("2001:db8:0:1::", "2001:db8:0:1::/64"),
    ("2001:db8::1%7", "2001:db8::/64"),
    ("2001:1::1", "2001:1::/64"),
    ("2003::1", "2003::/64"),
    ("fc00::1", "fc00::/64"),
    ("fe7f:ffff::1", "fe7f:ffff::/64"),
    ("100::1", "100::/64"),
    ("2001:db8::5efe:192.0.2.1", "2001:db8::/64"),
]

REFUSED = [
    ("127.0.0.1", Standing.LOOPBACK),
    ("127.255.255.255", Standing.LOOPBACK),
    ("::1", Standing.LOOPBACK),
    ("::ffff:127.0.0.1", Standing.LOOPBACK),
    ("100.64.0.0", Standing.CARRIER_NAT),
    ("100.127.255.255", Standing.CARRIER_NAT),
    ("::ffff:100.64.0.1", Standing.CARRIER_NAT),
    ("64:ff9b::100.64.0.1", Standing.CARRIER_NAT),
    ("2002:6440:1::", Standing.CARRIER_NAT),
    ("169.254.0.1", Standing.LINK_LOCAL),
    ("::ffff:169.254.1.1", Standing.LINK_LOCAL),
    ("fe80::1", Standing.LINK_LOCAL),
    ("fe80::1%eth0", Standing.LINK_LOCAL),
    ("febf:ffff::1", Standing.LINK_LOCAL),
    ("0.0.0.0", Standing.RESERVED),
    ("0.255.255.255", Standing.RESERVED),
    ("224.0.0.1", Standing.RESERVED),
    ("240.0.0.1", Standing.RESERVED),
    ("255.255.255.255", Standing.RESERVED),
    ("::ffff:0.0.0.0", Standing.RESERVED),
    ("::", Standing.RESERVED),
    ("::2", Standing.RESERVED),
    ("::192.0.2.1", Standing.RESERVED),
    ("::7f00:1", Standing.RESERVED),
    ("::ffff:0:192.0.2.1", Standing.RESERVED),
    ("64:ff9b::1:0:0", Standing.RESERVED),
    ("64:ff9a::192.0.2.1", Standing.RESERVED),
    ("ff02::1", Standing.RESERVED),
    ("2001::1", Standing.TEREDO),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Standing.TEREDO),
    ("64:ff9b::127.0.0.1", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b::0.0.0.0", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b::169.254.1.1", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b::255.255.255.255", Standing.MALFORMED_TRANSLATION),
    ("2002:7f00:1::1", Standing.MALFORMED_TRANSLATION),
    ("2002:0a00:1::1", Standing.MALFORMED_TRANSLATION),
    ("2002:c0a8:1::1", Standing.MALFORMED_TRANSLATION),
    ("2002:a9fe:101::", Standing.MALFORMED_TRANSLATION),
    ("2002:e000:1::", Standing.MALFORMED_TRANSLATION),
    ("2002::", Standing.MALFORMED_TRANSLATION),
    # Used as a /96 without saying so: bits that RFC 6052 wants zero are not.
    ("64:ff9b:1::192.0.2.1", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b:1:1::192.0.2.1", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b:1:c000:102:100::", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b:1:c000:2:101::", Standing.MALFORMED_TRANSLATION),
    ("64:ff9b:1:c000:2:100::1", Standing.MALFORMED_TRANSLATION),
]

ON_KUBERNETES = [
    ("10.0.0.1", Standing.PRIVATE),
    ("10.19.255.255", Standing.PRIVATE),
    ("10.20.0.0", Standing.GRANTS),
    ("10.21.255.255", Standing.GRANTS),
    ("10.22.0.0", Standing.PRIVATE),
    ("172.16.0.1", Standing.PRIVATE),
    ("172.31.255.255", Standing.PRIVATE),
    ("172.32.0.0", Standing.GRANTS),
    ("192.168.1.1", Standing.PRIVATE),
    ("::ffff:192.168.1.1", Standing.PRIVATE),
    ("64:ff9b::192.168.1.1", Standing.PRIVATE),
    ("2001:db8:64::192.168.1.1", Standing.PRIVATE),
    ("fc00::1", Standing.PRIVATE),
    ("fdff:ffff::1", Standing.PRIVATE),
    ("fd00:1:ffff::1", Standing.GRANTS),
    ("fd00:2::1", Standing.PRIVATE),
    ("fec0::1", Standing.PRIVATE),
    ("203.0.113.0", Standing.CONFIGURED),
    ("203.0.113.255", Standing.CONFIGURED),
    ("203.0.112.255", Standing.GRANTS),
    ("203.0.114.0", Standing.GRANTS),
    ("2002:cb00:7105::", Standing.CONFIGURED),
    ("64:ff9b::203.0.113.5", Standing.CONFIGURED),
    ("198.51.100.9", Standing.CONFIGURED),
    ("::ffff:198.51.100.9", Standing.CONFIGURED),
    ("198.51.101.0", Standing.GRANTS),
    # A /64 of which one address is shared is shared: its logins are kept as one.
    ("2001:db8:5::7", Standing.CONFIGURED),
    ("2001:db8:5::8", Standing.CONFIGURED),
    ("2001:db8:5:1::7", Standing.GRANTS),
    # Shared as spelled, though the IPv4 address inside is not.
    ("2002:c000:204::1", Standing.CONFIGURED),
    ("2002:c000:205::1", Standing.GRANTS),
    ("192.0.2.4", Standing.GRANTS),
    ("2001:db8:64:1::192.0.2.9", Standing.CONFIGURED),
    ("2001:db8:64::192.0.2.9", Standing.GRANTS),
]

# The example addresses of RFC 6052 2.4: 192.0.2.33 behind each length of prefix.
RFC6052 = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
]


@pytest.mark.parametrize(("address", "network"), GRANTS)
def test_an_address_that_may_grant_has_this_network(address: str, network: str) -> None:
    located = DEFAULT.locate(ipaddress.ip_address(address))
    assert (str(located.network), located.standing) == (network, Standing.GRANTS)
    assert located.grants
    assert not located.standing.shared


@pytest.mark.parametrize(("address", "standing"), REFUSED)
def test_an_address_of_this_kind_never_grants(address: str, standing: Standing) -> None:
    located = DEFAULT.locate(ipaddress.ip_address(address))
    assert located.standing is standing
    assert not located.grants


@pytest.mark.parametrize(("address", "standing"), ON_KUBERNETES)
def test_private_and_configured_ranges_are_shared_where_told(
    address: str, standing: Standing
) -> None:
    assert KUBERNETES.locate(ipaddress.ip_address(address)).standing is standing


@pytest.mark.parametrize(("prefix", "address"), RFC6052)
def test_each_layout_of_rfc_6052_gives_its_ipv4_address(prefix: str, address: str) -> None:
    located = NetworkMap(AddressRules(nat64_prefixes=(IPv6Network(prefix),))).locate(
        IPv6Address(address)
    )
    assert str(located.network) == "192.0.2.33/32"
    assert located.grants


def test_a_longer_nat64_prefix_wins_over_the_one_around_it() -> None:
    located = KUBERNETES.locate(IPv6Address("64:ff9b:1:fffe::192.0.2.1"))
    assert str(located.network) == "192.0.2.1/32"


def test_only_shared_standings_say_shared() -> None:
    shared = {standing for standing in Standing if standing.shared}
    assert shared == {
        Standing.LOOPBACK,
        Standing.CARRIER_NAT,
        Standing.CLUSTER,
        Standing.PRIVATE,
        Standing.CONFIGURED,
        Standing.OWN,
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_grants_only_in_a_demonstration(address: str) -> None:
    demo = NetworkMap(AddressRules(loopback_grants=True))
    assert demo.locate(ipaddress.ip_address(address)).grants
    assert not DEFAULT.locate(ipaddress.ip_address(address)).grants


@pytest.mark.parametrize("address", ["64:ff9b::127.0.0.1", "2002:7f00:1::", "::2", "::7f00:1"])
def test_loopback_in_disguise_grants_not_even_in_a_demonstration(address: str) -> None:
    assert not NetworkMap(AddressRules(loopback_grants=True)).locate(IPv6Address(address)).grants


def test_ipv6_loopback_is_a_network_of_its_own() -> None:
    demo = NetworkMap(AddressRules(loopback_grants=True))
    assert str(demo.locate(IPv6Address("::1")).network) == "::1/128"


def test_our_own_addresses_never_grant_and_their_neighbours_do() -> None:
    own: frozenset[IPv4Address | IPv6Address] = frozenset(
        {IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")}
    )
    networks = NetworkMap(AddressRules(own_addresses=own))
    for address in ("192.0.2.2", "::ffff:192.0.2.2", "2002:c000:202::1", "2001:db8::2"):
        assert networks.locate(ipaddress.ip_address(address)).standing is Standing.OWN
    neighbour = networks.locate(IPv6Address("2001:db8::3"))
    assert neighbour.grants
    assert networks.locate(IPv4Address("192.0.2.3")).grants
    # A login from our own address must not vouch for the rest of its /64.
    assert networks.locate(IPv6Address("2001:db8::2")).place != neighbour.place


@pytest.mark.parametrize(("prefix", "same"), [(56, True), (64, False), (128, False)])
def test_the_ipv6_prefix_is_configurable(prefix: int, same: bool) -> None:
    networks = NetworkMap(AddressRules(ipv6_prefix=prefix))
    one = networks.locate(IPv6Address("2001:db8:0:1::1"))
    other = networks.locate(IPv6Address("2001:db8:0:2::1"))
    assert (one == other) is same
    assert one.network.prefixlen == prefix


@pytest.mark.parametrize("length", [0, 1, 3, 5, 15, 17])
def test_octets_of_another_number_are_no_address(length: int) -> None:
    with pytest.raises(ValueError, match="4 or 16"):
        DEFAULT.locate(bytes(length))


@pytest.mark.parametrize("length", [33, 44, 72, 95, 97, 128])
def test_a_nat64_prefix_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="RFC 6052"):
        NetworkMap(AddressRules(nat64_prefixes=(IPv6Network(("2001:db8::", length)),)))


BLOCKING = NetworkMap(
    AddressRules(
        blocked_networks=(
            IPv4Network("192.0.2.0/28"),
            IPv4Network("127.0.0.0/8"),
            IPv6Network("::ffff:198.51.100.7/128"),
            IPv6Network("2001:db8::5/128"),
            IPv6Network("64:ff9b::203.0.113.0/120"),
        )
    )
)


@pytest.mark.parametrize(
    "text",
    ["192.0.2.0", "192.0.2.15", "::ffff:192.0.2.3", "64:ff9b::192.0.2.3", "2002:c000:203::9",
     "198.51.100.7", "2001:db8::5", "64:ff9b::203.0.113.9"],
)  # fmt: skip
def test_a_blocked_address_never_grants_however_it_is_spelled(text: str) -> None:
    assert BLOCKING.locate(ipaddress.ip_address(text)).standing is Standing.BLOCKED


@pytest.mark.parametrize("text", ["192.0.2.16", "2001:db8::6", "203.0.113.9", "198.51.100.8"])
def test_the_neighbours_of_a_blocked_address_grant(text: str) -> None:
    assert BLOCKING.locate(ipaddress.ip_address(text)).grants


LISTING = NetworkMap(
    AddressRules(
        allowed_networks=(
            IPv4Network("192.0.2.8/29"),
            IPv4Network("100.64.0.0/10"),
            IPv6Network("2001:db8::/64"),
            IPv6Network("64:ff9b::203.0.113.0/120"),
        ),
        blocked_networks=(IPv4Network("192.0.2.0/24"), IPv6Network("2002:c000:209::/48")),
        shared_networks=(IPv6Network("64:ff9b::192.0.2.10/128"),),
    )
)


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        ("192.0.2.8", Standing.LISTED),
        ("192.0.2.7", Standing.BLOCKED),
        ("::ffff:192.0.2.9", Standing.LISTED),
        ("64:ff9b::192.0.2.9", Standing.LISTED),
        ("2002:c000:209::1", Standing.LISTED),
        ("64:ff9b::192.0.2.10", Standing.CONFIGURED),
        ("64:ff9b::203.0.113.1", Standing.LISTED),
        ("203.0.113.1", Standing.GRANTS),
        ("2001:db8::1", Standing.LISTED),
        ("100.64.0.1", Standing.CARRIER_NAT),
        ("64:ff9b::100.64.0.1", Standing.CARRIER_NAT),
    ],
)
def test_an_allowed_address_wins_over_blocked_ones_and_not_over_shared_ones(
    text: str, standing: Standing
) -> None:
    assert LISTING.locate(ipaddress.ip_address(text)).standing is standing


def test_a_blocked_address_that_never_grants_anyway_keeps_its_reason() -> None:
    assert BLOCKING.locate(IPv4Address("127.0.0.1")).standing is Standing.LOOPBACK


v4_numbers = st.integers(0, 2**32 - 1)
v6_numbers = st.integers(0, 2**128 - 1)
maps = st.sampled_from([DEFAULT, KUBERNETES])


@given(maps, v4_numbers)
def test_every_spelling_of_an_ipv4_address_has_its_network(networks: NetworkMap, v4: int) -> None:
    plain = networks.locate(IPv4Address(v4))
    mapped = networks.locate(IPv6Address(0xFFFF << 32 | v4))
    assert mapped == plain
    nat64 = networks.locate(IPv6Address((0x64FF9B << 96) | v4))
    six_to_four = networks.locate(IPv6Address(0x2002 << 112 | v4 << 80 | 1))
    for spelled in (nat64, six_to_four):
        assert spelled.key == plain.key
        assert plain.grants or not spelled.grants


@given(maps, v6_numbers)
def test_octets_and_objects_give_the_same_network(networks: NetworkMap, number: int) -> None:
    address = IPv6Address(number)
    assert networks.locate(address.packed) == networks.locate(address)


@given(maps, v6_numbers, st.integers(0, 2**64 - 1))
def test_neighbours_in_a_native_network_are_judged_alike(
    networks: NetworkMap, number: int, host: int
) -> None:
    """Or a login of one that is shared would open the relay to the other."""
    address = IPv6Address(number)
    located = networks.locate(address)
    neighbour = networks.locate(IPv6Address(number >> 64 << 64 | host))
    if neighbour.key == located.key and len(located.key) == 16:
        assert neighbour == located or not (neighbour.grants or located.grants)


@given(maps, v6_numbers)
def test_a_native_address_lies_in_its_network(networks: NetworkMap, number: int) -> None:
    located = networks.locate(IPv6Address(number))
    if len(located.key) == 16:
        assert IPv6Address(number) in located.network
