"""The table of address tricks: who logged in as what, who wants to relay as what, what must come.

Each case is a login by POP3 and an attempt to relay, each with the PROXY header of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.e2e.proxy_headers import (
    LOCAL,
    PROXY,
    SIGNATURE,
    TCP4,
    TCP6,
    UNIX,
    v1,
    v2,
    v2_raw,
)
from tests.e2e.relaying import Outcome

HOME = "192.0.2.7"
HOME6 = "2001:db8:1:2:3:4:5:6"

SHARED_CONFIG = {
    "private_ranges_shared": True,
    "granting_networks": ["10.20.0.0/16", "fd00:20::/32"],
    "shared_networks": ["203.0.113.0/24", "2001:db8:5a5a::/48"],
    "nat64_prefixes": ["2001:db8:64::/96", "2001:db8:4800::/48"],
    "lists": {"blocked": ["198.51.100.66", "2001:db8:bad::/64"]},
    "rates": {"after_login": {"recipients": 0}},
}
"""What the Connection Manager of the table's installation says about addresses."""


@dataclass(frozen=True, slots=True)
class Case:
    """One trick.

    Attributes:
        login: PROXY header of the login; CUT is expected of it where `login_cut`.
        relay: PROXY header of the attempt to relay.
    """

    name: str
    login: bytes
    relay: bytes
    outcome: Outcome
    login_cut: bool = False


def all_cases() -> list[Case]:
    """Every case of the table."""
    return [
        *_one_client(),
        *_neighbours(),
        *_flipped_bits(),
        *_shared(),
        *_shared_embedded(),
        *_ranges_edges(),
        *_not_said(),
        *_forged(),
    ]


# One IPv4 client, in every spelling that is that client.
_SPELLINGS = [
    ("dotted", v1(HOME)),
    ("dotted, v2", v2(HOME)),
    ("mapped", v1("::ffff:192.0.2.7")),
    ("mapped, hexadecimal", v1("::FFFF:C000:0207")),
    ("mapped, v2", v2("::ffff:192.0.2.7")),
    ("NAT64", v1("64:ff9b::192.0.2.7")),
    ("NAT64, v2", v2("64:ff9b::c000:207")),
    ("NAT64, local prefix", v2("64:ff9b:1:c000:2:700::")),
    ("NAT64, configured /96", v2("2001:db8:64::c000:207")),
    ("NAT64, configured /48", v2("2001:db8:4800:c000:2:700::")),
    ("6to4", v1("2002:c000:207::1")),
    ("6to4, another host", v2("2002:c000:207:ffff:a:b:c:d")),
]
# One IPv6 network.
_SPELLINGS6 = [
    ("compressed", v1(HOME6)),
    ("full", v1("2001:0db8:0001:0002:0003:0004:0005:0006")),
    ("upper case", v1("2001:DB8:1:2:3:4:5:6")),
    ("octets", v2(HOME6)),
    ("another host", v1("2001:db8:1:2::1")),
    ("the lowest", v2("2001:db8:1:2::")),
    ("the highest", v1("2001:db8:1:2:ffff:ffff:ffff:ffff")),
    ("a dotted tail", v1("2001:db8:1:2:3:4:192.0.2.7")),
]


def _one_client() -> Iterator[Case]:
    for spellings in (_SPELLINGS, _SPELLINGS6):
        for name, header in spellings:
            yield Case(f"{spellings[0][0]} then {name}", spellings[0][1], header, Outcome.RELAYED)
            yield Case(f"{name} then {spellings[0][0]}", header, spellings[0][1], Outcome.RELAYED)


# Look like 192.0.2.7, and are not.
_LOOKALIKES = [
    "192.0.2.6",
    "192.0.2.8",
    "192.0.3.7",
    "7.2.0.192",
    "192.0.2.70",
    "192.0.2.17",
    "192.0.20.7",
    "::ffff:192.0.2.6",
    "64:ff9b::192.0.2.6",
    "2002:c000:206::7",
    "2001:db8:65::c000:207",
    "2001:db8:4801:c000:2:700::",
    "2003:c000:207::1",
    "c000:207::",
    "2001:db8::192.0.2.7",
    "2001:db8::c000:207:0:0",
    "2001:db8::5efe:192.0.2.7",
    "2001:db8::200:5efe:192.0.2.7",
    "2001:db8:c000:207::",
]
# Nobody's addresses with 192.0.2.7 in them: they vouch for nobody, not even for themselves.
_NOBODYS = [
    "64:ff9b:2::c000:207",
    "64:ff9c::c000:207",
    "::192.0.2.7",
    "::ffff:0:192.0.2.7",
    "::fffe:192.0.2.7",
    "::1:ffff:192.0.2.7",
    "fe80::192.0.2.7",
    "fe80::5efe:192.0.2.7",
    "fe80:c000:207::",
    "2001:0:c000:207::1",
    "2001::3fff:fdf8",
    "2001:0:53aa:64c:0:0:3fff:fdf8",
    "ff02::c000:207",
]


