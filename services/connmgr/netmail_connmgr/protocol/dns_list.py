"""A DNS list of the addresses that may relay (RFC 5782): wire format and names, no sockets.

`4.3.2.1.ZONE` is about 1.2.3.4; an IPv6 address is written as its 32 hexadecimal digits, the last
one first. Listed ones have A 127.0.0.2, all others do not exist. Of RFC 5782 5 the test entry
127.0.0.2 is left out: here a listed address may relay, and loopback never may.
"""

import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

__all__ = ["Done", "ListZone", "Lookup", "StreamReader", "to_datagram", "to_stream"]

_HEADER = 12
_LISTED = "127.0.0.2"
_OUR_PAYLOAD = 1232
"""Octets of a datagram that we send at most (DNS flag day 2020)."""
_MIN_PAYLOAD = 512
_MAX_TCP = 65_535
_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})
_DIGITS = frozenset("0123456789abcdef")
_V4_LABELS, _V6_LABELS = 4, 32
_MAX_STRING = 255


@dataclass(frozen=True, slots=True)
class Done:
    """A query that is answered whatever the table says.

    Attributes:
        payload: octets of a datagram that its asker takes; 0: it did not say.
    """

    response: dns.message.Message
    payload: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """A query about a client.

    Attributes:
        query: the message.
        address: 4 or 16 octets.
    """

    query: dns.message.QueryMessage
    address: bytes

    @property
    def payload(self) -> int:
        """Octets of a datagram that its asker takes; 0: it did not say."""
        return self.query.payload

    @property
    def wants_text(self) -> bool:
        """Whether TXT is asked for."""
        return self.query.question[0].rdtype == dns.rdatatype.TXT


class ListZone:
    """Reads queries and makes answers for one zone.

    Args:
        zone: its name.
        ttl: seconds, of answers and of their absence.
        txt: TXT records give the user's name.
    """

    def __init__(self, zone: str, *, ttl: int, txt: bool) -> None:
        self._zone = dns.name.from_text(zone)
        self._ttl = ttl
        self._txt = txt
        self._soa = dns.rrset.from_text(
            self._zone,
            ttl,
            "IN",
            "SOA",
            f"{self._zone} hostmaster.{self._zone} 1 3600 600 86400 {ttl}",
        )

    def read(self, wire: bytes) -> Lookup | Done | None:
        """Reads a query; None: it gets no answer at all."""
        if len(wire) < _HEADER or wire[2] & 0x80:
            return None
        if (wire[2] >> 3) & 15 != dns.opcode.QUERY:
            return Done(_bare(wire, dns.rcode.NOTIMP))
        try:
            query = dns.message.from_wire(wire)
            return self._read(query) if isinstance(query, dns.message.QueryMessage) else None
        except (dns.exception.DNSException, ValueError, IndexError, struct.error):
            return Done(_bare(wire, dns.rcode.FORMERR))

    def answer(self, lookup: Lookup, user: str | None) -> dns.message.Message:
        """The answer about a client: a USER known from there (maybe without a name), or None."""
        query = lookup.query
        question = query.question[0]
        response = _response(query)
        if user is None:
            return self._nothing(response, exists=_may_have_children(question.name, self._zone))
        if question.rdtype in {dns.rdatatype.A, dns.rdatatype.ANY}:
            data = _LISTED
        elif lookup.wants_text and self._txt and user:
            data = _strings(user)
        else:
            return self._nothing(response, exists=True)
        kind = "TXT" if lookup.wants_text else "A"
        response.answer.append(dns.rrset.from_text(question.name, self._ttl, "IN", kind, data))
        return response

    def unknown(self, lookup: Lookup) -> dns.message.Message:
        """SERVFAIL: nobody could say."""
        response = _response(lookup.query)
        response.flags &= ~dns.flags.AA
        response.set_rcode(dns.rcode.SERVFAIL)
        return response

    def _read(self, query: dns.message.QueryMessage) -> Lookup | Done:
        if len(query.question) != 1:
            return Done(_refusal(query, dns.rcode.FORMERR), query.payload)
        if query.edns > 0:
            return Done(_refusal(query, dns.rcode.BADVERS), query.payload)
        question = query.question[0]
        in_zone = question.name.is_subdomain(self._zone)
        if question.rdclass != dns.rdataclass.IN or not in_zone or question.rdtype in _TRANSFERS:
            return Done(_refusal(query, dns.rcode.REFUSED), query.payload)
        labels = _labels(question.name, self._zone)
        address = _address(labels)
        if address is not None:
            return Lookup(query, address)
        response = _response(query)
        if not labels and question.rdtype in {dns.rdatatype.SOA, dns.rdatatype.ANY}:
            response.answer.append(self._soa)
            return Done(response, query.payload)
        return Done(self._nothing(response, exists=_is_beginning(labels)), query.payload)

    def _nothing(self, response: dns.message.Message, *, exists: bool) -> dns.message.Message:
        """No such record, or no such name; how long that counts stands in the SOA (RFC 2308)."""
        response.authority.append(self._soa)
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def to_datagram(response: dns.message.Message, payload: int) -> bytes:
    """A response as a datagram; one that is too long for the asker's PAYLOAD is cut (TC)."""
    limit = min(max(payload, _MIN_PAYLOAD), _OUR_PAYLOAD)
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def to_stream(response: dns.message.Message) -> bytes:
    """A response with its length before it, as TCP carries it (RFC 1035 4.2.2)."""
    wire = response.to_wire(max_size=_MAX_TCP)
    return struct.pack("!H", len(wire)) + wire


