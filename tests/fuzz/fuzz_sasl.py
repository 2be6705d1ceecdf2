"""Fuzz target: SASL exchanges from the first line to the last, and SCRAM's messages behind them."""

import base64
from collections.abc import Iterable, Iterator

from netmail_common.sasl import (
    AuthError,
    AuthMalformed,
    Challenge,
    Done,
    Mechanism,
    SaslExchange,
    Step,
    VerifyPassword,
    VerifyScramFirst,
    parse_client_first,
    prepare_password,
)
from netmail_common.sasl._exchange import decode_line
from netmail_nmap.domain.scram import ScramExchange, ScramMalformed, ScramProofWrong
from netmail_nmap.domain.users import ScramVerifier

_VERIFIER = ScramVerifier(b"s" * 16, 4096, b"k" * 32, b"v" * 32)
_MECHANISMS = list(Mechanism)


def seeds() -> Iterable[bytes]:
    """The mechanism by its first octet, then lines; a second octet says whether they are raw."""

    def of(mechanism: Mechanism, *lines: bytes, raw: bool = False) -> bytes:
        return bytes([_MECHANISMS.index(mechanism), raw]) + b"\n".join(lines)

    yield of(Mechanism.PLAIN, b"\0alice\0wonderland")
    yield of(Mechanism.PLAIN, b"alice\0alice\0wonderland")
    yield of(Mechanism.PLAIN, b"bob\0alice\0wonderland")
    yield of(Mechanism.PLAIN, b"AGFsaWNlAHdvbmRlcmxhbmQ=", raw=True)
    yield of(Mechanism.PLAIN, b"=", b"*", raw=True)
    yield of(Mechanism.PLAIN, b"AB==", raw=True)
    yield of(Mechanism.LOGIN, b"alice", b"wonderland")
    yield of(Mechanism.LOGIN, "j\u00fcrgen".encode(), "p\u00ad\u2168".encode())
    yield of(Mechanism.SCRAM_SHA_256, b"n,,n=alice,r=abc", b"c=biws,r=abcdef,p=AAAA", b"")
    yield of(Mechanism.SCRAM_SHA_256, b"y,,n=a=2Cb=3D,r=abc,x=1", b"c=eSws,r=abc,p=AA==")


def one_input(data: bytes) -> None:
    """An exchange ends in an AuthError or Done; what it wants verified is well-formed."""
    if len(data) < 2:
        return
    mechanism = _MECHANISMS[data[0] % len(_MECHANISMS)]
    raw = bool(data[1] & 1)
    lines = iter([line if raw else base64.b64encode(line) for line in data[2:].split(b"\n")])
    exchange = SaslExchange(mechanism)
    try:
        step = exchange.start(None if data[1] & 2 else next(lines))
        while not isinstance(step, Done):
            step = _answer(exchange, step, lines)
    except AuthError:
        return


def _answer(exchange: SaslExchange, step: Step, lines: Iterator[bytes]) -> Step:
    if isinstance(step, Challenge):
        base64.b64decode(step.encoded, validate=True)
        line = next(lines, b"*")
        if line != b"*":
            _check_line(line)
        return exchange.feed(line)
    if isinstance(step, VerifyPassword):
        _check_credentials(step)
    elif isinstance(step, VerifyScramFirst):
        _check_scram(step.message)
    return exchange.accepted(b"v=x")


def _check_line(line: bytes) -> None:
    try:
        decoded = decode_line(line)
    except AuthError:
        return
    assert base64.b64encode(decoded) == line


def _check_credentials(step: VerifyPassword) -> None:
    assert 1 <= len(step.username.encode()) <= 255
    assert not any(ord(character) < 0x20 for character in step.username)
    assert step.password
    assert "\0" not in step.password
    prepared = prepare_password(step.password)
    assert prepared


def _check_scram(message: bytes) -> None:
    try:
        first = parse_client_first(message)
        exchange = ScramExchange(first, _VERIFIER)
    except (AuthMalformed, ScramMalformed):
        return
    assert 1 <= len(first.username.encode()) <= 255
    assert exchange.server_first.startswith(b"r=" + first.nonce.encode())
    head, _, _ = exchange.server_first.partition(b",")
    flag = base64.b64encode(message[:1] + b",,")
    for final in (b"c=%b,%b,p=%b" % (flag, head, base64.b64encode(b"p" * 32)), message):
        try:
            exchange.finish(final)
        except (ScramMalformed, ScramProofWrong):
            continue
        raise AssertionError("nobody's proof was accepted")
