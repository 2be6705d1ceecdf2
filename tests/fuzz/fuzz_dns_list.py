"""Fuzz target: queries to the DNS list (netmail_connmgr.protocol.dns_list)."""

import ipaddress
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from netmail_connmgr.protocol.dns_list import (
    Done,
    ListZone,
    Lookup,
    StreamReader,
    to_datagram,
    to_stream,
)

_ZONE = ListZone("logins.example", ttl=1, txt=True)


def seeds() -> Iterable[bytes]:
    """Queries as resolvers write them."""
    v6 = ".".join("1" + "0" * 23 + "8bd01002") + ".logins.example"
    for name, kind in (
        ("4.3.2.1.logins.example", "A"),
        ("4.3.2.1.LOGINS.example", "TXT"),
        (v6, "A"),
        ("3.2.1.logins.example", "A"),
        ("04.3.2.1.logins.example", "A"),
        ("255.3.2.256.logins.example", "A"),
        ("logins.example", "SOA"),
        ("logins.example", "AXFR"),
        ("www.example", "A"),
    ):
        yield dns.message.make_query(name, kind).to_wire()
        yield dns.message.make_query(name, kind, use_edns=0, payload=512).to_wire()
    yield bytes.fromhex("000101000001000000000000") + b"\xc0\x0c\x00\x01\x00\x01"
    yield bytes.fromhex("00012800000100000000000007") + b"example\x00\x00\x06\x00\x01"


def one_input(data: bytes) -> None:
    """A query gets a response that can be read, whatever is in it; the rest gets silence."""
    _check_stream(data)
    query = _ZONE.read(data)
    if query is None:
        return
    assert not data[2] & 0x80
    if isinstance(query, Done):
        _check(data, query.response, query.payload)
        assert not [one for one in query.response.answer if one.rdtype != dns.rdatatype.SOA]
        return
    _check_address(query)
    _check(data, _ZONE.unknown(query), query.payload)
    _check(data, _ZONE.answer(query, "alice.users.demo" * 30), query.payload)
    nobody = _ZONE.answer(query, None)
    assert not nobody.answer
    _check(data, nobody, query.payload)


def _check(data: bytes, response: dns.message.Message, payload: int) -> None:
    assert to_stream(response)[4:5] != b"\0"
    wire = to_datagram(response, payload)
    assert len(wire) <= min(max(payload, 512), 1232)
    assert wire[:2] == data[:2]
    back = dns.message.from_wire(wire)
    assert back.flags & dns.flags.QR
    assert not back.flags & dns.flags.RA


def _check_address(query: Lookup) -> None:
    """Only an address's own reverse name is about it."""
    pointer = ipaddress.ip_address(query.address).reverse_pointer
    labels = pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    name = query.query.question[0].name.to_text(omit_final_dot=True).lower()
    assert name == f"{labels}.logins.example", name


def _check_stream(data: bytes) -> None:
    reader, whole = StreamReader(), StreamReader()
    whole.feed(data)
    found = []
    for octet in data:
        reader.feed(bytes([octet]))
        while (message := reader.next_message()) is not None:
            found.append(message)
    for message in found:
        assert whole.next_message() == message
    assert whole.next_message() is None
