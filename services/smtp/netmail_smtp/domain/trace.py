"""What the SMTP Agent writes into a message: Received, X-Auth-OK, on submission what is missing.

Fields are put before the message or taken out whole; every other octet stays.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import Header as EncodedHeader
from email.utils import formatdate

from netmail_common.header import Header, HeaderField
from netmail_common.mail_address import AddressError, parse_domain

from netmail_smtp.domain.relay import KnownSender, Way
from netmail_smtp.domain.user_word import HASH_FIELD
from netmail_smtp.protocol.reply import MessageRefused

_FORGED_PREFIX = "x-auth-"


@dataclass(frozen=True, slots=True)
class Hop:
    """How the message reached us.

    Attributes:
        helo: the client's EHLO or HELO name, whatever it may be.
        client_address: its address.
        host_name: ours.
        protocol: the Received `with` value.
        message_id: the queue's.
        known: who sent it, if it is relayed or submitted for somebody.
        recipient: the only recipient, else empty.
        now: seconds since the epoch.
        user_word: stands for the user's name in what remote recipients see; empty: the name does.
    """

    helo: str
    client_address: str
    host_name: str
    protocol: str
    message_id: str
    known: KnownSender | None
    recipient: str
    now: float
    user_word: str = ""


def with_protocol(*, extended: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The Received `with` value (RFC 3848; RFC 6531 4.3 for SMTPUTF8)."""
    if not extended:
        # There is no value for HELO over TLS; TLS needs EHLO, so it takes a client to mix both.
        return "SMTP"
    name = "UTF8SMTP" if smtputf8 else "ESMTP"
    return f"{name}{'S' if tls else ''}{'A' if authenticated else ''}"


def stamp_message(header: Header, hop: Hop, *, submission: bool) -> list[bytes]:
    """The pieces of the message's header with ours before it; the body follows unchanged.

    Args:
        header: the message's, scanned.
        hop: how it came.
        submission: Date and Message-ID are added, Bcc is removed.
    """
    pieces = [_received(hop)]
    if hop.known is not None and hop.known.user:
        pieces.append(b"X-Auth-OK: " + _field_text(hop.known.user) + b"\r\n")
        if hop.user_word:
            pieces.append(HASH_FIELD + b": " + hop.user_word.encode() + b"\r\n")
    if not header.begins_with_field:
        # Its first line must neither continue our last field nor hide fields behind it.
        if header.data[:2] != b"\r\n":
            pieces.append(b"\r\n")
        pieces.append(header.data[: header.body])
        return pieces
    if submission:
        pieces.extend(_missing_fields(header, hop))
    pieces.extend(header.without(_removed(header, submission=submission)))
    pieces.append(header.data[header.end : header.body])
    return pieces


def check_hops(header: Header, limit: int) -> None:
    """Detects loops by the number of Received fields (RFC 5321 6.3).

    Raises: MessageRefused: 554 5.4.6.
    """
    if header.count("received") > limit:
        raise MessageRefused(554, "5.4.6", "Too many hops: the message is in a loop")


def _removed(header: Header, *, submission: bool) -> Iterator[HeaderField]:
    for field in header.fields:
        if field.name.startswith(_FORGED_PREFIX) or (submission and field.name == "bcc"):
            yield field


def _missing_fields(header: Header, hop: Hop) -> Iterator[bytes]:
    if not header.count("date"):
        yield f"Date: {_utc(hop.now)}\r\n".encode()
    if not header.count("message-id"):
        yield f"Message-ID: <{hop.message_id}@{hop.host_name}>\r\n".encode()


def _received(hop: Hop) -> bytes:
    literal = address_literal(hop.client_address)
    lines = [f"Received: from {_helo(hop.helo, literal)} ({literal})"]
    known = hop.known
    if known is not None:
        lines.append(f"\t({_recognised(known, hop.user_word)})")
    lines.append(f"\tby {hop.host_name} with {hop.protocol} id {hop.message_id}")
    if hop.recipient and hop.recipient.isascii():
        lines.append(f"\tfor <{hop.recipient}>")
    return ("\r\n".join(lines) + f";\r\n\t{_date(int(hop.now))}\r\n").encode()


def _recognised(known: KnownSender, user_word: str) -> str:
    if known.way is Way.NETWORK:
        return "relayed for an allowed network"
    text = f"known by {known.detail}"
    if known.user:
        name = user_word or comment_text(f"{known.user} of {known.context}")
        text = f"user {name}, {text}"
    if known.user_count > 1:
        text += f", one of {known.user_count} users at this address"
    return text


def address_literal(address: str) -> str:
    """The address as RFC 5321 4.1.3 writes it."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _helo(name: str, literal: str) -> str:
    """How Received names the client.

    A domain or an address literal stands as it is; else its address, and what it called itself in
    a comment.
    """
    try:
        parse_domain(name)
    except AddressError:
        return f"{literal} (HELO {comment_text(name)})"
    if name.isascii():
        return name
    return f"{literal} (HELO {comment_text(name)})"


def comment_text(text: str) -> str:
    """Text from outside as it may stand in a comment: specials quoted, the rest replaced."""
    return "".join(_comment_character(character) for character in text[:255])


def _comment_character(character: str) -> str:
    if character in '()\\"':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return "?"


def _field_text(text: str) -> bytes:
    """A user's name as unstructured text; beyond ASCII as encoded words (RFC 2047)."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return EncodedHeader(text, "utf-8", maxlinelen=10_000).encode().encode("ascii", "replace")


_last_date = (-1, "")


def _date(now: int) -> str:
    global _last_date  # noqa: PLW0603 - one formatted date a second instead of one a message
    second, text = _last_date
    if second != now:
        text = _utc(now)
        _last_date = (now, text)
    return text


def _utc(seconds: float) -> str:
    """The date of RFC 5322 3.3; the zone is ours, so it is +0000, not -0000."""
    return formatdate(seconds)[:-5] + "+0000"


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
