"""The text of messages for SEARCH: right where it can be, quiet where it cannot."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netmail_nmap.domain.message_text import (
    body_texts,
    decode_charset,
    decode_header,
    decode_value,
    field_pattern,
)
from netmail_nmap.domain.search import BodyContains, HeaderContains, TextContains
from netmail_nmap.domain.search_match import (
    Candidate,
    Names,
    compile_key,
    needs_of,
    sent_day,
)

NAMES = Names(mask=lambda _: 0, object_id=str)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?q?J=C3=BCrgen_B?=", "Jürgen B"),
        (b"=?UTF-8*de?B?SsO8cmdlbg==?=", "Jürgen"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?=\r\n =?iso-8859-1?q?=E4?=", "aä"),
        (b"=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        (b"=?utf-8?b?w?= x", "=?utf-8?b?w?= x"),
        (b"=?no-such-charset?q?=E4?=", "ä"),
        (b"=?utf-8?b?!!!?=", ""),
        (b"a\r\n b\r\n\tc", "a b\tc"),
        ("größer".encode(), "größer"),
        ("größer".encode("latin-1"), "größer"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
    ],
)
def test_a_value_is_decoded_as_a_person_reads_it(raw: bytes, text: str) -> None:
    assert decode_value(raw) == text


@pytest.mark.parametrize("codec", ["zip", "hex", "idna", "punycode", "unicode_escape", "", "\0"])
def test_codecs_that_are_no_charsets_are_not_used(codec: str) -> None:
    assert decode_charset(b"\\u0041 abc", codec) == "\\u0041 abc"


def test_a_field_is_found_in_any_case_and_whole() -> None:
    header = b"Subject: one\r\n two\r\nX-Subject: three\r\nSUBJECT : four\r\n\r\n"
    values = field_pattern("subject").findall(header)
    assert [decode_value(value.strip()) for value in values] == ["one two", "four"]


def test_attached_messages_are_searched_with_their_headers() -> None:
    inner = b"Subject: =?utf-8?q?inneres?=\r\n\r\ninner body\r\n"
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--b--\r\n"
    )
    texts = "\n".join(body_texts(message))
    assert "inneres" in texts
    assert "inner body" in texts


@pytest.mark.parametrize(
    ("date", "day"),
    [
        (b"Mon, 23 Nov 2026 23:30:00 -0800", 20_780),
        (b"23 Nov 2026 00:00 +0000", 20_780),
        (b"rubbish", None),
        (b"Mon, 99 Nov 99999 00:00:00 +0000", None),
        (b"", None),
    ],
)
def test_the_date_is_taken_as_written(date: bytes, day: int | None) -> None:
    assert sent_day(b"Date: " + date + b"\r\n\r\n") == day


_messages = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [
            b"Subject: ",
            b"Content-Type: multipart/mixed; boundary=b",
            b"Content-Type: text/plain; charset=",
            b"Content-Type: message/rfc822",
            b"Content-Transfer-Encoding: base64",
            b"Content-Transfer-Encoding: quoted-printable",
            b"Content-Transfer-Encoding: x-uuencode",
            b"utf-7",
            b"iso-2022-jp",
            b"--b",
            b"--b--",
            b"\r\n",
            b"\r\n\r\n",
            b"\r\n ",
            b"=?utf-8?q?=",
            b"=?utf-8?b?=?=",
            b"?=",
            b"begin 644 x",
            b"\x00",
            b"\xff\xfe",
            b"=4",
            b"Date: 1 Jan 1 1:1:1 +9999",
        ]
    ),
    max_size=25,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(_messages)
def test_no_message_is_too_odd(message: bytes) -> None:
    decode_header(message)
    sent_day(message)
    list(body_texts(message))


_words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(_words, st.sampled_from(["plain", "base64", "quoted-printable", "encoded-word"]))
def test_nothing_that_is_there_is_passed_over(word: str, way: str) -> None:
    """The shortcuts (words that must be there) never lose a match."""
    encoded = word.encode()
    subject = encoded
    if way == "encoded-word":
        subject = b"=?utf-8?b?" + base64.b64encode(encoded) + b"?="
    body = encoded
    kind = b"8bit"
    if way == "base64":
        kind, body = b"base64", base64.encodebytes(encoded)
    elif way == "quoted-printable":
        kind, body = b"quoted-printable", b"".join(b"=%02X" % octet for octet in encoded)
    header = (
        b"Subject: x" + subject + b"x\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: " + kind + b"\r\n\r\n"
    )
    found = Candidate(1, 1, 0, 0, 0, 0, 1, header, body + b"\r\n")
    for key in (BodyContains(word.strip() or word), TextContains(word.strip() or word)):
        assert compile_key(key, NAMES)(found), key
        words = needs_of(key).body_words
        octets = (header + body).lower()
        assert not words or not octets.isascii() or any(each in octets for each in words)
    stripped = word.strip()
    if stripped and way in ("plain", "encoded-word") and "=?" not in word and " " not in word:
        assert compile_key(HeaderContains("Subject", stripped), NAMES)(found)
