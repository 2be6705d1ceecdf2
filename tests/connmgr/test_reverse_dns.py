"""Reverse names that resolve back, asked of a real DNS server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from netmail_common.config import ReverseDnsConfig
from netmail_connmgr.adapters.dns_resolver import Resolver, nameservers
from netmail_connmgr.adapters.reverse_dns import MAX_NAMES, ReverseNames
from netmail_connmgr.domain.connection_rules import Reverse, ReverseName

from tests.connmgr.conftest import Clock
from tests.support.dns_server import Zone, dns_server

POINTER = ("2.2.0.192.in-addr.arpa", "PTR")
CLIENT = ip_address("192.0.2.2")
RIGHT: dict[tuple[str, str], list[str]] = {
    POINTER: ["host.test."],
    ("host.test", "A"): ["192.0.2.9", "192.0.2.2"],
}


@asynccontextmanager
async def reverse_names(
    server: Zone, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[ReverseNames]:
    config = ReverseDnsConfig.model_validate(settings)
    resolver = Resolver(nameservers([server.address]))
    names = ReverseNames(resolver, config, clock=clock or Clock())
    try:
        yield names
    finally:
        await names.close()


async def look_up(zone: Zone, address: str = "192.0.2.2", **settings: Any) -> ReverseName:
    async with dns_server(zone) as server, reverse_names(server, **settings) as names:
        return await names.look_up(ip_address(address))


async def test_a_name_that_resolves_back_confirms() -> None:
    assert await look_up(Zone(RIGHT)) == ReverseName(Reverse.CONFIRMED, "host.test")


async def test_an_ipv6_name_resolves_back_by_aaaa() -> None:
    pointer = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"
    records = {(pointer, "PTR"): ["host.test."], ("host.test", "AAAA"): ["2001:DB8:0::1"]}
    found = await look_up(Zone(records), "2001:db8::1")
    assert found == ReverseName(Reverse.CONFIRMED, "host.test")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({}, ReverseName(Reverse.MISSING)),
        ({POINTER: ["host.test."]}, ReverseName(Reverse.UNCONFIRMED, "host.test")),
        (
            {POINTER: ["host.test."], ("host.test", "A"): ["192.0.2.3"]},
            ReverseName(Reverse.UNCONFIRMED, "host.test"),
        ),
        (
            {POINTER: ["forged.test.", "host.test."], ("host.test", "A"): ["192.0.2.2"]},
            ReverseName(Reverse.CONFIRMED, "host.test"),
        ),
        ({("2.2.0.192.in-addr.arpa", "TXT"): ["x"]}, ReverseName(Reverse.MISSING)),
        ({POINTER: ["."]}, ReverseName(Reverse.UNCONFIRMED, "")),
    ],
)
async def test_what_does_not_resolve_back_does_not_confirm(
    records: dict[tuple[str, str], list[str]], expected: ReverseName
) -> None:
    found = await look_up(Zone(records))
    assert found.result is expected.result
    assert found.name in {expected.name, "."}


@pytest.mark.parametrize("name", ["2.2.0.192.in-addr.arpa", "host.test"])
async def test_broken_dns_says_nothing(name: str) -> None:
    found = await look_up(Zone(RIGHT, broken=frozenset({name})))
    assert found.result is Reverse.UNKNOWN


@pytest.mark.parametrize("name", ["2.2.0.192.in-addr.arpa", "host.test"])
async def test_silent_dns_says_nothing_in_time(name: str) -> None:
    found = await look_up(Zone(RIGHT, silent=frozenset({name})), timeout=0.2)
    assert found.result is Reverse.UNKNOWN


async def test_one_name_without_an_answer_leaves_it_open_unless_another_confirms() -> None:
    records = {**RIGHT, POINTER: ["broken.test.", "host.test."]}
    broken = frozenset({"broken.test"})
    assert (await look_up(Zone(records, broken=broken))).result is Reverse.CONFIRMED
    records["host.test", "A"] = ["192.0.2.3"]
    assert (await look_up(Zone(records, broken=broken))).result is Reverse.UNKNOWN


async def test_who_writes_many_names_has_a_few_of_them_tried() -> None:
    names = [f"host{number}.test." for number in range(30)]
    zone = Zone({POINTER: names, **{(name[:-1], "A"): ["192.0.2.3"] for name in names}})
    assert (await look_up(zone)).result is Reverse.UNCONFIRMED
    assert sum(kind == "A" for _, kind in zone.questions) == MAX_NAMES


async def test_an_answer_is_kept_for_three_hours_and_the_lack_of_one_for_half_a_minute() -> None:
    clock = Clock()
    async with dns_server(Zone(RIGHT)) as server, reverse_names(server, clock) as names:
        await names.look_up(CLIENT)
        clock.advance(10_799)
        await names.look_up(CLIENT)
        assert server.questions.count(POINTER) == 1
        clock.advance(2)
        server.broken = frozenset({POINTER[0]})
        assert (await names.look_up(CLIENT)).result is Reverse.UNKNOWN
        clock.advance(29)
        asked = server.questions.count(POINTER)
        await names.look_up(CLIENT)
        assert server.questions.count(POINTER) == asked
        server.broken = frozenset()
        clock.advance(2)
        assert (await names.look_up(CLIENT)).result is Reverse.CONFIRMED
