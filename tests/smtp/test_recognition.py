"""How often strangers may ask the Connection Manager, and who counts as one stranger."""

from ipaddress import ip_address

import pytest
from netmail_common.networks import AddressRules, NetworkMap
from netmail_smtp.domain.miss_limiter import MissLimiter


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def ask(limiter: MissLimiter, *addresses: str) -> list[bool]:
    return [limiter.may_ask(ip_address(address)) for address in addresses]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> MissLimiter:
    return MissLimiter(NetworkMap(AddressRules()), limit=3, clock=clock)


def test_a_64_has_one_allowance_however_many_addresses_it_uses(limiter: MissLimiter) -> None:
    one_network = [f"2001:db8:0:1::{number:x}" for number in range(1, 6)]
    assert ask(limiter, *one_network) == [True, True, True, False, False]
    assert ask(limiter, "2001:db8:0:2::1") == [True]


def test_ipv4_addresses_have_one_each_in_whatever_spelling(limiter: MissLimiter) -> None:
    spellings = ["192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::c000:201", "2002:c000:201::7"]
    assert ask(limiter, *spellings) == [True, True, True, False]
    assert ask(limiter, "192.0.2.2") == [True]


def test_the_allowance_comes_back_after_a_second(limiter: MissLimiter, clock: Clock) -> None:
    assert ask(limiter, *["192.0.2.1"] * 4)[-1] is False
    clock.time += 0.999
    assert ask(limiter, "192.0.2.1") == [False]
    clock.time += 0.001
    assert ask(limiter, "192.0.2.1") == [True]


def test_whoever_is_known_asks_as_often_as_he_likes_for_a_minute(
    limiter: MissLimiter, clock: Clock
) -> None:
    limiter.answered(ip_address("2001:db8:0:1::1"), known=True)
    assert all(ask(limiter, *["2001:db8:0:1::2"] * 10))
    clock.time += 60
    assert ask(limiter, *["2001:db8:0:1::2"] * 4) == [True, True, True, False]


def test_one_no_ends_what_a_yes_began(limiter: MissLimiter) -> None:
    limiter.answered(ip_address("192.0.2.1"), known=True)
    limiter.answered(ip_address("192.0.2.1"), known=False)
    assert ask(limiter, *["192.0.2.1"] * 4) == [True, True, True, False]
