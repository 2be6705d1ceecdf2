"""The PROXY protocol parser, versions 1 and 2."""

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.proxy_protocol import (
    MAX_HEADER,
    Endpoint,
    NeedMore,
    ProxyHeader,
    ProxyProtocolError,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
PORT = st.integers(0, 65535)


def v2(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(block)) + block


def block(
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    ports: tuple[int, int],
) -> bytes:
    return source.packed + destination.packed + struct.pack("!HH", *ports)


def complete(data: bytes) -> ProxyHeader:
    header = parse_header(data)
    assert isinstance(header, ProxyHeader)
    return header


@given(source=V4, destination=V4, ports=st.tuples(PORT, PORT), rest=st.binary(max_size=50))
def test_version_1_gives_both_ends_and_leaves_the_rest(
    source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], rest: bytes
) -> None:
    line = f"PROXY TCP4 {source} {destination} {ports[0]} {ports[1]}\r\n".encode()
    header = complete(line + rest)
    assert header == ProxyHeader(
        Endpoint(source, ports[0]), Endpoint(destination, ports[1]), len(line)
    )
    assert header.grants


@given(source=V6, destination=V6, ports=st.tuples(PORT, PORT), tlvs=st.binary(max_size=200))
def test_version_2_gives_both_ends_and_skips_its_extensions(
    source: IPv6Address, destination: IPv6Address, ports: tuple[int, int], tlvs: bytes
) -> None:
    data = v2(1, 0x21, block(source, destination, ports) + tlvs)
    assert complete(data + b"EHLO x\r\n") == ProxyHeader(
        Endpoint(source, ports[0]), Endpoint(destination, ports[1]), len(data)
    )


@given(source=V4, destination=V4, ports=st.tuples(PORT, PORT), version=st.sampled_from([1, 2]))
def test_a_part_of_a_header_wants_more_and_never_more_than_the_header_has(
    source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], version: int
) -> None:
    data = v2(1, 0x11, block(source, destination, ports))
    if version == 1:
        data = f"PROXY TCP4 {source} {destination} {ports[0]} {ports[1]}\r\n".encode()
    for end in range(1, len(data)):
        answer = parse_header(data[:end])
        assert isinstance(answer, NeedMore)
        assert 1 <= answer.missing <= len(data) - end


@given(st.binary(max_size=300))
def test_any_octets_give_an_answer_or_the_one_error(data: bytes) -> None:
    with contextlib.suppress(ProxyProtocolError):
        answer = parse_header(data)
        assert isinstance(answer, NeedMore) or answer.length <= len(data)


@given(st.binary(max_size=300))
def test_any_octets_behind_a_version_2_signature_give_an_answer_or_the_one_error(
    data: bytes,
) -> None:
    with contextlib.suppress(ProxyProtocolError):
        answer = parse_header(SIGNATURE + data)
        assert isinstance(answer, NeedMore) or answer.length <= len(SIGNATURE + data)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        v2(0, 0x00, b""),
        v2(0, 0x11, block(IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), (1, 2))),
        v2(1, 0x00, b"whatever"),
        v2(1, 0x31, bytes(216)),
    ],
)
def test_a_proxy_that_does_not_say_who_the_client_is_grants_nothing(data: bytes) -> None:
    header = complete(data)
    assert header.source is None
    assert not header.grants
    assert header.length == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO me\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2" + 80 * b" ",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        v2(1, 0x11, bytes(12), version=1),
        v2(2, 0x11, bytes(12)),
        v2(1, 0x12, bytes(12)),
        v2(1, 0x41, bytes(12)),
        v2(1, 0x11, bytes(11)),
        v2(1, 0x21, bytes(35)),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_HEADER),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse_header(data)
