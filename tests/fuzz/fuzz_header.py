"""Fuzz target: the header scan, and the message with our header fields before it."""

import re
from collections.abc import Iterable

from netmail_common.header import scan_header
from netmail_smtp.domain.relay import KnownSender, Way
from netmail_smtp.domain.trace import Hop, stamp_message

_HOP = Hop(
    helo='odd"(name)\\',
    client_address="2001:db8::1",
    host_name="mx.example.org",
    protocol="ESMTP",
    message_id="0123456789ab-0123456789abcdef",
    known=KnownSender(Way.AUTH, "alice", "users.demo", "SMTP AUTH PLAIN"),
    recipient="bob@example.org",
    now=0.0,
)

_HELO = b'[IPv6:2001:db8::1] (HELO odd\\"\\(name\\)\\\\)'
_TAKEN_OUT = re.compile(rb"(?:x-auth-[!-9;-~]*|bcc)[ \t]*:", re.IGNORECASE)


def seeds() -> Iterable[bytes]:
    """Messages; what is forged in them must not survive."""
    yield b"From: a@b\r\nTo: c@d\r\nSubject: x\r\n y\r\n\tz\r\n\r\nbody\r\n"
    yield b"X-Auth-OK: mallory\r\nx-auth-ok : m\r\nX-AUTH-FOO:\r\n m\r\nFrom: a\r\n\r\nX-Auth-OK: b"
    yield b" X-Auth-OK: mallory\r\n\r\nbody"
    yield b"\r\nX-Auth-OK: in the body\r\n"
    yield b"no field\r\nX-Auth-OK: m\r\n\r\n"
    yield b"A: 1\r\nno field\r\nX-Auth-OK: m\r\nBcc: secret@x\r\nBCC : y\r\n z\r\n\r\n"
    yield b"From : a\r\n: b\r\n\x00: c\r\n\r\n"
    yield b""


def one_input(data: bytes) -> None:
    """Nothing but whole fields is taken out, and what is ours stays ours."""
    message = data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    header = scan_header(message)
    assert header.body == len(message) or message[header.end : header.body] == b"\r\n"
    for submission in (False, True):
        octets = b"".join(stamp_message(header, _HOP, submission=submission))
        _check(octets, message, header.body, submission=submission)


def _check(octets: bytes, message: bytes, body: int, *, submission: bool) -> None:
    lines = octets.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0] == b"Received: from " + _HELO + b" ([IPv6:2001:db8::1])"
    # No line continues our last field, and no other trace of that kind is left.
    ours = lines.index(b"X-Auth-OK: alice")
    assert not any(line.startswith((b" ", b"\t")) for line in lines[ours + 1 : ours + 2])
    names = [line.partition(b":")[0].rstrip(b" \t").lower() for line in lines if b":" in line]
    assert sum(re.fullmatch(rb"x-auth-[!-~]+", name) is not None for name in names) == 1
    if submission:
        assert b"bcc" not in names
    # Whatever else the header had is still there, in its order.
    kept, position = octets.split(b"\r\n"), 0
    for line in message[:body].split(b"\r\n"):
        if line and line[:1] not in b" \t" and not _TAKEN_OUT.match(line):
            position = kept.index(line, position) + 1