def _neighbours() -> Iterator[Case]:
    for other in _LOOKALIKES:
        for write in (v1, v2):
            yield Case(f"login {HOME}, relay {other}", v1(HOME), write(other), Outcome.REFUSED)
        yield Case(f"login {other}, relay {HOME}", v2(other), v1(HOME), Outcome.REFUSED)
        yield Case(f"login and relay {other}", v1(other), v2(other), Outcome.RELAYED)
    for other in _NOBODYS:
        for relay in (HOME, other):
            yield Case(f"login {other}, relay {relay}", v2(other), v2(relay), Outcome.REFUSED)
        yield Case(f"login {HOME}, relay {other}", v2(HOME), v2(other), Outcome.REFUSED)


def _flipped_bits() -> Iterator[Case]:
    """Every address that differs in one bit."""
    home = IPv4Address(HOME)
    for bit in range(32):
        other = IPv4Address(int(home) ^ 1 << bit)
        yield Case(f"{home} then {other}", v2(HOME), v1(str(other)), Outcome.REFUSED)
        embedded = f"64:ff9b::{other}"
        yield Case(f"{home} then {embedded}", v2(HOME), v1(embedded), Outcome.REFUSED)
    home6 = IPv6Address(HOME6)
    for bit in range(128):
        other6 = IPv6Address(int(home6) ^ 1 << bit)
        outcome = Outcome.RELAYED if bit < 64 else Outcome.REFUSED
        yield Case(f"{home6} then {other6}", v1(HOME6), v2(str(other6)), outcome)


# Behind them many clients may look like one, or none can be.
_SHARED = [
    "127.0.0.1", "127.0.0.2", "127.255.255.255", "::1",
    "100.64.0.0", "100.64.0.1", "100.100.100.100", "100.127.255.255",
    "169.254.0.1", "169.254.169.254", "fe80::1", "fe80::ffff:c000:207", "febf::1",
    "0.0.0.0", "0.0.0.1", "0.255.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::2", "ff02::1", "ff0e::1",
    "2001::1", "2001:0:ffff:ffff::", "2001:0:53aa:64c:1c6f:3a3d:3fff:fdf8",
    "10.0.0.1", "10.19.255.255", "10.21.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255",
    "192.168.0.0", "192.168.255.255", "fc00::1", "fd00::1", "fd00:21::1", "fdff::1", "fec0::1",
    "203.0.113.0", "203.0.113.7", "203.0.113.255", "2001:db8:5a5a::1", "2001:db8:5a5a:ffff::1",
]  # fmt: skip


BLOCKED = [
    "198.51.100.66", "::ffff:198.51.100.66", "64:ff9b::198.51.100.66", "2002:c633:6442::1",
    "2001:db8:64::c633:6442", "2001:db8:bad::1", "2001:db8:bad::ffff:0:0:1",
]  # fmt: skip
"""Clients that lists.blocked is about."""


def _shared() -> Iterator[Case]:
    """A login from there vouches for nobody."""
    for address in _SHARED:
        for write in (v1, v2):
            yield Case(f"shared {address}", write(address), write(address), Outcome.REFUSED)


def _shared_embedded() -> Iterator[Case]:
    """Shared IPv4 addresses in their IPv6 spellings, and the spellings for each other."""
    for address in _SHARED:
        if ":" in address:
            continue
        packed = int(ip_address(address))
        for spelling in (
            f"::ffff:{address}",
            f"64:ff9b::{address}",
            f"2001:db8:64::{address}",
            f"2002:{packed >> 16:x}:{packed & 0xFFFF:x}::1",
        ):
            yield Case(f"shared {spelling}", v2(spelling), v2(spelling), Outcome.REFUSED)
            yield Case(f"{spelling} then {address}", v2(spelling), v1(address), Outcome.REFUSED)


