"""Where mail goes: routes, MX, addresses, with a real DNS server on loopback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import RouteConfig
from netmail_smtp.adapters.deliver_router import Router
from netmail_smtp.adapters.dns import Resolver
from netmail_smtp.domain.deliver_outcome import DeliveryFailure
from netmail_smtp.domain.deliver_route import (
    MxHosts,
    MxRecord,
    RouteTable,
    Security,
    Target,
    order_mx,
)

from tests.smtp.deliver_support import (
    delivered,
    failure,
    outbound,
    pools_closed,  # noqa: F401 - closes what tests open
)
from tests.support.dns_server import Zone, dns_server
from tests.support.scripted_smtp import scripted_host

OWN = frozenset({"mail1.example.org"})
ZONE = {
    ("two.test", "MX"): ["20 second.test.", "10 first.test."],
    ("first.test", "A"): ["192.0.2.1"],
    ("first.test", "AAAA"): ["2001:db8::1"],
    ("second.test", "A"): ["192.0.2.2"],
    ("plain.test", "A"): ["192.0.2.4"],
    ("null.test", "MX"): ["0 ."],
    ("loop.test", "MX"): ["10 mail1.example.org.", "20 second.test."],
    ("backup.test", "MX"): ["5 first.test.", "10 mail1.example.org.", "10 second.test."],
    ("gone.test", "MX"): ["10 nowhere.test."],
    ("half.test", "MX"): ["10 nowhere.test.", "20 silent.test."],
    ("empty.test", "TXT"): ["x"],
    ("alias.test", "MX"): ["10 cname.test."],
    ("cname.test", "CNAME"): ["plain.test."],
}


def router(zone: Zone, routes: list[RouteConfig] | None = None, *, ipv6: bool = True) -> Router:
    return Router(
        RouteTable(routes or []),
        Resolver([zone.address], lifetime=0.5),
        own_names=OWN,
        smtp_port=25,
        ipv6=ipv6,
        shuffle=lambda hosts: hosts.sort(),
    )


async def resolve(domain: str, *, ipv6: bool = True) -> list[str] | DeliveryFailure:
    zone = Zone(ZONE, frozenset({"broken.test"}), frozenset({"silent.test"}))
    async with dns_server(zone):
        found = await router(zone, ipv6=ipv6).targets(domain)
        return found if isinstance(found, DeliveryFailure) else [str(target) for target in found]


async def test_mx_hosts_come_by_preference_ipv6_before_ipv4() -> None:
    assert await resolve("two.test") == [
        "first.test[2001:db8::1]:25",
        "first.test[192.0.2.1]:25",
        "second.test[192.0.2.2]:25",
    ]


async def test_without_ipv6_only_ipv4() -> None:
    assert await resolve("two.test", ipv6=False) == [
        "first.test[192.0.2.1]:25",
        "second.test[192.0.2.2]:25",
    ]


async def test_a_domain_without_mx_is_its_own() -> None:
    assert await resolve("plain.test") == ["plain.test[192.0.2.4]:25"]


async def test_hosts_no_better_than_we_are_left_out() -> None:
    assert await resolve("backup.test", ipv6=False) == ["first.test[192.0.2.1]:25"]


@pytest.mark.parametrize(
    ("domain", "retryable", "status"),
    [
        ("null.test", False, "5.1.10"),
        ("loop.test", False, "5.4.6"),
        ("missing.test", False, "5.1.2"),
        ("gone.test", False, "5.1.2"),
        ("empty.test", False, "5.4.4"),
        ("broken.test", True, "4.4.3"),
        ("silent.test", True, "4.4.3"),
        ("half.test", True, "4.4.3"),
        ("a..test", False, "5.1.2"),
        ("x" * 64 + ".test", False, "5.1.2"),
    ],
)
async def test_what_dns_says_decides_whether_mail_waits(
    domain: str, retryable: bool, status: str
) -> None:
    found = await resolve(domain)
    assert isinstance(found, DeliveryFailure)
    assert (found.retryable, found.status) == (retryable, status)


@pytest.mark.parametrize(
    ("domain", "address"),
    [("[192.0.2.9]", "192.0.2.9"), ("[IPv6:2001:db8::9]", "2001:db8::9")],
)
async def test_an_address_literal_needs_no_dns(domain: str, address: str) -> None:
    zone = Zone()
    assert await router(Zone(port=1)).targets(domain) == [Target(domain, address, 25)]
    assert zone.questions == []


async def test_answers_are_remembered() -> None:
    zone = Zone(ZONE)
    async with dns_server(zone):
        way = router(zone)
        await way.targets("plain.test")
        asked = len(zone.questions)
        await way.targets("plain.test")
        assert len(zone.questions) == asked


async def test_a_route_may_ask_for_the_mx_of_its_host() -> None:
    zone = Zone(ZONE)
    route = RouteConfig(domain="*", hosts=["two.test:2525"], mx=True, tls="required")
    async with dns_server(zone):
        found = await router(zone, [route], ipv6=False).targets("anything.test")
        assert found == [
            Target(host, address, 2525, Security("required"))
            for host, address in [
                ("first.test", "192.0.2.1"),
                ("second.test", "192.0.2.2"),
            ]
        ]


async def test_mail_goes_to_the_mx_of_its_domain_over_real_dns_and_smtp() -> None:
    zone = Zone(
        {
            ("example.net", "MX"): ["10 dead.test.", "20 mx.test."],
            ("dead.test", "A"): ["127.0.0.2"],
            ("mx.test", "A"): ["127.0.0.1"],
        }
    )
    async with dns_server(zone), scripted_host() as host:
        out = outbound(
            config={"dns_servers": [zone.address], "smtp_port": host.port}, dns=zone.address
        )
        outcomes = await out.send("bob@example.net")
        assert delivered(outcomes) == {"bob@example.net"}
        assert outcomes["bob@example.net"].remote_mta == "mx.test"


async def test_ipv6_is_tried_first_and_ipv4_where_it_is_dead() -> None:
    zone = Zone(
        {
            ("example.net", "MX"): ["10 mx.test."],
            ("mx.test", "A"): ["127.0.0.1"],
            ("mx.test", "AAAA"): ["::1"],
        }
    )
    async with dns_server(zone):
        for address in ("::1", "127.0.0.1"):
            async with scripted_host(address=address) as host:
                config = {"smtp_port": host.port, "ipv6": True}
                out = outbound(config=config, dns=zone.address)
                assert delivered(await out.send("bob@example.net")) == {"bob@example.net"}
                await out.pool.close()


async def test_a_route_may_name_an_ipv6_address() -> None:
    async with scripted_host(address="::1") as host:
        config = {"routes": [{"domain": "*", "hosts": [f"[::1]:{host.port}"]}]}
        out = outbound(config=config)
        assert delivered(await out.send("bob@example.net")) == {"bob@example.net"}


async def test_null_mx_is_a_failure_without_a_connection() -> None:
    zone = Zone(ZONE)
    async with dns_server(zone):
        out = outbound(config={"dns_servers": [zone.address]}, dns=zone.address)
        outcome = failure(await out.send("bob@null.test", domain="null.test"), "bob@null.test")
        assert outcome.diagnostic == "x-netmail; null.test accepts no mail (null MX)"


def route(domain: str) -> RouteConfig:
    return RouteConfig(domain=domain, hosts=["127.0.0.1:25"])


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("example.net", "example.net"),
        ("a.example.net", ".example.net"),
        ("b.a.example.net", ".a.example.net"),
        ("example.com", "*"),
        ("[192.0.2.1]", "*"),
    ],
)
def test_the_closest_route_is_taken(domain: str, found: str) -> None:
    table = RouteTable([route(d) for d in ("*", ".example.net", "example.net", ".a.example.net")])
    chosen = table.find(domain)
    assert chosen is not None
    assert chosen.domain == found


def test_without_a_route_there_is_none() -> None:
    assert RouteTable([route("example.net")]).find("example.com") is None


HOSTS = st.sampled_from(["a.test", "b.test", "c.test", "mail1.example.org", ""])


@given(st.lists(st.builds(MxRecord, st.integers(0, 3), HOSTS), min_size=1, max_size=8))
def test_we_never_send_to_ourselves_or_to_a_worse_host(records: list[MxRecord]) -> None:
    found = order_mx("x.test", records, own_names=OWN, shuffle=lambda hosts: hosts.reverse())
    own = min((r.preference for r in records if r.host in OWN), default=4)
    better = {r.host for r in records if r.preference < own and r.host}
    if isinstance(found, MxHosts):
        assert set(found.hosts) == better
        best = {h: min(r.preference for r in records if r.host == h) for h in found.hosts}
        assert sorted(best.values()) == [best[h] for h in found.hosts]
    else:
        assert not found.retryable
        assert not better
