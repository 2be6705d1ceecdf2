"""SEARCH in the store."""

import base64
import datetime as dt

import pytest
from netmail_nmap.domain.delivery import Expansion, Submission
from netmail_nmap.domain.errors import InvalidRequest, MailboxGone
from netmail_nmap.domain.search import (
    AllOf,
    AnyOf,
    BodyContains,
    Date,
    DateField,
    DateRelation,
    HasFlag,
    HeaderContains,
    Larger,
    ModseqAtLeast,
    Not,
    ObjectId,
    SearchKey,
    Smaller,
    TextContains,
    Uids,
)

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import Words

MESSAGES = (
    # 1
    (
        b"From: Bob <bob@example.net>\r\nSubject: Lunch on Monday\r\n"
        b"Date: Mon, 23 Nov 2026 23:30:00 -0800\r\n\r\nShall we eat at noon?\r\n"
    ),
    # 2: encoded words, split inside a character; base64 body
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.net>\r\n"
    b"Subject: =?utf-8?b?R3LDvMOfZSDD?=\r\n =?utf-8?b?vGJlcmFsbA==?=\r\n"
    b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes("Das Café hat geöffnet, kommt!".encode("latin-1")).replace(b"\n", b"\r\n"),
    # 3: folded, quoted-printable, multipart with an attachment that is no text
    (
        b"From: carol@example.com\r\nSubject: a rather\r\n long subject\r\nX-Empty:\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"The pa=\r\nssword is =C3=A4pfel.\r\n--b\r\n"
        b"Content-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\nc2VjcmV0\r\n--b--\r\n"
    ),
    # 4: raw UTF-8 and rubbish
    "From: dave@example.org\r\nSubject: Ünïcode raw\r\nDate: rubbish\r\n\r\nschön\r\n".encode(),
)


@pytest.fixture
async def mailbox(alice: int, do: Words) -> int:
    for number, data in enumerate(MESSAGES, 1):
        flags = {1: ("\\Seen", "Work"), 2: ("\\Flagged",)}.get(number, ())
        await do.append(alice, data=data, flags=flags)
    return (await do.open(alice)).state.mailbox_id


def day(text: str) -> int:
    return (dt.date.fromisoformat(text) - dt.date(1970, 1, 1)).days


SENT_23 = Date(DateField.SENT, DateRelation.ON, day("2026-11-23"))


@pytest.mark.parametrize(
    ("key", "uids"),
    [
        (AllOf(), [1, 2, 3, 4]),
        (HasFlag("\\seen"), [1]),
        (HasFlag("work"), [1]),
        (HasFlag("nobody-has-this"), []),
        (Not(HasFlag("\\Seen")), [2, 3, 4]),
        (AnyOf((HasFlag("\\Seen"), HasFlag("\\Flagged"))), [1, 2]),
        (AllOf((HasFlag("\\Seen"), HasFlag("\\Flagged"))), []),
        (HeaderContains("Subject", "lunch"), [1]),
        (HeaderContains("SUBJECT", "LUNCH ON"), [1]),
        (HeaderContains("Subject", "noon"), []),
        (HeaderContains("Subject", "bob"), []),
        (HeaderContains("From", "jürgen"), [2]),
        (HeaderContains("From", "JÜRGEN"), [2]),
        (HeaderContains("Subject", "Grüße überall"), [2]),
        (HeaderContains("Subject", "rather long"), [3]),
        (HeaderContains("X-Empty", ""), [3]),
        (HeaderContains("Date", ""), [1, 4]),
        (HeaderContains("Subject", "ünïcode"), [4]),
        (BodyContains("NOON"), [1]),
        (BodyContains("lunch"), []),
        (BodyContains("café"), [2]),
        (BodyContains("geöffnet, kommt"), [2]),
        (BodyContains("password is äpfel"), [3]),
        (BodyContains("secret"), []),
        (BodyContains("SCHÖN"), [4]),
        (TextContains("lunch"), [1]),
        (TextContains("kommt"), [2]),
        (TextContains("example.net"), [1, 2]),
        (Not(BodyContains("noon")), [2, 3, 4]),
        (SENT_23, [1]),
        (Date(DateField.SENT, DateRelation.SINCE, day("2026-11-24")), []),
        (Date(DateField.SENT, DateRelation.BEFORE, day("2026-11-24")), [1]),
        (Date(DateField.INTERNAL, DateRelation.ON, day("2023-11-14")), [1, 2, 3, 4]),
        (Date(DateField.INTERNAL, DateRelation.BEFORE, day("2023-11-14")), []),
        (Date(DateField.SAVED, DateRelation.SINCE, day("2027-01-15")), [1, 2, 3, 4]),
        (Larger(len(MESSAGES[0])), [2, 3]),
        (Smaller(len(MESSAGES[0])), [4]),
        (Uids([(2, 3), (9, 12)]), [2, 3]),
        (AnyOf((BodyContains("noon"), HeaderContains("Subject", "long"), HasFlag("x"))), [1, 3]),
        (AllOf((TextContains("e"), Not(HasFlag("\\Seen")), Smaller(100))), [4]),
    ],
    ids=str,
)
async def test_a_key_finds_its_messages(
    store: Opened, alice: int, mailbox: int, key: SearchKey, uids: list[int]
) -> None:
    found = await store.mail.search(alice, mailbox, key)
    assert list(found.uids) == uids


