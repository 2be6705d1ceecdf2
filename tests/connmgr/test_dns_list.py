"""The DNS list: names and messages without sockets, and a Connection Manager that serves it."""

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ConfigError
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from netmail_connmgr.protocol.dns_list import (
    Done,
    ListZone,
    Lookup,
    StreamReader,
    to_datagram,
    to_stream,
)

from tests.connmgr.conftest import IdentityFor, login
from tests.connmgr.front_ends import ask_udp, grpc_client, settings

ZONE = ListZone("logins.example", ttl=2, txt=True)
V6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.logins.example"


def query(name: str, kind: str = "A", **more: Any) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **more)


def read(name: str, kind: str = "A", **more: Any) -> Lookup | Done | None:
    return ZONE.read(query(name, kind, **more).to_wire())


def done(name: str, kind: str = "A", **more: Any) -> dns.message.Message:
    found = read(name, kind, **more)
    assert isinstance(found, Done)
    return found.response


def answered(name: str, kind: str = "A", *, user: str | None, zone: ListZone = ZONE) -> Any:
    found = zone.read(query(name, kind).to_wire())
    assert isinstance(found, Lookup)
    return zone.answer(found, user)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.logins.example", "1.2.3.4"),
        ("255.0.0.10.LOGINS.eXample", "10.0.0.255"),
        (V6, "2001:db8::1"),
        (V6.upper(), "2001:db8::1"),
    ],
)
def test_a_name_is_about_an_address(name: str, address: str) -> None:
    found = read(name)
    assert isinstance(found, Lookup)
    assert found.address == ipaddress.ip_address(address).packed


@given(st.ip_addresses())
def test_every_address_has_one_name(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    labels = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    found = read(f"{labels}.logins.example")
    assert isinstance(found, Lookup)
    assert found.address == address.packed


@pytest.mark.parametrize(
    "name",
    [
        "04.3.2.1.logins.example",
        "256.3.2.1.logins.example",
        "5.4.3.2.1.2.333.logins.example",
        "1.2.3.4.5555.logins.example",
        "0x1.3.2.1.logins.example",
        "\\0324.3.2.1.logins.example",
        "1\\.2.3.4.5.logins.example",
        "\\178.3.2.1.logins.example",
        "www.logins.example",
        f"1.{V6}",
        f"g{V6[1:]}",
    ],
)
def test_what_is_no_address_does_not_exist(name: str) -> None:
    response = done(name)
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.flags & dns.flags.AA
    assert response.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    "name",
    ["logins.example", "1.logins.example", "0.0.10.logins.example", V6[2:], "a.logins.example"],
)
def test_a_resolver_may_ask_its_way_down(name: str) -> None:
    """NXDOMAIN would say that nothing is below (RFC 8020)."""
    response = done(name)
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.answer
    assert response.authority[0].rdtype == dns.rdatatype.SOA


def test_a_known_client_has_127_0_0_2_and_an_unknown_one_does_not_exist() -> None:
    response = answered("40.3.2.1.LoGins.example", user="alice.users.demo")
    assert response.answer[0].to_text() == "40.3.2.1.LoGins.example. 2 IN A 127.0.0.2"
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.AA
    assert not response.flags & dns.flags.RA
    response = answered("40.3.2.1.logins.example", user=None)
    assert response.rcode() == dns.rcode.NXDOMAIN
    (soa,) = response.authority[0]
    assert response.authority[0].ttl == soa.minimum == 2


def test_an_unknown_client_whose_name_begins_ipv6_names_has_no_record() -> None:
    response = answered("4.3.2.1.logins.example", user=None)
    assert response.rcode() == dns.rcode.NOERROR
    assert not response.answer


