"""Fuzz target: command lines, their parameters and paths, out of pieces of any size."""

from collections.abc import Iterable

from netmail_common.mail_address import parse_mail_address
from netmail_smtp.protocol.commands import VERBS, Ehlo, Mail, Rcpt, parse_command
from netmail_smtp.protocol.framing import InputBuffer, LineTooLong
from netmail_smtp.protocol.reply import Reply, SmtpError

_LIMIT = 512


def seeds() -> Iterable[bytes]:
    """Whole dialogues. The first octet is the piece size."""
    yield (
        b"\x40EHLO mx.example.net\r\nMAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME SMTPUTF8"
        b" RET=HDRS ENVID=a+2Bb AUTH=<>\r\n"
        b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+40d\r\n"
        b"DATA\r\nRSET\r\nQUIT\r\n"
    )
    yield b'\x03HELO [192.0.2.1]\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nRCPT TO:<"a b"@c>\r\n'
    yield b"\x01BDAT 10 LAST\r\nAUTH PLAIN AGE=\r\nAUTH LOGIN\r\nSTARTTLS\r\nNOOP x\r\nHELP\r\n"
    yield b'\x07RCPT TO:<@a,@b:u@c>\r\nRCPT TO:<u%a@b>\r\nRCPT TO:<"u@a"@b>\r\nRCPT TO:<a!u@b>\r\n'
    yield "\x05MAIL FROM:<zoë@bücher.example> SMTPUTF8\r\nRCPT TO:<x@[IPv6:::1]>\r\n".encode()
    yield b"\x02NOOP\nNOOP\rNOOP\0\r\nVRFY \xff\r\n" + b"x" * 600 + b"\r\n"


def one_input(data: bytes) -> None:
    """Lines come out whole whatever the pieces; each is read or refused with a reply."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    lines = list(_lines([octets[at : at + size] for at in range(0, len(octets), size)]))
    assert lines == [line if len(line) <= _LIMIT else None for line in octets.split(b"\r\n")[:-1]]
    for line in lines:
        if line is not None:
            _use(line)


def _lines(pieces: Iterable[bytes]) -> Iterable[bytes | None]:
    buffer = InputBuffer(_LIMIT)
    for piece in pieces:
        buffer.feed(piece)
        while True:
            try:
                line = buffer.take_line()
            except LineTooLong:
                yield None
                continue
            if line is None:
                break
            yield line
        assert len(buffer) <= _LIMIT + 256


def _use(line: bytes) -> None:
    try:
        verb, command = parse_command(line)
    except SmtpError as error:
        _check_refusal(error.reply)
        return
    assert verb in VERBS
    assert not {b"\r", b"\n", b"\0"} & {line[at : at + 1] for at in range(len(line))}
    if isinstance(command, Mail):
        assert command.sender is None or parse_mail_address(str(command.sender)) == command.sender
        assert command.envelope_id.isprintable()
    elif isinstance(command, Rcpt):
        _use_rcpt(line, command)
    elif isinstance(command, Ehlo):
        assert isinstance(command.is_full_name, bool)


def _use_rcpt(line: bytes, command: Rcpt) -> None:
    mailbox = command.path.mailbox
    assert (mailbox is None) == command.path.is_postmaster
    if mailbox is not None:
        assert parse_mail_address(str(mailbox)) == mailbox
        if command.path.may_be_relayed:
            assert not set(mailbox.local) & set("%!@")
            assert b"<@" not in line


def _check_refusal(reply: Reply) -> None:
    octets = reply.encode()
    assert reply.code in {500, 501, 553, 555}
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\n") == octets.count(b"\r") == 1
