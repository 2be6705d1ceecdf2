"""WHOSON and the DNS list judge addresses by the table's rules, whatever their spelling."""

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import pytest
from netmail_connmgr.app.manager import Running, connection_manager

from tests.connmgr.front_ends import ask_udp, settings
from tests.connmgr.vouching import LOGIN, V6, VOUCHING


@pytest.fixture
async def running(certificates: Path) -> AsyncIterator[Running]:
    config = settings(
        certificates,
        shared_networks=["198.51.100.0/24", "2001:db8:5::/48"],
        lists={"allowed": ["203.0.113.200-203.0.113.201"]},
        whoson={
            "listen": ["127.0.0.1:0"],
            "allowed_sources": ["127.0.0.0/8"],
            "udp_login": True,
        },
        dns_list={
            "listen": ["127.0.0.1:0"],
            "allowed_sources": ["127.0.0.0/8"],
            "zone": "logins.example",
        },
    )
    async with connection_manager(config, "cm1") as found:
        yield found


async def whoson(running: Running, line: str) -> str:
    answer = await ask_udp(running.front_end_ports["whoson"][0], f"{line}\n\n".encode())
    assert answer is not None
    return answer.decode().strip()


async def listed(running: Running, address: str) -> bool:
    pointer = ipaddress.ip_address(address).reverse_pointer
    labels = pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    query = dns.message.make_query(f"{labels}.logins.example", "A").to_wire()
    answer = await ask_udp(running.front_end_ports["dns_list"][0], query)
    assert answer is not None
    return bool(dns.message.from_wire(answer).answer)


@pytest.mark.parametrize(("login", "query", "known"), VOUCHING)
async def test_a_login_vouches_for_its_network_and_nothing_else(
    running: Running, login: str, query: str, known: bool
) -> None:
    assert (await whoson(running, f"LOGIN {login} alice")).startswith("+LOGIN OK")
    assert await whoson(running, f"QUERY {query}") == ("+alice" if known else "-not logged in")
    assert await listed(running, query) is known
    assert await whoson(running, f"LOGOUT {login}") == "+LOGOUT OK"
    assert await whoson(running, f"QUERY {query}") == "-not logged in"
    assert await listed(running, query) is False


async def test_who_always_may_needs_no_login(running: Running) -> None:
    for address, known in (("203.0.113.201", True), ("203.0.113.202", False)):
        wanted = "+(no name)" if known else "-not logged in"
        assert await whoson(running, f"QUERY {address}") == wanted
        assert await listed(running, address) is known


async def test_a_zone_id_counts_for_nothing(running: Running) -> None:
    assert await whoson(running, f"LOGIN {V6}%eth0 alice") == "+LOGIN OK"
    assert await whoson(running, f"QUERY {V6}%eth1") == "+alice"
    assert await whoson(running, "LOGIN fe80::1%eth0 alice") != "+LOGIN OK"
    assert await whoson(running, "QUERY fe80::1%eth0") == "-not logged in"


@pytest.mark.parametrize(
    "spelling",
    [
        "203.0.113.01",
        "203.0.113",
        "0313.0.113.1",
        "0xcb.0.113.1",
        "3405803777",
        "203.0.113.1.",
        "203.0.113.1/32",
        "[203.0.113.1]",
        "\u0662\u0660\u0663.0.113.1",
        "::ffff:203.0.113.01",
        "2001:db8::1::1",
        "2001:db8:0:1:0:0:0:0:1",
    ],
)
async def test_an_address_has_one_spelling(running: Running, spelling: str) -> None:
    await whoson(running, f"LOGIN {LOGIN} alice")
    for request in (f"LOGIN {spelling} mallory", f"QUERY {spelling}", f"LOGOUT {spelling}"):
        assert await whoson(running, request) == "*an IP address follows"
    assert await whoson(running, f"QUERY {LOGIN}") == "+alice"