# Just outside of what is shared, and what is said to grant.
_EDGES = [
    "126.255.255.255", "128.0.0.0", "100.63.255.255", "100.128.0.0", "169.253.255.255",
    "169.255.0.0", "1.0.0.0", "223.255.255.255", "9.255.255.255", "11.0.0.0", "172.15.255.255",
    "172.32.0.0", "192.167.255.255", "192.169.0.0", "203.0.112.255", "203.0.114.0",
    "10.20.0.0", "10.20.255.255", "fd00:20::1", "fd00:20:ffff::1", "2001:1::1",
    "2000:ffff::1", "2001:db8:5a59:ffff::1", "2001:db8:5a5b::1", "198.51.100.65",
    "198.51.100.67", "2001:db8:bad:1::1", "2001:db8:bac:ffff::1", "100:1::1", "3fff::1",
]  # fmt: skip


def _ranges_edges() -> Iterator[Case]:
    for address in _EDGES:
        yield Case(f"edge {address}", v1(address), v2(address), Outcome.RELAYED)


_ADDRESSES4 = ip_address(HOME).packed + b"\xc6\x33\x64\x19" + b"\x9c\x40\x00\x19"
_ADDRESSES6 = ip_address(HOME6).packed + bytes(15) + b"\x19" + b"\x9c\x40\x00\x19"

# The proxy does not say who the client is: it is nobody, whatever stands beside it.
_NOT_SAID = [
    ("UNKNOWN", b"PROXY UNKNOWN\r\n"),
    ("UNKNOWN with addresses", f"PROXY UNKNOWN {HOME} 198.51.100.25 40000 25\r\n".encode()),
    ("UNKNOWN with anything", b"PROXY UNKNOWN \xff\xfe".replace(b"\xff\xfe", b"x") + b"\r\n"),
    ("LOCAL", v2_raw(LOCAL, 0, b"")),
    ("LOCAL with addresses", v2_raw(LOCAL, TCP4, _ADDRESSES4)),
    ("LOCAL with IPv6 addresses", v2_raw(LOCAL, TCP6, _ADDRESSES6)),
    ("AF_UNSPEC", v2_raw(PROXY, 0x00, b"")),
    ("AF_UNSPEC with addresses", v2_raw(PROXY, 0x01, _ADDRESSES4)),
    ("AF_UNIX", v2_raw(PROXY, UNIX, HOME.encode().ljust(108, b"\0") + bytes(108))),
]


def _not_said() -> Iterator[Case]:
    for name, header in _NOT_SAID:
        yield Case(f"{name} after a login from {HOME}", v1(HOME), header, Outcome.REFUSED)
        yield Case(f"{name} after a login of the same kind", header, header, Outcome.REFUSED)
        yield Case(f"the proxy itself after {name}", header, v1("127.0.0.1"), Outcome.REFUSED)


