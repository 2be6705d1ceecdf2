"""POP3 on the wire: lines, commands, byte-stuffing, TOP."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_pop_imap.protocol import pop3
from netmail_pop_imap.protocol.errors import BadCommand, LineTooLong, ReplyError

lines = st.binary(max_size=60).filter(lambda line: b"\r\n" not in line and not line.endswith(b"\r"))


def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def cut_lines(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    wanted = draw(st.lists(lines, max_size=10))
    return wanted, pieces(draw, b"".join(line + b"\r\n" for line in wanted))


messages = st.lists(
    st.sampled_from([b".", b"..", b"\r\n", b"\n", b"\r", b"a", b"\r\n.\r\n", b"\n.", b"From: x"]),
    max_size=30,
).map(b"".join)


@st.composite
def cut_messages(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    message = draw(messages)
    return message, pieces(draw, message)


@given(cut_lines())
def test_lines_come_out_as_they_went_in_however_they_are_cut(
    case: tuple[list[bytes], list[bytes]],
) -> None:
    wanted, chunks = case
    reader = pop3.LineReader()
    got = []
    for chunk in chunks:
        reader.feed(chunk)
        while (line := reader.next_line()) is not None:
            got.append(line)
    assert got == wanted
    assert len(reader) == 0


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=50))
def test_a_line_without_end_is_refused_before_it_fills_memory(chunks: list[bytes]) -> None:
    reader = pop3.LineReader(limit=100)
    for chunk in chunks:
        reader.feed(chunk.replace(b"\n", b"x"))
        try:
            assert reader.next_line() is None
        except LineTooLong:
            assert len(reader) > 100
            return
    assert len(reader) <= 100


def test_a_whole_line_beyond_the_limit_is_refused_too() -> None:
    reader = pop3.LineReader(limit=10)
    reader.feed(b"123456789\r\n")
    with pytest.raises(LineTooLong):
        reader.next_line()


def refusal(call: Callable[[], object]) -> bytes | None:
    try:
        call()
    except ReplyError as error:
        return error.pop3_reply()
    return None


@given(st.binary(max_size=80))
def test_any_line_parses_or_is_refused_in_one_line(line: bytes) -> None:
    refused = refusal(lambda: pop3.parse_command(line))
    replies = [refused]
    if refused is None:
        command = pop3.parse_command(line)
        assert re.fullmatch(r"[A-Z0-9]{1,16}", command.verb)
        uses = (command.text, command.number, command.optional_number, command.no_argument)
        replies = [refusal(use) for use in uses]
    for reply in filter(None, replies):
        assert re.fullmatch(rb"-ERR [^\r\n]+\r\n", reply)


@pytest.mark.parametrize(
    ("line", "verb", "rest"),
    [
        (b"quit", "QUIT", None),
        (b"PASS with two  spaces ", "PASS", b"with two  spaces "),
        (b"USER ", "USER", b""),
        (b"LIST 1", "LIST", b"1"),
    ],
)
def test_the_verb_has_no_case_and_the_rest_stays_as_it_is(
    line: bytes, verb: str, rest: bytes | None
) -> None:
    assert pop3.parse_command(line) == pop3.Command(verb, rest)


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b" QUIT", b"QU\rIT", b"PASS a\nb", b"PASS a\0b", b"\xff", b"QUIT\t", b"A" * 17],
)
def test_what_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(BadCommand):
        pop3.parse_command(line)


@pytest.mark.parametrize(
    "rest", [b"", b"x", b"-1", b"+1", b" 1", b"1 ", b"1 2", b"1" * 11, b"\xb2"]
)
def test_a_message_number_is_digits_and_nothing_else(rest: bytes) -> None:
    with pytest.raises(BadCommand):
        pop3.Command("RETR", rest).number()


def unstuff(wire: bytes) -> bytes:
    """What a client that cuts lines at LF makes of it."""
    assert wire.endswith(b".\r\n")
    kept = []
    ended = False
    for line in re.findall(rb"[^\n]*\n|[^\n]+", wire):
        assert not ended, "octets after the end of the message"
        if line in {b".\r\n", b".\n"}:
            ended = True
            continue
        kept.append(line[1:] if line.startswith(b".") else line)
    assert ended
    return b"".join(kept)


@given(cut_messages())
def test_a_stuffed_message_comes_out_whole_and_cannot_end_early(
    case: tuple[bytes, list[bytes]],
) -> None:
    message, chunks = case
    stuffer = pop3.DotStuffer()
    wire = b"".join([*(stuffer.feed(chunk) for chunk in chunks), stuffer.finish()])
    got = unstuff(wire)
    if message and not message.endswith(b"\n"):
        message += b"\r\n"
    assert got == message


@given(cut_messages(), st.integers(0, 5))
def test_top_gives_the_header_and_as_many_lines_however_it_is_cut(
    case: tuple[bytes, list[bytes]], count: int
) -> None:
    message, chunks = case
    cutter = pop3.TopCutter(count)
    got = b"".join(cutter.feed(chunk) for chunk in chunks)
    all_lines = re.findall(rb"[^\n]*\n|[^\n]+", message)
    empty = next(
        (n for n, line in enumerate(all_lines) if line in {b"\r\n", b"\n"}), len(all_lines)
    )
    assert got == b"".join(all_lines[: empty + 1 + count])


def test_the_cutter_says_when_nothing_more_is_needed() -> None:
    cutter = pop3.TopCutter(1)
    assert cutter.feed(b"A: b\r\n\r\none\r\ntwo\r\n") == b"A: b\r\n\r\none\r\n"
    assert cutter.done
    assert cutter.feed(b"more") == b""


def test_capabilities_name_only_what_works_now() -> None:
    closed = pop3.capabilities(
        mechanisms=["SCRAM-SHA-256"], user=False, stls=True, implementation=None
    )
    assert b"\r\nUSER\r\n" not in closed
    assert b"\r\nSASL SCRAM-SHA-256\r\nSTLS\r\n.\r\n" in closed
    assert b"IMPLEMENTATION" not in closed
    inside = pop3.capabilities(
        mechanisms=["PLAIN"], user=True, stls=False, implementation="NetMail"
    )
    assert b"\r\nUSER\r\nSASL PLAIN\r\nIMPLEMENTATION NetMail\r\n.\r\n" in inside
    assert b"STLS" not in inside


def test_an_empty_listing_is_still_ended() -> None:
    assert pop3.listing("0 messages", []) == b"+OK 0 messages\r\n.\r\n"
    assert pop3.listing("x", ["1 2"]) == b"+OK x\r\n1 2\r\n.\r\n"
