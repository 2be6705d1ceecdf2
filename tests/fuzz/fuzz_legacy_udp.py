"""Fuzz target: datagrams to UDP port 689, of both protocols in every layout."""

import hashlib
from collections.abc import Iterable, Iterator

from netmail_connmgr.protocol.legacy_udp import (
    Connect,
    Handshake,
    PlainEnquiry,
    Reception,
    Refused,
    Register,
    Relay,
    Reply,
    Request,
)

_SECRET = bytes(range(1, 129))
_AGENT = bytes([198, 51, 100, 7])
_NOW = 1_800_000_123.0
_HANDSHAKE = Handshake(_SECRET)
_BOTH = Reception(with_plain=True, handshake=_HANDSHAKE)
_NEITHER = Reception(with_plain=False, handshake=None)
_ADDRESS = bytes([192, 0, 2, 1])
_RESULTS = frozenset({0, 1, 2, 3, 4, 100, 101, 102, 103, 104, 105, 106, 200})
_LAYOUTS = [(4, "little"), (4, "big"), (8, "little"), (8, "big")]
_PASSWORDS = {
    hashlib.md5(_HANDSHAKE.salt(_AGENT, when) + _SECRET, usedforsecurity=False).hexdigest().encode()
    for when in (_NOW, _NOW - 300)
}


def seeds() -> Iterable[bytes]:
    """Every kind of request in every layout, with the right password and without."""
    for word, order in _LAYOUTS:
        yield from _plain(word, order)
        for password in (b"", min(_PASSWORDS)):
            for command, event in (
                (1, b"RELAY"),
                (1, b"CONNECT"),
                (2, b"AUTHENTICATED"),
                (2, b"Received"),
                (7, b""),
            ):
                yield _authenticated(word, order, password, command, event)
            login = _authenticated(word, order, password, 2, b"AUTHENTICATED")
            yield login.replace(b"alice" + bytes(252), b"x" * 256 + b"\0")


def one_input(data: bytes) -> None:
    """A datagram is refused or is one request; what is answered is whole and no amplifier."""
    answers = _answers(_receive(_BOTH, data), data)
    for answer in answers:
        if len(data) in {344, 368}:
            assert len(answer) == (396 if len(data) == 344 else 400)
            assert _number(answer, len(data) == 368) in _RESULTS
            assert b"\0" in answer[-260:][:257]
        else:
            assert len(answer) == len(data) in {276, 296}
        assert isinstance(_receive(_BOTH, answer), Refused), "answers must not be answered"
    nothing = _receive(_NEITHER, data)
    assert isinstance(nothing, Refused)
    assert nothing.reply is None


def _answers(got: Request | Refused, data: bytes) -> Iterator[bytes]:
    """Everything that could be answered to it."""
    authenticated = len(data) in {344, 368}
    known = authenticated and data[:32].lower() in _PASSWORDS
    if isinstance(got, Refused):
        assert got.reply is None or known
        yield from filter(None, [got.reply])
        return
    assert authenticated <= (known or isinstance(got, Reply)), "nothing without the password"
    if isinstance(got, Reply):
        assert authenticated
        assert known == (_number(got.data, len(data) == 368) != 4)
        yield got.data
        return
    _check_address(got.address, data)
    if isinstance(got, Register):
        name = got.name.encode()
        assert len(name) <= 255
        assert name + b"\0" in data if authenticated else len(data) - len(name) in {20, 40}
        yield from filter(None, [got.done(), got.failed(), got.refused()])
    elif isinstance(got, Connect):
        yield from (got.allowed(), got.allowed("No name", require_auth=True))
        yield got.denied("x" * 300, permanently=True)
    else:
        yield from _enquiry_answers(got)


def _check_address(address: bytes, data: bytes) -> None:
    """It stands where it belongs; a long field has nothing in its other half."""
    assert len(address) == 4
    fields = {344: [data[40:44]], 368: [data[48:56]]}.get(len(data), [data[4:8], data[8:16]])
    assert any(address in {field, field[:4], field[4:]} for field in fields)
    assert len(data) in {344, 368} or any(address)
    if len(data) == 368:
        assert not (any(fields[0][:4]) and any(fields[0][4:]))


def _enquiry_answers(got: PlainEnquiry | Relay) -> Iterator[bytes]:
    yield from (got.unknown(), got.known(""), got.known("n" * 255))
    unavailable = got.unavailable()
    if unavailable is not None:
        yield unavailable


def _receive(reception: Reception, data: bytes) -> Request | Refused:
    try:
        return reception.receive(data, _AGENT, _NOW)
    except Refused as refused:
        return refused


def _number(answer: bytes, is_long: bool) -> int:
    """The result, in whichever byte order makes it small."""
    field = answer[: 8 if is_long else 4]
    return min(int.from_bytes(field, "little"), int.from_bytes(field, "big"))


def _long(value: int, word: int, order: str) -> bytes:
    return value.to_bytes(word, "little" if order == "little" else "big")


def _address(word: int, order: str) -> bytes:
    number = int.from_bytes(_ADDRESS, "little" if order == "little" else "big")
    return _long(number, word, order)


def _plain(word: int, order: str) -> Iterator[bytes]:
    names = (b"alice", b"", b"n" * 20, b"x" * 255, b"x" * 256)
    for number, name in ((0, None), (1, None), (3, None), *((2, name) for name in names)):
        head = _long(number, word, order) + _address(word, order)
        head += _long(len(name or b""), word, order) + bytes(word)
        if name is not None or not number:
            yield head + (name or b"") + bytes(word)
        else:
            yield head.ljust(5 * word + 256, b"\xa5")


def _authenticated(word: int, order: str, password: bytes, command: int, event: bytes) -> bytes:
    data = password.ljust(40 if word == 8 else 36, b"\0") + _long(command, word, order)
    data += _address(word, order) + bytes(17) + event.ljust(17, b"\0")
    data = data.ljust(96 if word == 8 else 80, b"\0") + b"alice"
    return data.ljust(368 if word == 8 else 344, b"\0")