def test_text_names_the_user_if_that_is_wanted() -> None:
    name = "4.3.2.1.logins.example"
    assert answered(name, "TXT", user="alice.users.demo").answer[0][0].strings == (
        b"alice.users.demo",
    )
    odd = 'a"\\b;$(\u00eb) '
    assert answered(name, "TXT", user=odd).answer[0][0].strings == (odd.encode(),)
    assert [len(s) for s in answered(name, "TXT", user="x" * 511).answer[0][0].strings] == [
        255,
        255,
        1,
    ]
    for response in (
        answered(name, "TXT", user="alice", zone=ListZone("logins.example", ttl=1, txt=False)),
        answered(name, "TXT", user=""),
        answered(name, "AAAA", user="alice"),
    ):
        assert response.rcode() == dns.rcode.NOERROR
        assert not response.answer
    assert answered(name, "ANY", user="alice").answer[0].rdtype == dns.rdatatype.A


def test_nobody_can_say_is_servfail() -> None:
    found = read("4.3.2.1.logins.example")
    assert isinstance(found, Lookup)
    assert ZONE.unknown(found).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("4.3.2.1.other.example", "A", {}),
        ("example", "SOA", {}),
        (".", "NS", {}),
        ("logins.example", "AXFR", {}),
        ("logins.example", "IXFR", {}),
        ("4.3.2.1.logins.example", "A", {"rdclass": "CH"}),
        ("version.bind", "TXT", {"rdclass": "CH"}),
    ],
)
def test_other_questions_are_refused(name: str, kind: str, more: dict[str, Any]) -> None:
    response = done(name, kind, **more)
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.answer + response.authority


def test_the_zone_has_a_soa() -> None:
    assert done("logins.example", "SOA").answer[0].rdtype == dns.rdatatype.SOA


def test_edns_is_answered_by_edns_and_its_next_version_by_badvers() -> None:
    assert done("www.logins.example").edns == -1
    assert done("www.logins.example", use_edns=0, payload=4096).payload == 1232
    assert done("4.3.2.1.logins.example", use_edns=1).rcode() == dns.rcode.BADVERS


def test_what_is_no_query_gets_a_header_or_nothing() -> None:
    wire = query("4.3.2.1.logins.example").to_wire()
    response = bytearray(wire)
    response[2] |= 0x80
    for silent in (b"", wire[:11], bytes(response)):
        assert ZONE.read(silent) is None
    for opcode, rcode in (
        (dns.opcode.NOTIFY, dns.rcode.NOTIMP),
        (dns.opcode.UPDATE, dns.rcode.NOTIMP),
        (dns.opcode.STATUS, dns.rcode.NOTIMP),
    ):
        other = bytearray(wire)
        other[2] = opcode << 3 | 1
        found = ZONE.read(bytes(other))
        assert isinstance(found, Done)
        header = to_datagram(found.response, 0)
        assert header[:2] == wire[:2]
        assert len(header) == 12
        assert dns.message.from_wire(header).rcode() == rcode
    for broken in (
        wire[:20],
        wire + b"\0",
        wire[:4] + b"\0\2" + wire[6:],
        wire[:4] + b"\0\0" + wire[6:12],
    ):
        found = ZONE.read(broken)
        assert isinstance(found, Done)
        assert found.response.rcode() == dns.rcode.FORMERR


def test_an_answer_that_is_too_long_for_a_datagram_is_cut() -> None:
    response = answered("4.3.2.1.logins.example", "TXT", user="x" * 511)
    cut = dns.message.from_wire(to_datagram(response, 0))
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    response = answered("4.3.2.1.logins.example", "TXT", user="x" * 511)
    assert dns.message.from_wire(to_datagram(response, 1232)).answer
    assert dns.message.from_wire(to_stream(response)[2:]).answer


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_a_stream_gives_back_its_messages(messages: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(len(one).to_bytes(2, "big") + one for one in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)))))
    reader, found = StreamReader(), []
    for at, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        reader.feed(octets[at:end])
        while (message := reader.next_message()) is not None:
            found.append(message)
    assert found == messages
    assert not reader.pending


# With sockets


def dns_list(**more: Any) -> dict[str, Any]:
    return {
        "listen": ["127.0.0.1:0"],
        "allowed_sources": ["127.0.0.0/8"],
        "zone": "logins.example",
        **more,
    }


