"""Fuzz target: replies, extensions and transactions of the sending client, and its framing."""

import re
from collections.abc import Iterable

from netmail_smtp.protocol.client import (
    ClientSession,
    ConnectionLost,
    RecipientCommand,
    SessionRefused,
    Stage,
    Transaction,
)
from netmail_smtp.protocol.client_framing import (
    DotStuffer,
    dot_stuffed,
    normal_lines,
    original_recipient,
)
from netmail_smtp.protocol.client_reply import MAX_LINE, Reply, ReplyError, ReplyParser

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def seeds() -> Iterable[bytes]:
    """Replies of whole sessions, and messages. The first octet is the piece size."""
    yield (
        b"\x40220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-DSN\r\n"
        b"250 SMTPUTF8\r\n250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 queued\r\n"
    )
    yield (
        b"\x05220 x\r\n250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n"
        b"250 LIMITS RCPTMAX=1 MAILMAX=x\r\n"
        b"250 ok\r\n250 ok\r\n452 4.5.3 many\r\n250 done\r\n"
    )
    yield b"\x01220 x\r\n502 no\r\n250 x\r\n250 a\r\n421 bye\r\n"
    yield b"\x02220-a\r\n220 b\n250_x\r\n"
    yield b"\x03.\r\n..\r\n\n.\n\r.\r\n.\r\nrfc822;a+b=c\xc3\xb8\r"


def one_input(data: bytes) -> None:
    """Every rule that must hold whatever a host or a message contains."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    _framing(octets, pieces)
    _session(_replies(pieces))


def _replies(pieces: list[bytes]) -> list[Reply]:
    parser = ReplyParser()
    replies: list[Reply] = []
    for piece in pieces:
        try:
            replies += parser.feed(piece)
        except ReplyError:
            break
        assert len(parser._buffer) <= MAX_LINE + 1
    for reply in replies:
        assert 200 <= reply.code <= 559
        assert reply.enhanced is None or reply.enhanced[0] == str(reply.code)[0]
        assert not re.search(r"[\x00-\x1f\x7f]", str(reply))
    return replies


def _session(replies: list[Reply]) -> None:
    """Plays the replies to a session with one transaction."""
    session = ClientSession("mail1.example.org")
    people = [RecipientCommand("a@example.net", "SUCCESS", "rfc822;x y"), RecipientCommand("b@x")]
    transaction = Transaction("s@example.org", people, size=20, data=b"Subject: x\n\n.\r\nx")
    left = iter(replies)
    taken = 0
    for conversation in (session.greet(), session.hello(), session.transaction(transaction)):
        try:
            step = next(conversation)
            while True:
                assert not _BARE.search(step.send)
                reply = next(left, None)
                if reply is None:
                    step = conversation.throw(ConnectionLost("no more replies"))
                    continue
                taken += step.stage is Stage.FINAL and reply.positive
                step = conversation.send(reply)
        except StopIteration:
            continue
        except (SessionRefused, ConnectionLost):
            return
    known = {recipient.address for recipient in people}
    assert set(transaction.answers) <= known
    for answer in transaction.answers.values():
        if answer.stage is Stage.FINAL and answer.reply.positive:
            assert taken, "delivered means that the host said so"
    if transaction.lost is None:
        assert set(transaction.answers) | set(transaction.too_many) == known


def _framing(octets: bytes, pieces: list[bytes]) -> None:
    wire = dot_stuffed(octets)
    assert not _BARE.search(wire)
    assert wire.endswith(b".\r\n")
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    lines = wire[:-3].split(b"\r\n")
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == normal_lines(octets)
    stuffer = DotStuffer()
    assert b"".join(stuffer.feed(piece) for piece in pieces) + stuffer.finish() == wire
    assert re.fullmatch(r"[!-~]*", original_recipient(octets.decode("utf-8", "replace")))
