"""Forged and odd headers, each with what a user who authenticated as alice gets for it."""

import pytest
from netmail_common.config import SenderBinding
from netmail_common.header import scan_header
from netmail_common.mail_address import MailAddress
from netmail_smtp.domain.identity import (
    AuthenticatedSender,
    OwnAddresses,
    UserName,
    header_senders,
)
from netmail_smtp.protocol.reply import MessageRefused

ALICE = UserName("alice", "users.demo")
ADDRESSES = ("alice@example.org", "a.liddell@example.org", "zoë@example.org", "o'hara@example.org")
OWN = OwnAddresses(ADDRESSES, "+")

OK, MALFORMED, FOREIGN = "ok", "5.6.0", "5.7.1"

# Every header is followed by an empty line and a body.
TABLE = [
    # What is hers.
    ("From: alice@example.org", OK),
    ("From: <alice@example.org>", OK),
    ("From: Alice <alice@example.org>", OK),
    ('From: "Liddell, Alice" <alice@example.org>', OK),
    ("From: Alice P. Liddell <alice@example.org>", OK),
    ("From:alice@example.org", OK),
    ("FROM: alice@example.org", OK),
    ("From: ALICE@EXAMPLE.ORG", OK),
    ("From: a.liddell@example.org", OK),
    ("From: alice+shopping@example.org", OK),
    ('From: "alice"@example.org', OK),
    ('From: "al\\ice"@example.org', OK),
    ("From: o'hara@example.org", OK),
    ("From: Alice\r\n <alice@example.org>", OK),
    ("From:\r\n alice@example.org", OK),
    ("From: zoë@example.org", OK),
    ("From: ZOË@example.org", OK),
    ("From: zoe\u0308@example.org", OK),
    ("From: =?utf-8?q?Alice?= <alice@example.org>", OK),
    ("From: =?utf-8?q?mallory=40example=2Ecom?= <alice@example.org>", OK),
    ('From: "mallory@example.com" <alice@example.org>', OK),
    ("From: Alice (mallory@example.com) <alice@example.org>", OK),
    ("From: alice@example.org (Alice (the \\) first))", OK),
    ("From: (c) alice (d) @ (e) example.org (f)", OK),
    ("From: alice@example.org, a.liddell@example.org\r\nSender: alice@example.org", OK),
    ("From: Us: alice@example.org, a.liddell@example.org;", OK),
    ("From: alice@example.org\r\nReply-To: mallory@example.com", OK),
    ("From: alice@example.org\r\nX-From: mallory@example.com", OK),
    ("From: alice@example.org\r\nResent-From: alice@example.org", OK),
    ("From: alice@\uff45xample.org", OK),
    # Somebody else's.
    ("From: bob@example.org", FOREIGN),
    ("From: mallory@example.com", FOREIGN),
    ("From: alice@example.com", FOREIGN),
    ("From: alice@sub.example.org", FOREIGN),
    ("From: alicex@example.org", FOREIGN),
    ("From: +alice@example.org", FOREIGN),
    ("From: bob+alice@example.org", FOREIGN),
    ("From: alice@\u0435xample.org", FOREIGN),
    ("From: \u0430lice@example.org", FOREIGN),
    ("From: alice@xn--xample-2of.org", FOREIGN),
    ('From: "alice "@example.org', FOREIGN),
    ('From: "alice@example.org"@example.com', FOREIGN),
    ("From: alice@[192.0.2.1]", FOREIGN),
    ("From: alice@example.org, mallory@example.com", FOREIGN),
    ("From: mallory@example.com, alice@example.org", FOREIGN),
    ("From: Us: alice@example.org, bob@example.org;", FOREIGN),
    ('From: "alice@example.org" <mallory@example.com>', FOREIGN),
    ("From: alice <mallory@example.com> (alice@example.org)", FOREIGN),
    ("From: =?utf-8?q?alice=40example=2Eorg?= <mallory@example.com>", FOREIGN),
    ("From: alice@example.org\r\nSender: mallory@example.com", FOREIGN),
    ("From: alice@example.org\r\nResent-From: mallory@example.com", FOREIGN),
    ("From: alice@example.org\r\nResent-Sender: mallory@example.com", FOREIGN),
    (
        "Resent-From: alice@example.org\r\nResent-From: m@example.com\r\nFrom: alice@example.org",
        FOREIGN,
    ),
    ("From: mallory@example.com\r\nSender: alice@example.org", FOREIGN),
    # What two readers could read in two ways.
    ("Subject: no From", MALFORMED),
    ("", MALFORMED),
    ("From:", MALFORMED),
    ("From: ", MALFORMED),
    ("From: alice@example.org\r\nFrom: alice@example.org", MALFORMED),
    ("From: alice@example.org\r\nfrom: mallory@example.com", MALFORMED),
    ("From : alice@example.org", MALFORMED),
    ("From\t: alice@example.org", MALFORMED),
    ("From: alice@example.org\r\nSender : mallory@example.com", MALFORMED),
    ("From: alice@example.org\r\nFrom : mallory@example.com", MALFORMED),
    ("From: nobody:;", MALFORMED),
    ("From: undisclosed senders: ;", MALFORMED),
    ("From: alice", MALFORMED),
    ("From: alice@", MALFORMED),
    ("From: @example.org", MALFORMED),
    ("From: alice@example.org mallory@example.com", MALFORMED),
    ("From: alice@example.org <mallory@example.com>", MALFORMED),
    ("From: <alice@example.org> <mallory@example.com>", MALFORMED),
    ("From: <alice@example.org>, ", MALFORMED),
    ("From: ,alice@example.org", MALFORMED),
    ("From: alice@example.org,,a.liddell@example.org", MALFORMED),
    ("From: <alice@example.org", MALFORMED),
    ("From: alice@example.org>", MALFORMED),
    ("From: <<alice@example.org>>", MALFORMED),
    ("From: <@mallory.example:alice@example.org>", MALFORMED),
    ("From: Us: alice@example.org", MALFORMED),
    ("From: Us: Them: alice@example.org;;", MALFORMED),
    ("From: alice@example.org; mallory@example.com", MALFORMED),
    ("From: =?utf-8?q?alice?=@example.org", MALFORMED),
    ("From: =?utf-8?q?alice=40example=2Eorg?=", MALFORMED),
    ("From: alice@=?utf-8?q?example=2Eorg?=", MALFORMED),
    ("From: alice@example..org", MALFORMED),
    ("From: alice.@example.org", MALFORMED),
    ("From: al..ice@example.org", MALFORMED),
    ("From: al ice@example.org", MALFORMED),
    ("From: alice@exam ple.org", MALFORMED),
    ("From: alice@example_org", MALFORMED),
    ("From: alice(unclosed@example.org", MALFORMED),
    ('From: "unclosed <alice@example.org>', MALFORMED),
    ("From: alice@example.org\r\n \r\n mallory@example.com", MALFORMED),
    ("From: alice@example.org\0mallory@example.com", MALFORMED),
    ("From: alice\x01 <alice@example.org>", MALFORMED),
    ("From: alice@example.org\r\nSender:", MALFORMED),
    ("From: alice@example.org\r\nSender: alice@example.org, bob@example.org", MALFORMED),
    ("From: alice@example.org\r\nSender: x: alice@example.org;", MALFORMED),
    (
        "From: alice@example.org\r\nSender: alice@example.org\r\nSender: alice@example.org",
        MALFORMED,
    ),
    ("From: alice@example.org\r\nResent-From:", MALFORMED),
    ("From: alice@example.org\r\nResent-Sender: x: ;", MALFORMED),
    ("From mallory@example.com Mon Jan  1 00:00:00 2026\r\nFrom: alice@example.org", MALFORMED),
    ("From: alice@example.org\r\nthis is no header field\r\nX: y", MALFORMED),
    (" continuation\r\nFrom: alice@example.org", MALFORMED),
    ("\tFrom: mallory@example.com\r\nFrom: alice@example.org", MALFORMED),
    (": no name\r\nFrom: alice@example.org", MALFORMED),
    ("Fr\u043em: mallory@example.com\r\nFrom: alice@example.org", MALFORMED),
    (b"From: caf\xe9 <alice@example.org>", MALFORMED),
    (b"From: alice@example.org\r\nSender: \xff@example.org", MALFORMED),
]


