"""Fuzz target: WHOSON requests and replies (netmail_connmgr.protocol.whoson)."""

from collections.abc import Iterable

from netmail_connmgr.protocol.whoson import (
    MAX_REQUEST,
    BadRequest,
    Request,
    RequestReader,
    Sign,
    Verb,
    reply,
)


def seeds() -> Iterable[bytes]:
    """Dialogues. The first octet is the piece size."""
    yield b"\x40LOGIN 192.0.2.1 alice\r\n\r\nQUERY 192.0.2.1\r\n\r\nQUIT\r\n\r\n"
    yield b"\x01LOGOUT 2001:db8::1\n\n\r\n\r\nQUERY ::ffff:192.0.2.1\r\n\n"
    yield b"\x03LOGIN fe80::1%eth0 a b\xc3\xab\r\n\r\nLOGIN 192.0.2.01 \xff\r\n\r\n"
    yield b"\xffLOGIN 192.0.2.1 " + b"x" * 1100 + b"\r\n\r\nQUIT\r\n\r\n"
    yield b"\x07QUERY 1\r\nQUERY 192.0.2.1\r\n\r\nHELO\r\n\r\nquit\n\r\n"


def one_input(data: bytes) -> None:
    """Every rule that must hold whatever a client sends."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    found = _read(pieces)
    assert found == _read([octets])
    blocks = octets.replace(b"\r\n", b"\n").split(b"\n\n")
    for request in found:
        if isinstance(request, Request) and request.verb is not Verb.QUIT:
            assert len(request.address) in {4, 16}
            # It stands in one block of its own: nobody's line became another one's.
            assert any(_has_words(block, request) for block in blocks)
    answer = reply(Sign.NO, octets.decode("latin-1"))
    assert answer.endswith(b"\r\n\r\n")
    assert not set(answer[:-4]) & set(b"\r\n\0")


def _read(pieces: list[bytes]) -> list[Request | str]:
    reader = RequestReader()
    found: list[Request | str] = []
    for piece in pieces:
        reader.feed(piece)
        while True:
            try:
                request = reader.next_request()
            except BadRequest as error:
                found.append(str(error))
                continue
            if request is None:
                break
            found.append(request)
    assert reader.broken == (found[-1:] == ["request too long"])
    assert not (reader.broken and reader.pending)
    return found


def _has_words(block: bytes, request: Request) -> bool:
    lines = [line for line in block.split(b"\n") if line]
    if len(lines) != 1 or len(lines[0]) > MAX_REQUEST:
        return False
    words = lines[0].decode(errors="replace").split(None, 2)
    if not words or words[0].upper() != request.verb.value:
        return False
    user = words[2].rstrip() if len(words) > 2 else ""
    return request.verb is not Verb.LOGIN or user == request.user
