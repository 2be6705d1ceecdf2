"""mbox and Maildir++ by themselves: nothing of a message changes, malformed files are named."""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from netmail_cli.mailfiles.maildir import (
    MaildirFolder,
    maildir_mailboxes,
    read_folder,
    read_subscriptions,
    write_subscriptions,
)
from netmail_cli.mailfiles.mbox import mbox_entry, read_mbox
from netmail_cli.mailfiles.message import FileMessage, MailFileError, Problem
from netmail_cli.mailfiles.names import folder_name, mailbox_name

LIMIT = 100_000

_PIECES = b"From |>|>From |\n|\r\n|\r|a|:|Status: R\n|\0\xff| ".split(b"|")
_LINES = [b"From a Thu Jan  1 00:00:00 1970\n", b"X-NetMail-Export: 1 3 0 INBOX\n"]
pieces = st.sampled_from([*_PIECES, *_LINES])
octets = st.lists(pieces, max_size=30).map(b"".join) | st.binary(max_size=60)
flags = st.lists(
    st.sampled_from(["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Work", "a+b"]),
    unique=True,
).map(tuple)
names = st.sampled_from(["INBOX", "Sent", "Työ/Projekti & muut", "a.b/c\\d", "~/x"])
messages = st.builds(FileMessage, names, flags, st.integers(-(10**12), 10**12), octets)


def read(data: bytes, limit: int = LIMIT) -> list[FileMessage | Problem]:
    return list(read_mbox(io.BytesIO(data), "f", limit=limit))


def content(found: Sequence[FileMessage | Problem]) -> list[tuple[object, ...]]:
    assert not [one for one in found if isinstance(one, Problem)]
    return [
        (one.mailbox, frozenset(one.flags), one.date, one.data)
        for one in found
        if isinstance(one, FileMessage)
    ]


@given(st.lists(messages, max_size=4))
@example([FileMessage("INBOX", (), 0, b""), FileMessage("INBOX", (), 0, b"\n")])
@example([FileMessage("INBOX", (), 0, b"A: b\r\n\r\n>From x"), FileMessage("INBOX", (), 0, b"x")])
def test_an_mbox_gives_back_what_was_put_into_it(given_messages: list[FileMessage]) -> None:
    data = b"".join(mbox_entry(message) for message in given_messages)
    assert content(read(data)) == content(given_messages)


@given(messages)
def test_no_line_of_a_message_looks_like_a_separator(message: FileMessage) -> None:
    lines = mbox_entry(message).split(b"\n")
    assert [line for line in lines if line.startswith(b"From ")] == [lines[0]]


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_cut_mbox_gives_its_whole_messages_and_names_the_other(
    given_messages: list[FileMessage], data: st.DataObject
) -> None:
    entries = [mbox_entry(message) for message in given_messages]
    whole = b"".join(entries[:-1])
    last = entries[-1]
    cut = data.draw(st.integers(len("From "), len(last) - 1))
    found = read(whole + last[:cut])
    assert content(found[: len(given_messages) - 1]) == content(given_messages[:-1])
    assert len(found) == len(given_messages)
    assert isinstance(found[-1], Problem)


@given(st.binary(max_size=300) | octets)
def test_whatever_the_file_it_is_read_or_refused(data: bytes) -> None:
    for start in (b"", b"From ", b"From a@b Thu Jan  1 00:00:00 1970\n"):
        with contextlib.suppress(MailFileError):
            read(start + data)


FOREIGN = b"""From eve@example.net  Wed Nov 25 17:00:00 2026
Subject: one
Status: RO
X-Status: AF
X-Keywords: $Work later
  and-more

>From here on
From the body, which is no separator
>>From there

From bob Wed Nov 25 17:00 UTC 2026 +0200
Subject: two

text

From nobody knows when
nothing
"""


def test_an_mbox_of_another_program_is_understood() -> None:
    first, second = content(read(FOREIGN))
    assert first == (
        "INBOX",
        frozenset(("\\Seen", "\\Answered", "\\Flagged", "$Work", "later", "and-more")),
        1795626000,
        b"Subject: one\n\nFrom here on\nFrom the body, which is no separator\n>From there\n",
    )
    assert second[2] == 1795626000 - 7200
    assert second[3] == b"Subject: two\n\ntext\n\nFrom nobody knows when\nnothing\n"


