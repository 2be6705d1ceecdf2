"""DNS lists, asked of a real DNS server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from netmail_common.config import DnsblConfig
from netmail_connmgr.adapters.dns_resolver import Resolver, nameservers
from netmail_connmgr.adapters.dnsbl import BlockLists
from netmail_connmgr.domain.connection_rules import ZoneAnswer

from tests.connmgr.conftest import Clock
from tests.support.dns_server import Zone, dns_server

LISTED = "2.2.0.192.bad.test"
STRANGER = ip_address("192.0.2.2")
OTHER = ip_address("192.0.2.3")


@asynccontextmanager
async def block_lists(
    server: Zone, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[BlockLists]:
    config = DnsblConfig.model_validate({"zones": [{"zone": "bad.test"}], **settings})
    async with dns_server(server):
        resolver = Resolver(nameservers([server.address]))
        lists = BlockLists(resolver, config, clock=clock or Clock())
        try:
            yield lists
        finally:
            await lists.close()


async def ask(lists: BlockLists, address: str = "192.0.2.2") -> ZoneAnswer:
    (answer,) = await lists.look_up(ip_address(address), lists.zones)
    return answer


async def test_a_listed_address_is_found_by_its_octets_backwards() -> None:
    server = Zone({(LISTED, "A"): ["127.0.0.4"]})
    async with block_lists(server) as lists:
        assert (await ask(lists)).listed == ("127.0.0.4",)
        assert (await ask(lists, "192.0.2.3")).listed == ()
    assert server.questions == [(LISTED, "A"), ("3.2.0.192.bad.test", "A")]


async def test_an_ipv6_address_is_found_by_its_nibbles_backwards() -> None:
    nibbles = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2"
    server = Zone({(f"{nibbles}.bad.test", "A"): ["127.0.0.2"]})
    async with block_lists(server) as lists:
        assert (await ask(lists, "2001:db8::1")).listed == ("127.0.0.2",)


@pytest.mark.parametrize(
    ("answers", "listed"),
    [
        (["127.0.0.2"], ("127.0.0.2",)),
        (["127.0.0.10", "127.0.0.2"], ("127.0.0.2",)),
        (["127.0.0.10"], ()),
        (["127.255.255.254"], ()),
        (["192.0.2.80"], ()),
    ],
)
async def test_answers_that_do_not_count_are_no_listing(
    answers: list[str], listed: tuple[str, ...]
) -> None:
    """A list says by other answers that it was asked wrongly; a parked zone answers anything."""
    async with dns_server(Zone({(LISTED, "A"): answers})) as server:
        zone = {"zone": "bad.test", "answers": ["127.0.0.2/31", "127.0.0.4/32"]}
        async with block_lists(server, zones=[zone]) as lists:
            assert (await ask(lists)).listed == listed


async def test_a_listing_is_kept_for_a_day_and_its_absence_for_a_quarter_of_an_hour() -> None:
    clock = Clock()
    server = Zone({(LISTED, "A"): ["127.0.0.2"]})
    async with block_lists(server, clock) as lists:
        for seconds, asked in [(0, 2), (899, 2), (2, 3), (86_400 - 902, 4), (2, 5)]:
            clock.advance(seconds)
            assert (await ask(lists)).listed
            assert not (await ask(lists, "192.0.2.3")).listed
            assert len(server.questions) == asked


async def test_all_zones_are_asked_at_once_and_answer_in_their_order() -> None:
    records = {(LISTED, "A"): ["127.0.0.2"], ("2.2.0.192.dialup.test", "A"): ["127.0.0.3"]}
    zones = [{"zone": "dialup.test", "action": "require_auth"}, {"zone": "bad.test"}]
    server = Zone(records)
    async with block_lists(server, zones=zones) as lists:
        answers = await lists.look_up(STRANGER, lists.zones, all_of_them=True)
    assert [(one.zone.name, one.listed) for one in answers] == [
        ("dialup.test", ("127.0.0.3",)),
        ("bad.test", ("127.0.0.2",)),
    ]


async def test_a_zone_that_denies_is_not_kept_waiting_by_a_silent_one() -> None:
    silent = frozenset({"2.2.0.192.silent.test"})
    async with dns_server(Zone({(LISTED, "A"): ["127.0.0.2"]}, silent=silent)) as server:
        zones = [{"zone": "silent.test"}, {"zone": "bad.test"}]
        async with block_lists(server, zones=zones, timeout=20) as lists:
            started = time.monotonic()
            silent_one, bad = await lists.look_up(STRANGER, lists.zones)
            assert time.monotonic() - started < 10
    assert silent_one.unknown
    assert bad.listed


async def test_a_client_that_is_known_to_be_listed_is_not_looked_up_anywhere_else() -> None:
    server = Zone({(LISTED, "A"): ["127.0.0.2"]})
    zones = [{"zone": "bad.test"}, {"zone": "other.test"}]
    async with block_lists(server, zones=zones) as lists:
        await lists.look_up(STRANGER, lists.zones[:1])
        answers = await lists.look_up(STRANGER, lists.zones)
    assert [(one.zone.name, bool(one.listed)) for one in answers] == [
        ("bad.test", True),
        ("other.test", False),
    ]
    assert server.questions == [(LISTED, "A")]


async def test_a_zone_that_answers_now_and_then_is_asked_on() -> None:
    names = {f"192.0.2.{number}": f"{number}.2.0.192.bad.test" for number in range(1, 31)}
    broken = frozenset(name for number, name in enumerate(names.values()) if number % 6)
    server = Zone(broken=broken)
    async with block_lists(server) as lists:
        for address, name in names.items():
            assert (await ask(lists, address)).unknown is (name in broken)
    assert {name for name, _ in server.questions} == set(names.values())


async def test_a_silent_zone_costs_no_more_than_the_timeout_and_says_nothing() -> None:
    server = Zone(silent=frozenset({LISTED}))
    async with block_lists(server, timeout=0.2) as lists:
        answer = await ask(lists)
    assert answer.unknown
    assert not answer.listed


async def test_a_broken_zone_says_nothing_and_is_asked_again() -> None:
    server = Zone(broken=frozenset({LISTED}))
    async with block_lists(server) as lists:
        assert (await ask(lists)).unknown
        server.broken = frozenset()
        server.records = {(LISTED, "A"): ["127.0.0.2"]}
        assert (await ask(lists)).listed


async def test_a_zone_that_never_answers_is_left_alone_for_a_while() -> None:
    clock = Clock()
    addresses = [f"192.0.2.{number}" for number in range(1, 40)]
    broken = frozenset(f"{number}.2.0.192.bad.test" for number in range(1, 40))
    server = Zone(broken=broken)
    async with block_lists(server, clock) as lists:
        for address in addresses:
            assert (await ask(lists, address)).unknown
        asked = {name for name, _ in server.questions}
        assert len(asked) == 10
        clock.advance(31)
        await ask(lists, addresses[20])
        await ask(lists, addresses[21])
        assert len({name for name, _ in server.questions}) == 11  # one trial, and it rests on
        clock.advance(31)
        server.broken = frozenset()
        assert not (await ask(lists, addresses[22])).unknown
        assert not (await ask(lists, addresses[23])).unknown


async def test_a_crowd_from_one_address_asks_once() -> None:
    server = Zone({(LISTED, "A"): ["127.0.0.2"]})
    async with block_lists(server) as lists:
        answers = await asyncio.gather(*(ask(lists) for _ in range(50)))
    assert all(answer.listed for answer in answers)
    assert len(server.questions) == 1


async def test_without_a_resolver_nothing_is_known() -> None:
    resolver = Resolver(nameservers(["127.0.0.1:53"]))
    resolver._resolver.nameservers = []
    config = DnsblConfig.model_validate({"zones": [{"zone": "bad.test"}], "timeout": 1.0})
    assert (await ask(BlockLists(resolver, config))).unknown


def test_a_resolver_must_be_an_address() -> None:
    with pytest.raises(ValueError, match=r"dns\.example"):
        nameservers(["dns.example:53"])
