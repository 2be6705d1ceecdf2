"""Fuzz target: IMAP octets to commands (netmail_pop_imap.protocol.imap), however they are cut."""

from collections.abc import Iterable
from itertools import pairwise

from netmail_pop_imap.protocol.errors import ReplyError
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap import reader as r
from netmail_pop_imap.protocol.imap.lexer import Cursor
from netmail_pop_imap.protocol.imap.parser import parse_append, parse_command, tag_of
from netmail_pop_imap.protocol.imap.patterns import compile_patterns
from netmail_pop_imap.protocol.imap.respond import astring, quote
from netmail_pop_imap.protocol.imap.sequence import (
    STAR,
    SequenceSet,
    format_set,
    parse_sequence_set,
    span_indexes,
)
from netmail_pop_imap.protocol.imap.utf7 import decode_mailbox, encode_mailbox

_LIMIT = 512
_COUNT = 9
_UIDS = [2, 3, 5, 7, 11, 13, 17, 19, 23]


def seeds() -> Iterable[bytes]:
    """Whole sessions. The first octet is the size of the pieces in which they come."""
    yield (
        b"\x40a CAPABILITY\r\nb LOGIN alice {5}\r\nsec}t\r\nc SELECT INBOX (CONDSTORE)\r\n"
        b"d FETCH 1:*,3 (UID FLAGS BODY.PEEK[HEADER.FIELDS (From)]<0.9>) (CHANGEDSINCE 4)\r\n"
        b"e LOGOUT\r\n"
    )
    yield (
        b"\x07a UID SEARCH RETURN (MIN ALL) CHARSET UTF-8 OR (FROM {2+}\r\n\xc3\xa9 UNSEEN) NOT"
        b" KEYWORD $x BEFORE 1-Feb-2020 UID 9:* MODSEQ 5\r\n"
    )
    yield b'\x03a LIST (SUBSCRIBED) "" (% "a*b") RETURN (STATUS (SIZE))\r\nb LSUB "" "&AOk-"\r\n'
    yield b'\x01a STORE 4:2 (UNCHANGEDSINCE 7) -FLAGS.SILENT (\\Seen)\r\nb MOVE * "&ZeVnLIqe-"\r\n'
    yield b'\x20a APPEND x (\\Seen) "17-Jul-1996 02:44:25 -0700" {3}\r\nabc\r\nb NOOP\r\n'
    yield b'\x05a CREATE x (USE (\\Sent))\r\nb ID ("a" NIL)\r\nc ENABLE X\r\nd X {9999+}\r\n'
    yield b"\x02a AUTHENTICATE PLAIN =\r\nb FETCH 1 (BODY[1.2.MIME] RFC822)\r\n\n\r{\r\n{3}\r\n"


def one_input(data: bytes) -> None:
    """Every rule that must hold whatever a client sends."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    edges = [*range(0, len(octets), size), len(octets)]
    whole = _events([octets])
    assert _events([octets[begin:end] for begin, end in pairwise(edges)]) == whole
    for event in whole:
        if isinstance(event, r.CommandLine):
            assert len(event.octets) <= 4 * _LIMIT
            _use(event.octets)
        elif isinstance(event, r.LiteralAnnounced):
            _append(event.prefix)


def _events(pieces: list[bytes]) -> list[r.Event]:
    """Literals are collected while they are small, refused when they are not."""
    reader = r.CommandReader(_LIMIT)
    events: list[r.Event] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next_event()) is not None:
            events.append(event)
            if not isinstance(event, r.LiteralAnnounced):
                continue
            if len(event.prefix) + event.size <= 2 * _LIMIT:
                reader.collect()
            else:
                reader.refuse(coming=not event.synchronizing)
    return events


def _use(octets: bytes) -> None:
    tag = tag_of(octets)
    assert tag == "*" or octets.startswith(tag.encode())
    try:
        command = parse_command(octets)
    except ReplyError as error:
        _check(error)
        return
    assert command.tag == tag
    for value in (getattr(command, name, None) for name in ("messages", "uids")):
        if isinstance(value, SequenceSet):
            _pick(value)
    for name in ("mailbox", "source", "target"):
        mailbox = getattr(command, name, None)
        if isinstance(mailbox, str):
            assert decode_mailbox(encode_mailbox(mailbox)) == mailbox
    if isinstance(command, c.ListMailboxes):
        compile_patterns(command.reference, command.patterns)("INBOX/a/b")
    if isinstance(command, c.Login):
        for text in (command.username, command.password):
            assert Cursor(quote(text)).string() == text
            assert Cursor(astring(text)).astring() == text


def _append(prefix: bytes) -> None:
    try:
        parse_append(prefix)
    except ReplyError as error:
        _check(error)


def _check(error: ReplyError) -> None:
    assert error.text.isprintable()
    code = error.imap_code or b""
    assert b"]" not in code
    assert b"\n" not in code


def _pick(messages: SequenceSet) -> None:
    top = _UIDS[-1]
    wanted: set[int] = set()
    for first, last in messages.ranges:
        low, high = (min(first, top), top) if last == STAR else (first, last)
        wanted.update(uid for uid in _UIDS if low <= uid <= high)
    spans = messages.spans_of_uids(_UIDS, _COUNT)
    picked = [_UIDS[at] for at in span_indexes(spans)]
    assert picked == sorted(wanted)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(spans))
    if picked:
        again = parse_sequence_set(format_set(picked).encode())
        assert [_UIDS[at] for at in span_indexes(again.spans_of_uids(_UIDS, _COUNT))] == picked
    try:
        numbers = list(span_indexes(messages.spans_of_numbers(_COUNT)))
    except ReplyError:
        return
    assert all(0 <= at < _COUNT for at in numbers)
