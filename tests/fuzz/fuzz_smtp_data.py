"""Fuzz target: where the content after DATA ends, and whether it has a bare CR or LF."""

from collections.abc import Iterable

from netmail_smtp.protocol.data import ContentCheck, DotReader
from netmail_smtp.protocol.reply import MessageRefused


def seeds() -> Iterable[bytes]:
    """Endings that others took for one. The first octet is the piece size."""
    yield b"\x40From: a@b\r\n\r\nHello\r\n.\r\nMAIL FROM:<c@d>\r\n"
    yield b"\x01..a\r\n...\r\n.b\r\n\r\n.\r\n"
    yield b"\x02.\r\nNOOP\r\n"
    yield b"\x03a\n.\nb\r.\rc\n.\r\nd\r\n.\ne\r\n.\rf\r\n.\r\n"
    yield b"\x05a\r\r\n.\r\r\n.\0\r\n\r\n.\r\n.\r\n"


def one_input(data: bytes) -> None:
    """Agrees with a reader that goes octet by octet."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    reader, check = DotReader(), ContentCheck(0)
    content, rest = b"", None
    for at in range(0, len(octets), size):
        piece = octets[at : at + size]
        if rest is not None:
            rest += piece
            continue
        more, rest = reader.feed(piece)
        check.feed(more)
        content += more
    expected, expected_rest = _octet_by_octet(octets)
    assert rest == expected_rest
    if rest is None:
        # What may be the beginning of the end is held back.
        assert expected.startswith(content)
        assert len(expected) - len(content) <= 4
        return
    assert content == expected
    try:
        check.finish()
        clean = True
    except MessageRefused:
        clean = False
    left = content.replace(b"\r\n", b"")
    assert clean == (b"\r" not in left and b"\n" not in left)


def _octet_by_octet(octets: bytes) -> tuple[bytes, bytes | None]:
    lines: list[bytes] = []
    line, at = bytearray(), 0
    while at < len(octets):
        line.append(octets[at])
        at += 1
        if line.endswith(b"\r\n"):
            if line == b".\r\n":
                return b"".join(lines), octets[at:]
            lines.append(bytes(line[1:] if line.startswith(b".") else line))
            line.clear()
    return b"".join(lines) + bytes(line[1:] if line.startswith(b".") else line), None
