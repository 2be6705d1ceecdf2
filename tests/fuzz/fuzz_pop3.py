"""Fuzz target: POP3 command lines, byte-stuffing and TOP (netmail_pop_imap.protocol.pop3)."""

from collections.abc import Iterable

from netmail_pop_imap.protocol import pop3
from netmail_pop_imap.protocol.errors import LineTooLong, ReplyError


def seeds() -> Iterable[bytes]:
    """Whole sessions, and messages with dots in every place. The first octet is the piece size."""
    yield b"\x40CAPA\r\nUSER alice\r\nPASS wonder land\r\nSTAT\r\nLIST\r\nLIST 1\r\nQUIT\r\n"
    yield b"\x03AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=\r\nAUTH SCRAM-SHA-256\r\n*\r\nSTLS\r\n"
    yield b"\x01RETR 1\r\nTOP 1 10\r\nDELE 2\r\nRSET\r\nUIDL\r\nUTF8\r\nNOOP\r\n"
    yield b"\x02From: a\r\nTo: b\r\n\r\n.\r\n..\r\n.a\r\n\n.\n\r.\r\n"
    yield b"\x07QUIT\nQUIT\rRETR \xb2\r\nRETR 99999999999\r\nPASS \xff\r\n\0\r\n"


def one_input(data: bytes) -> None:
    """Every rule that must hold whatever a client or a message contains."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    _read_commands(pieces)
    _stuff(octets, pieces)
    _top(octets, pieces)


def _read_commands(pieces: list[bytes]) -> None:
    """Lines come out as a split at CRLF gives them, until one is too long."""
    wanted = b"".join(pieces).split(b"\r\n")
    reader = pop3.LineReader(limit=512)
    lines: list[bytes] = []
    too_long = False
    for piece in pieces:
        reader.feed(piece)
        try:
            while (line := reader.next_line()) is not None:
                lines.append(line)
        except LineTooLong:
            too_long = True
            break
        assert len(reader) <= 512
    assert lines == wanted[: len(lines)]
    assert too_long or len(lines) == len(wanted) - 1
    for line in lines:
        _use(line)


def _use(line: bytes) -> None:
    try:
        command = pop3.parse_command(line)
    except ReplyError as error:
        _check_reply(error)
        return
    assert not set(line) & set(b"\r\n\0")
    assert command.verb.isascii()
    assert command.verb.isalnum()
    for use in (command.text, command.number, command.optional_number, command.no_argument):
        try:
            use()
        except ReplyError as error:
            _check_reply(error)


def _check_reply(error: ReplyError) -> None:
    reply = error.pop3_reply()
    assert reply.startswith(b"-ERR "), reply
    assert reply.find(b"\r\n") == len(reply) - 2, reply
    assert b"\n" not in reply[:-2], reply


def _stuff(octets: bytes, pieces: list[bytes]) -> None:
    stuffer = pop3.DotStuffer()
    wire = b"".join([*(stuffer.feed(piece) for piece in pieces), stuffer.finish()])
    lines = wire.split(b"\n")
    assert lines[-1] == b""
    assert lines[-2] == b".\r"
    assert not any(line in {b".", b".\r"} for line in lines[:-2])
    back = b"\n".join(line[1:] if line.startswith(b".") else line for line in lines[:-2])
    whole = back + b"\n" if lines[:-2] else b""
    assert whole in {octets, octets + b"\r\n"}


def _top(octets: bytes, pieces: list[bytes]) -> None:
    cutter = pop3.TopCutter(2)
    got = b"".join(cutter.feed(piece) for piece in pieces)
    assert octets.startswith(got)
    at_once = pop3.TopCutter(2)
    assert at_once.feed(octets) == got
    assert at_once.done == cutter.done