class StreamReader:
    """Parts what TCP brings into messages (RFC 1035 4.2.2)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Takes what has arrived."""
        self._buffer += data

    def next_message(self) -> bytes | None:
        """The next complete message; None: more octets are needed."""
        if len(self._buffer) < 2:
            return None
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[2:end])
        del self._buffer[:end]
        return message


def _labels(name: dns.name.Name, zone: dns.name.Name) -> list[str]:
    """The labels before the zone, the one next to it first, in lower case."""
    own = name.labels[: len(name.labels) - len(zone.labels)]
    return [label.decode("latin-1").lower() for label in reversed(own)]


def _address(labels: list[str]) -> bytes | None:
    """The address that a name is about, if it is a whole one in its one spelling."""
    if len(labels) == _V4_LABELS and all(map(_is_octet, labels)):
        return bytes(map(int, labels))
    if len(labels) == _V6_LABELS and all(map(_is_digit, labels)):
        return bytes.fromhex("".join(labels))
    return None


def _is_beginning(labels: list[str]) -> bool:
    """Whether names of addresses can stand below.

    A resolver may ask its way down to them (RFC 9156), and hears NXDOMAIN as "nothing below
    either" (RFC 8020).
    """
    if len(labels) < _V4_LABELS and all(map(_is_octet, labels)):
        return True
    return len(labels) < _V6_LABELS and all(map(_is_digit, labels))


def _may_have_children(name: dns.name.Name, zone: dns.name.Name) -> bool:
    """Whether an IPv4 address's name is the beginning of an IPv6 address's too."""
    return _is_beginning(_labels(name, zone))


def _is_octet(label: str) -> bool:
    if not (label.isascii() and label.isdigit() and len(label) <= 3):
        return False
    return int(label) <= 255 and (label == "0" or label[0] != "0")


def _is_digit(label: str) -> bool:
    return label in _DIGITS


def _strings(text: str) -> str:
    """Text in TXT's own spelling, in strings of at most 255 octets."""
    octets = text.encode()
    parts = [octets[at : at + _MAX_STRING] for at in range(0, len(octets), _MAX_STRING)]
    return " ".join('"' + "".join(f"\\{octet:03d}" for octet in part) + '"' for part in parts)


def _response(query: dns.message.QueryMessage) -> dns.message.Message:
    response = dns.message.make_response(query, our_payload=_OUR_PAYLOAD)
    response.flags |= dns.flags.AA
    return response


def _refusal(query: dns.message.QueryMessage, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, our_payload=_OUR_PAYLOAD)
    response.set_rcode(rcode)
    return response


def _bare(wire: bytes, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """A response of a header only, to what could not be read."""
    response = dns.message.Message(id=int.from_bytes(wire[:2], "big"))
    response.flags = dns.flags.QR | ((wire[2] << 8) & (0x7800 | dns.flags.RD))
    response.set_rcode(rcode)
    return response
