"""Mailbox names, sequence sets, patterns, dates, strings."""

import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_pop_imap.protocol.imap.dates import format_date_time, parse_date, parse_date_time
from netmail_pop_imap.protocol.imap.errors import BadCommand
from netmail_pop_imap.protocol.imap.lexer import Cursor
from netmail_pop_imap.protocol.imap.patterns import compile_patterns
from netmail_pop_imap.protocol.imap.respond import astring, quote
from netmail_pop_imap.protocol.imap.sequence import (
    format_set,
    parse_sequence_set,
    span_count,
    span_indexes,
)
from netmail_pop_imap.protocol.imap.utf7 import decode_mailbox, encode_mailbox

NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co", "Cf", "Zl", "Zp", "Zs"])
    | st.just(" "),
    max_size=20,
)


@given(NAMES)
def test_a_mailbox_name_survives_modified_utf7(name: str) -> None:
    assert decode_mailbox(encode_mailbox(name)) == name


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("a&b", b"a&-b"),
        ("😀", b"&2D3eAA-"),
    ],
)
def test_modified_utf7_as_the_rfc_shows_it(name: str, octets: bytes) -> None:
    assert encode_mailbox(name) == octets
    assert decode_mailbox(octets) == name


@pytest.mark.parametrize(
    "octets",
    [b"&", b"&AAA", b"&A-", b"&Jjo!-", b"&U,BTFw-&ZeVnLIqe-", b"\xc3\xa9", b"a\x01", b"&2D0-"],
)
def test_a_name_that_no_encoder_writes_is_bad(octets: bytes) -> None:
    with pytest.raises(BadCommand):
        decode_mailbox(octets)


UIDS = st.lists(st.integers(1, 60), unique=True, max_size=20).map(sorted)
ENDS = st.integers(1, 70).map(str) | st.just("*")
SETS = st.lists(ENDS | st.tuples(ENDS, ENDS).map(":".join), min_size=1, max_size=6).map(",".join)


@given(SETS, UIDS)
def test_a_uid_set_picks_what_the_rfc_says(text: str, uids: list[int]) -> None:
    wanted = set()
    top = uids[-1] if uids else 0
    for piece in text.split(","):
        ends = [top if end == "*" else int(end) for end in piece.split(":")]
        wanted |= set(range(min(ends), max(ends) + 1))
    spans = parse_sequence_set(text.encode()).spans_of_uids(array("I", uids), len(uids))
    picked = [uids[at] for at in span_indexes(spans)]
    assert picked == [uid for uid in uids if uid in wanted]
    assert span_count(spans) == len(picked)


@given(SETS, st.integers(0, 70))
def test_a_number_set_picks_what_the_rfc_says_or_is_bad(text: str, count: int) -> None:
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    try:
        spans = parse_sequence_set(text.encode()).spans_of_numbers(count)
    except BadCommand:
        assert any(number > count for number in numbers)
        return
    picked = list(span_indexes(spans))
    assert picked == sorted(set(picked))
    assert all(0 <= at < count for at in picked)
    assert not count or span_count(spans) >= 1


def test_a_range_to_the_end_always_holds_the_last_message() -> None:
    assert parse_sequence_set(b"559:*").spans_of_uids(array("I", [3, 7]), 2) == [(1, 1)]


def test_a_range_to_the_end_of_an_empty_mailbox_is_nothing() -> None:
    assert parse_sequence_set(b"1:*").spans_of_numbers(0) == []


@given(st.lists(st.integers(1, 300), unique=True).map(sorted))
def test_numbers_survive_as_a_set(numbers: list[int]) -> None:
    if not numbers:
        assert format_set(numbers) == ""
        return
    spans = parse_sequence_set(format_set(numbers).encode()).spans_of_numbers(300)
    assert [at + 1 for at in span_indexes(spans)] == numbers


def as_regex(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"([*%])", pattern)
    return re.compile("".join({"*": ".*", "%": "[^/]*"}.get(p, re.escape(p)) for p in pieces))


@given(st.text("ab/%*", max_size=8), st.text("ab/", max_size=8))
def test_a_pattern_matches_like_its_regular_expression(pattern: str, name: str) -> None:
    assert compile_patterns("", [pattern])(name) == bool(as_regex(pattern).fullmatch(name))


def test_a_pattern_of_many_wildcards_takes_no_time() -> None:
    assert not compile_patterns("", ["*a" * 200 + "b"])("a" * 1000)


def test_inbox_matches_in_any_case() -> None:
    assert compile_patterns("", ["inbox"])("INBOX")
    assert compile_patterns("", ["Inbox/%"])("INBOX/x")


@given(st.integers(0, 4_000_000_000))
def test_a_date_survives(seconds: int) -> None:
    assert parse_date_time(format_date_time(seconds)) == seconds


def test_a_date_outside_every_calendar_is_written_all_the_same() -> None:
    assert format_date_time(1 << 62).startswith(b"31-Dec-9999")


def test_dates_have_days() -> None:
    assert parse_date(b"1-jan-1970") == 0
    assert parse_date(b"02-Jan-1970") == 1
    with pytest.raises(BadCommand):
        parse_date(b"1-Jan-70")


@given(st.binary(max_size=50).filter(lambda b: b"\0" not in b))
def test_a_string_we_write_reads_back(octets: bytes) -> None:
    assert Cursor(quote(octets)).string() == octets
    assert Cursor(astring(octets)).astring() == octets