# No header that a proxy writes. The connection ends before anything was said.
_SPELLED_WRONG = [
    "192.0.02.7", "192.0.2.07", "0192.0.2.7", "192.000.002.007", "0300.0.2.7", "0xc0.0.2.7",
    "0xC0000207", "3221225991", "030000001007", "192.0.519", "192.519", "192.0.2", "192.0.2.7.",
    ".192.0.2.7", "192.0.2.7.0", "192..2.7", "192.0.2.263", "192.0.2.-7", "+192.0.2.7",
    "192.0.2.7/32", "192.0.2.7:25", "192.0.2.7%eth0", "192.0.2.0x7", "192.0.2.7,192.0.2.7",
    "\uff11\uff19\uff12.0.2.7", "192\u30020\u30022\u30027", "\u0661\u0669\u0662.0.2.7", "localhost",
    "a.example", "[192.0.2.7]", '"192.0.2.7"',
    "192.0.2.7\0", "192.0.2.7\t", "192.0.2.7;", "",
]  # fmt: skip
_SPELLED_WRONG6 = [
    "fe80::1%eth0", "fe80::1%1", "2001:db8:1:2:3:4:5:6%0", "2001:db8:1:2::1%eth0",
    "::ffff:192.0.2.7%1", "[2001:db8:1:2::1]", "2001:db8:1:2::1/64", "2001:db8:1:2:::1",
    "2001:db8::1::2", "2001:db8:1:2:3:4:5", "2001:db8:1:2:3:4:5:6:7", "02001:db8:1:2::1",
    "2001:db8:1:2::10000", "2001:db8:1:2::g", "::ffff:192.0.02.7", "::ffff:0xc0.0.2.7",
    "::ffff:3221225991", "::ffff:192.0.2", "2001:db8:1:2:3:4:5:192.0.2.7", ":",
    "2001-db8-1-2--1.ipv6-literal.net",
]  # fmt: skip
_FORGED = [
    ("IPv6 as TCP4", v1(HOME6, family="TCP4")),
    ("mapped as TCP4", v1("::ffff:192.0.2.7", family="TCP4")),
    ("IPv4 as TCP6", v1(HOME, family="TCP6")),
    ("lower case", v1(HOME).lower()),
    ("no such family", v1(HOME).replace(b"TCP4", b"TCP5")),
    ("UDP4", v1(HOME).replace(b"TCP4", b"UDP4")),
    ("lower-case family", v1(HOME).replace(b"TCP4", b"tcp4")),
    ("two spaces", v1(HOME).replace(b"TCP4 ", b"TCP4  ")),
    ("a tab", v1(HOME).replace(b"TCP4 ", b"TCP4\t")),
    ("one word more", v1(HOME).replace(b"\r\n", b" 192.0.2.9\r\n")),
    ("one word less", f"PROXY TCP4 {HOME} 198.51.100.25 40000\r\n".encode()),
    ("bare line feed", v1(HOME).replace(b"\r\n", b"\n") + b"EHLO x\r\n"),
    ("bare carriage return", v1(HOME).replace(b"\r\n", b"\r") + b"EHLO x\r\n"),
    ("port with a zero before it", v1(HOME, port="040000")),
    ("port too large", v1(HOME, port="65536")),
    ("negative port", v1(HOME, port="-1")),
    ("no port", v1(HOME, port="")),
    ("port by name", v1(HOME, port="smtp")),
    ("hexadecimal port", v1(HOME, port="0x19")),
    ("too long", v1(HOME, port="4" * 80)),
    ("no header", b"HELO client.example.net\r\n"),
    ("no header, TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("a header of HTTP", b"X-Forwarded-For: 192.0.2.7\r\n"),
    ("the second line", b"\r\n" + v1(HOME)),
    ("a space before it", b" " + v1(HOME)),
    ("version 1 of v2", SIGNATURE + b"\x11\x11\x00\x0c" + _ADDRESSES4),
    ("version 3 of v2", SIGNATURE + b"\x31\x11\x00\x0c" + _ADDRESSES4),
    ("an unknown command", v2_raw(0x22, TCP4, _ADDRESSES4)),
    ("an unknown family", v2_raw(PROXY, 0x41, _ADDRESSES4)),
    ("UDP over IPv4", v2_raw(PROXY, 0x12, _ADDRESSES4)),
    ("UDP over IPv6", v2_raw(PROXY, 0x22, _ADDRESSES6)),
    ("no transport", v2_raw(PROXY, 0x10, _ADDRESSES4)),
    ("too short for IPv4", v2_raw(PROXY, TCP4, _ADDRESSES4[:11])),
    ("too short for IPv6", v2_raw(PROXY, TCP6, _ADDRESSES4)),
    ("no addresses", v2_raw(PROXY, TCP4, b"")),
    ("longer than may be", v2_raw(PROXY, TCP4, _ADDRESSES4, size=4081)),
    ("signature broken", b"\r\n\r\n\x00\r\nQUIT\r" + b"\x21\x11\x00\x0c" + _ADDRESSES4),
]


def _forged() -> Iterator[Case]:
    headers = [(f"{text!r}", v1(text, family="TCP4")) for text in _SPELLED_WRONG]
    headers += [(f"{text!r}", v1(text, family="TCP6")) for text in _SPELLED_WRONG6]
    for number, (name, header) in enumerate(headers + _FORGED):
        yield Case(f"{name} after a login from {HOME}", v1(HOME), header, Outcome.CUT)
        # Clients of their own: one that asks again and again would have to wait.
        client = str(IPv4Address("198.18.0.0") + number)
        header = header.replace(HOME.encode(), client.encode())  # noqa: PLW2901
        yield Case(f"{client} after a login as {name}", header, v1(client), Outcome.REFUSED, True)
    yield Case("v6 zone", v1(HOME6), v1(f"{HOME6}%2"), Outcome.CUT)
