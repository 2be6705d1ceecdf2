"""Fuzz target: commands and BDAT chunks in one stream; every octet belongs to one of them."""

from collections.abc import Iterable

from netmail_smtp.protocol.commands import Bdat, parse_command
from netmail_smtp.protocol.data import ChunkReader, ContentCheck, SizeState
from netmail_smtp.protocol.framing import InputBuffer, LineTooLong
from netmail_smtp.protocol.reply import MessageRefused, SmtpError

_LIMIT = 100


def seeds() -> Iterable[bytes]:
    """Streams of chunks. The first octet is the piece size."""
    yield b"\x40BDAT 5\r\nhelloBDAT 0 LAST\r\nNOOP\r\n"
    yield b"\x01BDAT 7\r\na\r\n\r\nb\rBDAT 3 LAST\r\n\nc\n"
    yield b"\x03BDAT 26\r\nMAIL FROM:<evil@x.test>\r\nRSET\r\nBDAT 150\r\n" + b"x" * 150
    yield b"\x02BDAT\r\nBDAT -1\r\nBDAT 1 LAST LAST\r\nbdat 2 last\r\n\r\nQUIT\r\n"


def one_input(data: bytes) -> None:
    """Cuts the stream in pieces and whole: the same commands, the same content."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    in_pieces, whole = _run(pieces), _run([octets])
    assert in_pieces == whole
    used = sum(len(line) + 2 for line in whole[0]) + sum(map(len, whole[1]))
    assert used + whole[2] == len(octets)
    content = b"".join(whole[1])
    left = content.replace(b"\r\n", b"")
    assert _is_clean(in_pieces[1]) == (b"\r" not in left and b"\n" not in left)


def _is_clean(chunks: Iterable[bytes]) -> bool:
    check = ContentCheck(0)
    for chunk in chunks:
        check.feed(chunk)
    try:
        check.finish()
    except MessageRefused:
        return False
    return True


def _run(pieces: Iterable[bytes]) -> tuple[list[bytes], list[bytes], int]:
    """Command lines, chunks (the last one perhaps unfinished), octets that wait."""
    lines: list[bytes] = []
    chunks: list[bytes] = []
    buffer = InputBuffer(10_000)
    chunk: ChunkReader | None = None
    check = ContentCheck(_LIMIT)
    for piece in pieces:
        buffer.feed(piece)
        while True:
            if chunk is not None and chunk.remaining:
                content = chunk.feed(buffer.take(chunk.remaining))
                chunks[-1] += content
                state = check.feed(content)
                assert (state is SizeState.FITS) == (check.size <= _LIMIT)
                if chunk.remaining:
                    break
                continue
            try:
                line = buffer.take_line()
            except LineTooLong:
                raise AssertionError("no line here is that long") from None
            if line is None:
                break
            lines.append(line)
            try:
                _, command = parse_command(line)
            except SmtpError:
                continue
            if isinstance(command, Bdat):
                chunk = ChunkReader(command.size)
                chunks.append(b"")
    return lines, chunks, len(buffer)