def test_a_message_with_crlf_keeps_it_and_loses_the_empty_line_before_the_separator() -> None:
    data = FOREIGN.replace(b"\n", b"\r\n")
    first, second = content(read(data))
    assert repr(first[3]).endswith(r">From there\r\n'")
    assert first[:3] == content(read(FOREIGN))[0][:3]
    assert second[2] == 1795626000 - 7200


@pytest.mark.parametrize("data", [b"Subject: a message\n\ntext\n", b"\x1f\x8b\x08\0rubbish", b"x"])
def test_what_is_no_mbox_is_refused(data: bytes) -> None:
    with pytest.raises(MailFileError, match="f is not an mbox"):
        read(data)


def test_an_empty_mbox_has_no_messages() -> None:
    assert read(b"") == read(b"\n\n") == []


def test_too_large_messages_are_named_and_the_others_found() -> None:
    small = FileMessage("INBOX", (), 0, b"A: b\r\n\r\nsmall")
    large = FileMessage("INBOX", (), 0, b"A: b\r\n\r\n" + b"x" * 2000)
    found = read(b"".join(map(mbox_entry, (small, large, small))), limit=1000)
    assert [isinstance(one, Problem) for one in found] == [False, True, False]
    foreign = b"From a Thu Jan  1 00:00:00 1970\nA: b\n\n" + b"x\n" * 1000 + b"\n"
    found = read(foreign + foreign[:40], limit=1000)
    assert [isinstance(one, Problem) for one in found] == [True, False]


def test_a_message_that_was_changed_is_named_and_the_next_one_found() -> None:
    one = FileMessage("INBOX", ("\\Seen",), 0, b"A: b\r\n\r\ntext\r\n")
    changed = mbox_entry(one).replace(b"text", b"longer text")
    lines = mbox_entry(one).replace(b"Status: RO\n", b"")
    found = read(changed + lines + mbox_entry(one))
    reasons = [str(x) if isinstance(x, Problem) else "good" for x in found]
    assert reasons[0] == "f, message 1: is not as long as it was (14 octets)"
    assert "another program" in reasons[1]
    assert reasons[2] == "good"
    without = mbox_entry(one).split(b"\n")
    del without[1]
    (taken,) = read(b"\n".join(without))
    assert isinstance(taken, FileMessage)
    assert (taken.data, taken.flags, taken.exact) == (one.data, one.flags, False)


# -- Maildir ------------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1), min_size=1)
)
def test_a_mailbox_has_its_name_again(parts: list[str]) -> None:
    name = "/".join(part.replace("/", "-") for part in parts)
    if name.upper() == "INBOX":
        name = "INBOX"
    folder = folder_name(name)
    assert mailbox_name(folder) == name
    assert "/" not in folder
    assert folder not in (".", "..")


@pytest.mark.parametrize("folder", [".", ".a..b", ".&", ".a&b", ".&AAA", ".é", ".a\\2f"])
def test_names_that_no_mailbox_can_have_are_refused(folder: str) -> None:
    with pytest.raises(MailFileError):
        mailbox_name(folder)


def export(root: Path, message: FileMessage, uid: int) -> str:
    folder = MaildirFolder(root, message.mailbox)
    base = folder.base(message.date or 0, uid, 7, len(message.data))
    folder.add(base, message)
    folder.finish()
    return base


def imported(root: Path) -> list[FileMessage | Problem]:
    found, problems = maildir_mailboxes(root)
    return [
        *problems,
        *(one for name, folder in found for one in read_folder(name, folder, limit=LIMIT)),
    ]


