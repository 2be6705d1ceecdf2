"""The client's replies, extensions and framing, octet by octet."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_smtp.protocol.client_extensions import Extensions
from netmail_smtp.protocol.client_framing import (
    DotStuffer,
    dot_stuffed,
    normal_lines,
    original_recipient,
    xtext,
)
from netmail_smtp.protocol.client_reply import MAX_LINE, MAX_LINES, Reply, ReplyError, ReplyParser


def read(data: bytes) -> list[Reply]:
    return ReplyParser().feed(data)


def test_a_reply_of_several_lines_is_one_reply() -> None:
    assert read(b"250-mx.example\r\n250-SIZE 1000\r\n250 HELP\r\n") == [
        Reply(250, ("mx.example", "SIZE 1000", "HELP"))
    ]


def test_a_reply_may_be_a_code_alone() -> None:
    assert read(b"250\r\n") == [Reply(250, ("",))]


@pytest.mark.parametrize(
    "data",
    [
        b"250 bare\n",
        b"250-one\r\n251 two\r\n",
        b"hello\r\n",
        b"25 short\r\n",
        b"199 class\r\n",
        b"250_x\r\n",
        b"250 a\rb\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 2),
        b"250-x\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_is_not_a_reply_ends_the_session(data: bytes) -> None:
    with pytest.raises(ReplyError):
        read(data)


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 no such user", "5.1.1"),
        ("4.1.1 wrong class", None),
        ("5.1.1", "5.1.1"),
        ("5.1.1x", None),
        ("no code", None),
    ],
)
def test_an_enhanced_code_counts_only_in_its_class(text: str, enhanced: str | None) -> None:
    assert Reply(550, (text,)).enhanced == enhanced


def test_a_reply_is_shown_without_control_characters() -> None:
    assert str(Reply(550, ("a\x1b[31m", "b"))) == "550 a?[31m b"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_replies_do_not_depend_on_how_octets_arrive(data: bytes, cuts: list[int]) -> None:
    def run(pieces: list[bytes]) -> tuple[list[Reply], bool]:
        parser = ReplyParser()
        found = []
        for piece in pieces:
            try:
                found += parser.feed(piece)
            except ReplyError:
                return found, True
        return found, False

    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole_failed = run([data])[1]
    single, single_failed = run([data[i : i + 1] for i in range(len(data))])
    assert run(pieces)[1] == whole_failed == single_failed
    if not whole_failed:
        assert run(pieces)[0] == run([data])[0] == single


@given(
    st.lists(
        st.tuples(st.integers(200, 559).filter(lambda c: c // 10 % 10 <= 5), st.integers(1, 4)),
        max_size=5,
    )
)
def test_well_formed_replies_are_read_back(shapes: list[tuple[int, int]]) -> None:
    data = b""
    for code, lines in shapes:
        data += b"%d-text\r\n" % code * (lines - 1) + b"%d end\r\n" % code
    assert [(r.code, len(r.lines)) for r in read(data)] == shapes


def test_extensions_are_read_whatever_their_case() -> None:
    reply = Reply(
        250,
        (
            "MX.Example.NET. greets you",
            "pipelining",
            "SIZE 52428800",
            "AUTH=LOGIN PLAIN",
            "AUTH scram-sha-256",
            "LIMITS RCPTMAX=20 MAILMAX=7",
            "8bitmime",
            "CHUNKING",
            "DSN",
            "SMTPUTF8",
            "STARTTLS",
            "",
            "X-UNKNOWN",
        ),
    )
    assert Extensions.from_ehlo(reply) == Extensions(
        name="mx.example.net",
        pipelining=True,
        eight_bit_mime=True,
        smtputf8=True,
        dsn=True,
        chunking=True,
        starttls=True,
        size=52428800,
        auth=frozenset({"LOGIN", "PLAIN", "SCRAM-SHA-256"}),
        max_recipients=20,
        max_messages=7,
    )


@pytest.mark.parametrize(
    ("line", "size"), [("SIZE", 0), ("SIZE 0", 0), ("SIZE -1", 0), ("SIZE x", 0), ("HELP", None)]
)
def test_a_size_that_says_nothing_limits_nothing(line: str, size: int | None) -> None:
    assert Extensions.from_ehlo(Reply(250, ("mx", line))).size == size


MESSAGES = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"x", b"\r\n.\r\n", b"\n.\n", b"\xff"]),
    max_size=12,
).map(b"".join)


def unstuff(wire: bytes) -> bytes:
    """What a receiver makes of it (RFC 5321 4.5.2)."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""], "the final dot comes once, at the end"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


@given(MESSAGES)
def test_no_bare_cr_or_lf_is_sent_and_nothing_ends_the_message_early(data: bytes) -> None:
    wire = dot_stuffed(data)
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", wire) is None
    assert unstuff(wire) == normal_lines(data)


@given(MESSAGES.map(lambda m: m.replace(b"\n", b"").replace(b"\r", b"") + b"\r\n"))
def test_octets_of_a_well_formed_message_are_unchanged(data: bytes) -> None:
    assert normal_lines(data) is data
    assert unstuff(dot_stuffed(data)) == data


@given(MESSAGES, st.lists(st.integers(0, 40), max_size=5))
def test_pieces_give_the_same_as_the_whole(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    stuffer = DotStuffer()
    wire = b"".join(stuffer.feed(data[a:b]) for a, b in itertools.pairwise(edges))
    assert wire + stuffer.finish() == dot_stuffed(data)


def test_xtext_hides_what_would_end_a_parameter() -> None:
    assert xtext("a+b=c d\r\n") == "a+2Bb+3Dc+20d+0D+0A"


def test_an_original_recipient_beyond_ascii_becomes_utf8_xtext() -> None:
    assert original_recipient("rfc822;a+b@example.org") == "rfc822;a+2Bb@example.org"
    assert original_recipient("utf-8;bøb+1@example.org") == r"utf-8;b\x{F8}b\x{2B}1@example.org"


@given(st.text(max_size=60))
def test_no_parameter_text_has_a_space_or_a_line_end(text: str) -> None:
    assert re.fullmatch(r"[!-~]*", original_recipient(f"rfc822;{text}"))
