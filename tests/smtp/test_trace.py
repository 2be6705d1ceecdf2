"""What we write into a message, and what we take out of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.header import scan_header
from netmail_smtp.domain.relay import KnownSender, Way
from netmail_smtp.domain.trace import (
    Hop,
    check_hops,
    comment_text,
    stamp_message,
    with_protocol,
)
from netmail_smtp.protocol.reply import MessageRefused

ALICE = KnownSender(Way.LOGIN, "alice", "users.demo", "IMAP4 login")
HOP = Hop(
    helo="client.example.net",
    client_address="192.0.2.7",
    host_name="mx.example.org",
    protocol="ESMTPS",
    message_id="018f00000000-0123456789abcdef",
    known=None,
    recipient="bob@example.org",
    now=1_790_000_000.0,
)


def stamped(message: bytes, *, submission: bool = False, **changes: Any) -> bytes:
    header = scan_header(message)
    hop = replace(HOP, **changes)
    return b"".join(stamp_message(header, hop, submission=submission)) + message[header.body :]


def ours(message: bytes, **changes: Any) -> bytes:
    """What was put before `message`."""
    whole = stamped(message, **changes)
    assert whole.endswith(message)
    return whole[: len(whole) - len(message)]


def test_received_says_where_a_message_came_from() -> None:
    assert ours(b"Subject: x\r\n\r\nbody\r\n") == (
        b"Received: from client.example.net ([192.0.2.7])\r\n"
        b"\tby mx.example.org with ESMTPS id 018f00000000-0123456789abcdef\r\n"
        b"\tfor <bob@example.org>;\r\n"
        b"\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
    )


def test_received_names_the_user_and_how_he_was_recognised() -> None:
    known = replace(ALICE, user_count=3)
    lines = ours(b"Subject: x\r\n\r\n", known=known, recipient="").split(b"\r\n")
    assert lines[1] == (
        b"\t(user alice of users.demo, known by IMAP4 login, one of 3 users at this address)"
    )
    assert lines[-2] == b"X-Auth-OK: alice"
    assert b"for <" not in b"".join(lines)


def test_a_login_without_a_user_is_said_and_names_nobody() -> None:
    known = KnownSender(Way.LOGIN, detail="login by UDP 689")
    text = ours(b"Subject: x\r\n\r\n", known=known)
    assert b"\r\n\t(known by login by UDP 689)\r\n" in text
    assert b"X-Auth-OK" not in text


@pytest.mark.parametrize(
    ("helo", "expected"),
    [
        ("laptop", b"from laptop ([192.0.2.7])"),
        ("[192.0.2.9]", b"from [192.0.2.9] ([192.0.2.7])"),
        ("a_b", b"from [192.0.2.7] (HELO a_b) ([192.0.2.7])"),
        ("x(by)evil", b"from [192.0.2.7] (HELO x\\(by\\)evil) ([192.0.2.7])"),
        ('"\\', b'from [192.0.2.7] (HELO \\"\\\\) ([192.0.2.7])'),
        ("b\xfccher.example", b"from [192.0.2.7] (HELO b?cher.example) ([192.0.2.7])"),
    ],
)
def test_what_the_client_calls_itself_is_quoted(helo: str, expected: bytes) -> None:
    assert ours(b"A: b\r\n\r\n", helo=helo).startswith(b"Received: " + expected + b"\r\n")


def test_ipv6_clients_are_written_as_literals() -> None:
    assert b" ([IPv6:2001:db8::7])\r\n" in ours(b"A: b\r\n\r\n", client_address="2001:db8::7")


@given(st.text(max_size=40))
def test_no_text_escapes_from_its_comment(text: str) -> None:
    quoted = comment_text(text)
    assert quoted.isascii()
    assert quoted.isprintable() or quoted == ""
    depth, skip = 0, False
    for character in quoted:
        if skip:
            skip = False
        elif character == "\\":
            skip = True
        else:
            depth += character in "()"
    assert (depth, skip) == (0, False)


def test_users_beyond_ascii_are_encoded() -> None:
    known = replace(ALICE, user="zo\xeb")
    assert b"X-Auth-OK: =?utf-8?q?zo=C3=AB?=\r\n" in ours(b"A: b\r\n\r\n", known=known)


def test_every_x_auth_field_from_outside_is_removed_and_the_rest_stays() -> None:
    message = (
        b"X-Auth-OK: mallory\r\nA: 1\r\nx-auth-ok : m\r\n fold\r\nX-AUTH-Result:\r\nB: 2\r\n\r\n"
        b"X-Auth-OK: in the body\r\n"
    )
    for known in (None, ALICE):
        whole = stamped(message, known=known)
        assert whole.endswith(b"A: 1\r\nB: 2\r\n\r\nX-Auth-OK: in the body\r\n")
        assert whole.lower().count(b"x-auth-") == (2 if known else 1)


def test_date_message_id_and_bcc_are_looked_after_on_submission_only() -> None:
    message = b"From: a@b\r\nBcc: secret@x\r\n more@x\r\nbcc: y\r\nSubject: x\r\n\r\nbody\r\n"
    whole = stamped(message, submission=True)
    assert b"\r\nDate: Mon, 21 Sep 2026 14:13:20 +0000\r\n" in whole
    assert b"\r\nMessage-ID: <018f00000000-0123456789abcdef@mx.example.org>\r\n" in whole
    assert whole.endswith(b"From: a@b\r\nSubject: x\r\n\r\nbody\r\n")
    assert ours(message).count(b"\r\n") == 4
    complete = b"Date: x\r\nMESSAGE-ID: y\r\n\r\n"
    assert stamped(complete, submission=True).endswith(complete)
    assert stamped(complete, submission=True).lower().count(b"message-id:") == 1


@pytest.mark.parametrize(
    "message",
    [
        b" Subject: folded into ours\r\n\r\nbody\r\n",
        b"\tX\r\n\r\nbody\r\n",
        b"no header at all\r\nX-Auth-OK: m\r\n",
        b"From mallory Mon Jan 1 00:00:00 2026\r\nX-Auth-OK: m\r\n\r\nbody\r\n",
        b": no name\r\n\r\n",
        b"no line end",
    ],
)
def test_a_message_without_a_header_gets_an_empty_line_before_it(message: bytes) -> None:
    assert ours(message, known=ALICE).endswith(b"\r\nX-Auth-OK: alice\r\n\r\n")


@pytest.mark.parametrize("message", [b"\r\nbody\r\n", b"\r\n"])
def test_a_message_that_begins_with_the_empty_line_needs_none(message: bytes) -> None:
    assert ours(message).endswith(b"+0000\r\n")


def test_an_empty_message_is_only_our_header() -> None:
    assert stamped(b"").endswith(b"+0000\r\n\r\n")


def test_too_many_hops_are_a_loop() -> None:
    received = b"Received: x\r\n\ty\r\n"
    check_hops(scan_header(received * 100 + b"\r\n"), 100)
    with pytest.raises(MessageRefused) as refused:
        check_hops(scan_header(received * 100 + b"RECEIVED : z\r\n\r\n"), 100)
    assert refused.value.reply.enhanced == "5.4.6"


@pytest.mark.parametrize(
    ("extended", "tls", "authenticated", "smtputf8", "expected"),
    [
        (False, False, False, False, "SMTP"),
        (True, False, False, False, "ESMTP"),
        (True, True, False, False, "ESMTPS"),
        (True, False, True, False, "ESMTPA"),
        (True, True, True, False, "ESMTPSA"),
        (True, False, False, True, "UTF8SMTP"),
        (True, True, True, True, "UTF8SMTPSA"),
    ],
)
def test_with_says_how(
    extended: bool, tls: bool, authenticated: bool, smtputf8: bool, expected: str
) -> None:
    name = with_protocol(extended=extended, tls=tls, authenticated=authenticated, smtputf8=smtputf8)
    assert name == expected