def outcome(header: str | bytes, binding: SenderBinding = SenderBinding.STRICT) -> str:
    octets = header.encode() if isinstance(header, str) else header
    sender = AuthenticatedSender(ALICE, OWN, frozenset({"example.org"}), binding)
    try:
        sender.check(header_senders(scan_header(octets + b"\r\n\r\nbody\r\n")), {})
    except MessageRefused as error:
        return error.reply.enhanced
    return OK


@pytest.mark.parametrize(("header", "expected"), TABLE)
def test_a_header_gets_what_the_table_says(header: str | bytes, expected: str) -> None:
    assert outcome(header) == expected


def test_the_table_is_as_long_as_it_must_be() -> None:
    assert len(TABLE) >= 60
    assert len({header for header, _ in TABLE}) == len(TABLE)


def test_a_refusal_names_the_address_and_the_user() -> None:
    sender = AuthenticatedSender(ALICE, OWN, frozenset(), SenderBinding.STRICT)
    with pytest.raises(MessageRefused) as refused:
        sender.check([MailAddress("mallory", "example.com")], {})
    assert refused.value.reply.code == 550
    assert "mallory@example.com" in refused.value.reply.text
    assert "alice" in refused.value.reply.text


def test_with_binding_domain_an_address_that_is_nobodys_passes() -> None:
    sender = AuthenticatedSender(ALICE, OWN, frozenset({"example.org"}), SenderBinding.DOMAIN)
    sales = MailAddress("sales", "example.org")
    assert sender.needing_owner([sales, MailAddress("alice", "example.org")]) == [sales]
    sender.check([sales], {sales: None})
    sender.check([sales], {sales: ALICE})
    for owners in ({sales: UserName("bob", "users.demo")}, {}):
        with pytest.raises(MessageRefused):
            sender.check([sales], owners)
    with pytest.raises(MessageRefused):
        sender.check([MailAddress("sales", "example.com")], {})


def test_with_binding_any_every_sender_passes() -> None:
    sender = AuthenticatedSender(ALICE, OWN, frozenset(), SenderBinding.ANY)
    sender.check([MailAddress("mallory", "example.com")], {})
    assert sender.needing_owner([MailAddress("mallory", "example.com")]) == []


def test_without_a_separator_there_are_no_subaddresses() -> None:
    own = OwnAddresses(["alice@example.org"], "")
    assert MailAddress("alice", "example.org") in own
    assert MailAddress("alice+tag", "example.org") not in own
