"""Limits of connections, in all and per address."""

import asyncio
from ipaddress import ip_address

import pytest
from netmail_common.connection_limits import ConnectionLimits, limit_key


def test_the_total_and_each_address_have_a_limit() -> None:
    limits = ConnectionLimits(total=3, per_address=2)
    one, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    first = limits.take(one)
    assert first is not None
    assert limits.take(one) is not None
    assert limits.take(one) is None
    assert limits.take(other) is not None
    assert limits.take(other) is None
    first.release()
    first.release()
    assert limits.connections == 2
    assert limits.take(other) is not None


def test_nothing_is_kept_of_addresses_without_connections() -> None:
    limits = ConnectionLimits(total=10, per_address=1)
    for number in range(100):
        place = limits.take(ip_address(number))
        assert place is not None
        place.release()
    assert not limits._open


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("0.0.0.1", "::1", False),
        ("0.0.0.0", "::", False),
    ],
)
def test_an_ipv6_host_is_its_64(one: str, other: str, same: bool) -> None:
    assert (limit_key(ip_address(one)) == limit_key(ip_address(other))) is same


def test_a_place_follows_its_protocol_and_leaves_it_as_it_was() -> None:
    class Closing(asyncio.Protocol):
        lost: Exception | str | None = "not yet"

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost = exc

    limits = ConnectionLimits(total=1, per_address=1)
    place = limits.take(ip_address("192.0.2.1"))
    assert place is not None
    protocol = Closing()
    place.follow(protocol)
    assert limits.connections == 1
    protocol.connection_lost(None)
    assert limits.connections == 0
    assert protocol.lost is None
    assert "connection_lost" not in vars(protocol)