async def test_a_login_puts_its_address_on_the_list(
    certificates: Path, identity_for: IdentityFor
) -> None:
    config = settings(
        certificates, dns_list=dns_list(txt=True), shared_networks=["198.51.100.0/24"]
    )
    async with (
        connection_manager(config, "cm1") as running,
        grpc_client(running, identity_for, Role.POP_IMAP) as agent,
    ):
        (port,) = running.front_end_ports["dns_list"]

        async def ask(name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
            ask_by = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
            return await ask_by(query(name, kind), "127.0.0.1", port=port, timeout=20)

        name = "10.113.0.203.logins.example"
        assert (await ask(name)).rcode() == dns.rcode.NXDOMAIN
        for address in (
            b"\xcb\x00\x71\x0a",
            b"\xc6\x33\x64\x0a",
            bytes.fromhex("20010db8" + "0" * 24),
        ):
            await agent.register_one(login(address=address))
        for by_tcp in (False, True):
            assert (await ask(name, tcp=by_tcp)).answer[0][0].to_text() == "127.0.0.2"
            text = await ask(name, "TXT", tcp=by_tcp)
            assert text.answer[0][0].to_text() == '"alice.users.demo"'
            # The login is known by its /64.
            assert (await ask(V6, tcp=by_tcp)).answer
        for other in ("11.113.0.203", "10.100.51.198", "1.0.0.127", "2.0.0.127"):
            assert not (await ask(f"{other}.logins.example")).answer


async def test_a_revoked_login_leaves_the_list_at_once(
    certificates: Path, identity_for: IdentityFor
) -> None:
    async with (
        connection_manager(settings(certificates, dns_list=dns_list()), "cm1") as running,
        grpc_client(running, identity_for) as admin,
    ):
        (port,) = running.front_end_ports["dns_list"]
        wire = query("10.113.0.203.logins.example").to_wire()
        result = await admin.register_one(login(address=b"\xcb\x00\x71\x0a"))
        assert result.outcome == pb.REGISTER_OUTCOME_REGISTERED
        first, second = await ask_udp(port, wire), None
        await admin.revoke(client_address=b"\xcb\x00\x71\x0a", reason="test")
        second = await ask_udp(port, wire)
        assert first is not None
        assert second is not None
        assert dns.message.from_wire(first).answer
        assert dns.message.from_wire(second).rcode() == dns.rcode.NXDOMAIN


async def test_many_queries_on_one_connection_are_answered_in_order(certificates: Path) -> None:
    async with connection_manager(settings(certificates, dns_list=dns_list()), "cm1") as running:
        (port,) = running.front_end_ports["dns_list"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        queries = [query(f"{number}.113.0.203.logins.example") for number in range(20, 40)]
        writer.write(b"".join(to_stream(one) for one in queries))
        for one in queries:
            async with asyncio.timeout(20):
                size = int.from_bytes(await reader.readexactly(2), "big")
                assert one.is_response(dns.message.from_wire(await reader.readexactly(size)))
        writer.close()


async def test_sources_that_are_not_allowed_hear_nothing(certificates: Path) -> None:
    config = settings(certificates, dns_list=dns_list(allowed_sources=["127.0.0.2/32"]))
    wire = query("10.113.0.203.logins.example").to_wire()
    async with connection_manager(config, "cm1") as running:
        (port,) = running.front_end_ports["dns_list"]
        assert await ask_udp(port, wire, source=("127.0.0.2", 0)) is not None
        assert await ask_udp(port, wire, patience=0.2) is None


@pytest.mark.parametrize("sources", [[], ["100.64.0.0/16"]])
async def test_there_must_be_sources_and_none_may_overlap_a_shared_network(
    certificates: Path, sources: list[str]
) -> None:
    config = settings(certificates, dns_list=dns_list(allowed_sources=sources))
    with pytest.raises(ConfigError, match=r"dns_list\.allowed_sources"):
        async with connection_manager(config, "cm1"):
            pass