async def test_only_the_named_uids_are_looked_at(store: Opened, alice: int, mailbox: int) -> None:
    found = await store.mail.search(alice, mailbox, AllOf(), [2, 4, 9])
    assert found.uids == [2, 4]


async def test_a_mailbox_of_thousands_is_searched_whole(
    store: Opened, alice: int, do: Words
) -> None:
    def header(number: int) -> bytes:
        return b"From: a@example.net\r\nSubject: number %d\r\n\r\n" % (number % 100)

    submissions = [
        Submission(do.envelope("a@example.org"), header(number), (Expansion((alice,)),))
        for number in range(1, 9001)
    ]
    for first in range(0, len(submissions), 1000):
        await store.queue.submit(submissions[first : first + 1000])
    mailbox_id = (await do.open(alice)).state.mailbox_id
    gone = (1, *range(900, 1100), *range(4000, 6500), 8999, 9000)
    await store.mail.expunge(alice, mailbox_id, gone, only_deleted=False)
    key = HeaderContains("Subject", "number 77")
    expected = [uid for uid in range(77, 9001, 100) if uid not in gone]
    assert list((await store.mail.search(alice, mailbox_id, key)).uids) == expected
    every = await store.mail.search(alice, mailbox_id, Not(key))
    assert len(every.uids) == 9000 - len(gone) - len(expected)
    assert list(every.uids) == sorted(every.uids)


async def test_a_search_of_headers_in_an_empty_mailbox_finds_nothing(
    store: Opened, alice: int, do: Words
) -> None:
    mailbox_id = (await do.open(alice)).state.mailbox_id
    found = await store.mail.search(alice, mailbox_id, HeaderContains("Subject", "x"))
    assert list(found.uids) == []


async def test_a_search_of_headers_in_another_users_mailbox_finds_no_mailbox(
    store: Opened, bob: int, mailbox: int
) -> None:
    with pytest.raises(MailboxGone):
        await store.mail.search(bob, mailbox, HeaderContains("Subject", "lunch"))


async def test_a_search_by_modseq_tells_the_highest(
    store: Opened, alice: int, mailbox: int, do: Words
) -> None:
    state = (await do.open(alice)).state
    await do.set_flags(alice, mailbox, [3], "\\Answered")
    found = await store.mail.search(alice, mailbox, ModseqAtLeast(state.highest_modseq + 1))
    assert found.uids == [3]
    assert found.highest_modseq == state.highest_modseq + 1
    plain = await store.mail.search(alice, mailbox, AllOf())
    assert plain.highest_modseq == 0


async def test_a_search_by_object_id(store: Opened, alice: int, mailbox: int, do: Words) -> None:
    object_id = (await do.open(alice)).messages.object_ids[1]
    found = await store.mail.search(alice, mailbox, ObjectId(object_id))
    assert found.uids == [2]


async def test_a_search_in_another_users_mailbox_finds_no_mailbox(
    store: Opened, bob: int, mailbox: int
) -> None:
    with pytest.raises(MailboxGone):
        await store.mail.search(bob, mailbox, AllOf())


async def test_a_bottomless_key_is_refused(store: Opened, alice: int, mailbox: int) -> None:
    key: SearchKey = AllOf()
    for _ in range(200):
        key = Not(key)
    with pytest.raises(InvalidRequest):
        await store.mail.search(alice, mailbox, key)