def test_a_maildir_gives_back_what_was_put_into_it(tmp_path: Path) -> None:
    keywords = tuple(f"k{number}" for number in range(40))
    given_messages = [
        FileMessage("INBOX", ("\\Seen", "\\Draft"), 1_700_000_000, b"A: b\r\n\r\nx"),
        FileMessage("INBOX", keywords, -5, b"A: b\n\nlone LF\n"),
        FileMessage("INBOX", ("$Forwarded", "\\Deleted", "k39", "k0"), 10**10, b""),
        FileMessage("Työ/a.b", ("\\Answered", "\\Flagged"), 0, b"\0\xff\r\n"),
    ]
    MaildirFolder(tmp_path, "INBOX")
    for uid, message in enumerate(given_messages, 1):
        export(tmp_path, message, uid)
    found = imported(tmp_path)
    assert content(found) == content(given_messages)
    assert all(one.exact for one in found if isinstance(one, FileMessage))
    assert not list(tmp_path.rglob("tmp/*"))
    modes = {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")}
    assert modes == {0}


def test_a_second_export_renames_what_got_other_flags(tmp_path: Path) -> None:
    message = FileMessage("INBOX", ("\\Seen",), 0, b"x")
    base = export(tmp_path, message, 1)
    folder = MaildirFolder(tmp_path, "INBOX")
    assert folder.has(base)
    folder.set_flags(base, ("\\Flagged", "$Work"))
    folder.finish()
    (found,) = imported(tmp_path)
    assert isinstance(found, FileMessage)
    assert set(found.flags) == {"\\Flagged", "$Work"}


def test_a_maildir_of_dovecot_is_understood(tmp_path: Path) -> None:
    for part in ("cur", "new", "tmp", ".Work.Old/cur", ".Work.Old/new"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "dovecot-keywords").write_text("0 $MDNSent\n2 NonJunk\n")
    read_one = tmp_path / "cur" / "1700000000.M1P2.host,S=5,W=6:2,FRSac"
    read_one.write_bytes(b"a\r\nb\r\n")
    os.utime(read_one, (1_600_000_000, 1_600_000_000))
    (tmp_path / "new" / "1700000001.M1P2.host").write_bytes(b"new\r\n")
    (tmp_path / ".Work.Old" / "cur" / "1.host:2,PTZz").write_bytes(b"old\r\n")
    (tmp_path / "tmp" / "half").write_bytes(b"half")
    (tmp_path / "subscriptions").write_text("INBOX\nWork.Old\n")
    good = [one for one in imported(tmp_path) if isinstance(one, FileMessage)]
    assert [(one.mailbox, set(one.flags), one.data) for one in good] == [
        ("INBOX", {"\\Flagged", "\\Answered", "\\Seen", "$MDNSent", "NonJunk"}, b"a\r\nb\r\n"),
        ("INBOX", set(), b"new\r\n"),
        ("Work/Old", {"$Forwarded", "\\Deleted"}, b"old\r\n"),
    ]
    assert good[0].date == 1_600_000_000
    (problem,) = [str(one) for one in imported(tmp_path) if isinstance(one, Problem)]
    assert "keywords z" in problem
    assert read_subscriptions(tmp_path) == ["INBOX", "Work/Old"]


def test_links_pipes_and_odd_folders_are_named_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "mail"
    (root / "cur").mkdir(parents=True)
    secret = tmp_path / "secret"
    (secret / "cur").mkdir(parents=True)
    (secret / "cur" / "1").write_bytes(b"secret\r\n")
    (root / "cur" / "link:2,S").symlink_to(secret / "cur" / "1")
    (root / ".Elsewhere").symlink_to(secret)
    os.mkfifo(root / "cur" / "pipe")
    (root / "cur" / "folder").mkdir()
    (root / "cur" / "huge").write_bytes(b"x" * (LIMIT + 1))
    (root / ".&bad" / "cur").mkdir(parents=True)
    (root / "cur" / "5.U1V1.netmail,S=9:2,").write_bytes(b"short")
    found = imported(root)
    assert all(isinstance(one, Problem) for one in found)
    assert len(found) == 7
    assert not any("secret" in str(one) for one in found)


def test_what_is_no_maildir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MailFileError, match="not a Maildir"):
        maildir_mailboxes(tmp_path)


def test_subscriptions_come_back(tmp_path: Path) -> None:
    names_given = ["INBOX", "Työ/a.b", "Sent"]
    write_subscriptions(tmp_path, names_given)
    assert read_subscriptions(tmp_path) == names_given
    assert read_subscriptions(tmp_path / "nowhere") is None
