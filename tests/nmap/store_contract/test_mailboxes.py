"""The hierarchy of mailboxes."""

import pytest
from netmail_nmap.domain.errors import (
    InvalidRequest,
    MailboxExists,
    MailboxHasChildren,
    MailboxNotFound,
    SpecialUseTaken,
    UserNotFound,
)
from netmail_nmap.domain.mail import MailboxInfo

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import Words


async def names(store: Opened, user: int) -> list[str]:
    return [info.name for info in await store.mail.list_mailboxes(user)]


async def one(store: Opened, user: int, name: str) -> MailboxInfo:
    (info,) = await store.mail.list_mailboxes(user, name=name, with_status=True)
    return info


async def test_a_new_user_has_inbox_and_the_special_mailboxes(store: Opened, alice: int) -> None:
    infos = await store.mail.list_mailboxes(alice)
    assert {info.name: info.special_use for info in infos} == {
        "INBOX": "",
        "Sent": "Sent",
        "Trash": "Trash",
        "Drafts": "Drafts",
        "Junk": "Junk",
        "Archive": "Archive",
    }
    assert all(info.subscribed and info.selectable for info in infos)


async def test_a_deleted_special_mailbox_does_not_come_back(store: Opened, alice: int) -> None:
    await store.mail.list_mailboxes(alice)
    await store.mail.delete_mailbox(alice, "Junk")
    infos = {info.name: info for info in await store.mail.list_mailboxes(alice)}
    assert (infos["Junk"].subscribed, infos["Junk"].selectable) == (True, False)
    await store.mail.set_subscribed(alice, "Junk", subscribed=False)
    assert "Junk" not in await names(store, alice)


async def test_nobody_else_has_mailboxes(store: Opened) -> None:
    with pytest.raises(UserNotFound):
        await store.mail.list_mailboxes(4711)
    with pytest.raises(UserNotFound):
        await store.mail.create_mailbox(4711, "x")


@pytest.mark.parametrize("spelling", ["inbox", "InBox", "INBOX"])
async def test_inbox_has_one_name_in_every_spelling(
    store: Opened, alice: int, spelling: str
) -> None:
    assert (await one(store, alice, spelling)).name == "INBOX"
    with pytest.raises(MailboxExists):
        await store.mail.create_mailbox(alice, spelling)


async def test_names_compare_with_case_and_may_be_unicode(store: Opened, alice: int) -> None:
    await store.mail.create_mailbox(alice, "Entwürfe")
    await store.mail.create_mailbox(alice, "entwürfe")
    assert {"Entwürfe", "entwürfe"} <= set(await names(store, alice))


@pytest.mark.parametrize("name", ["", "/", "/a", "a//b", "a\x00b", "a\nb", "x" * 256])
async def test_odd_names_are_refused(store: Opened, alice: int, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.mail.create_mailbox(alice, name)


async def test_a_trailing_separator_only_announces_children(store: Opened, alice: int) -> None:
    info = await store.mail.create_mailbox(alice, "work/")
    assert info.name == "work"


async def test_names_above_a_mailbox_are_listed_but_cannot_be_selected(
    store: Opened, alice: int, do: Words
) -> None:
    await store.mail.create_mailbox(alice, "a/b/c")
    infos = {info.name: info for info in await store.mail.list_mailboxes(alice)}
    assert (infos["a"].selectable, infos["a"].has_children) == (False, True)
    assert (infos["a/b"].selectable, infos["a/b"].has_children) == (False, True)
    assert (infos["a/b/c"].selectable, infos["a/b/c"].has_children) == (True, False)
    with pytest.raises(MailboxNotFound):
        await do.open(alice, "a/b")


async def test_one_mailbox_has_a_special_use(store: Opened, alice: int) -> None:
    with pytest.raises(SpecialUseTaken):
        await store.mail.create_mailbox(alice, "Gone", "Trash")
    await store.mail.delete_mailbox(alice, "Trash")
    assert (await store.mail.create_mailbox(alice, "Gone", "Trash")).special_use == "Trash"
    with pytest.raises(InvalidRequest):
        await store.mail.create_mailbox(alice, "Every", "All")


async def test_deleting_keeps_the_children(store: Opened, alice: int) -> None:
    await store.mail.create_mailbox(alice, "a")
    await store.mail.create_mailbox(alice, "a/b")
    await store.mail.delete_mailbox(alice, "a")
    infos = {info.name: info for info in await store.mail.list_mailboxes(alice)}
    assert not infos["a"].selectable
    with pytest.raises(MailboxHasChildren):
        await store.mail.delete_mailbox(alice, "a")
    await store.mail.delete_mailbox(alice, "a/b")
    assert "a" not in await names(store, alice)


async def test_inbox_and_what_is_not_there_cannot_be_deleted(store: Opened, alice: int) -> None:
    with pytest.raises(InvalidRequest):
        await store.mail.delete_mailbox(alice, "inbox")
    with pytest.raises(MailboxNotFound):
        await store.mail.delete_mailbox(alice, "nothing")


async def test_a_mailbox_made_again_has_a_greater_uidvalidity(store: Opened, alice: int) -> None:
    await store.mail.create_mailbox(alice, "a")
    first = await one(store, alice, "a")
    await store.mail.delete_mailbox(alice, "a")
    await store.mail.create_mailbox(alice, "a")
    second = await one(store, alice, "a")
    assert first.status is not None
    assert second.status is not None
    assert second.status.uid_validity > first.status.uid_validity
    assert second.object_id != first.object_id


async def test_renaming_takes_the_children_along_and_keeps_the_mail(
    store: Opened, alice: int, do: Words
) -> None:
    await store.mail.create_mailbox(alice, "a")
    await store.mail.create_mailbox(alice, "a/b")
    await store.mail.create_mailbox(alice, "ab")
    await do.append(alice, "a/b")
    before = await one(store, alice, "a/b")
    await store.mail.rename_mailbox(alice, "a", "x/y")
    assert {"x", "x/y", "x/y/b", "ab"} <= set(await names(store, alice))
    assert "a" not in await names(store, alice)
    after = await one(store, alice, "x/y/b")
    assert (after.object_id, after.status) == (before.object_id, before.status)


async def test_a_rename_refuses_what_cannot_be(store: Opened, alice: int) -> None:
    await store.mail.create_mailbox(alice, "a")
    with pytest.raises(MailboxExists):
        await store.mail.rename_mailbox(alice, "a", "Sent")
    with pytest.raises(MailboxNotFound):
        await store.mail.rename_mailbox(alice, "nothing", "b")
    with pytest.raises(InvalidRequest):
        await store.mail.rename_mailbox(alice, "a", "a/b")


async def test_renaming_inbox_moves_its_messages_only(store: Opened, alice: int, do: Words) -> None:
    await store.mail.create_mailbox(alice, "INBOX/sub")
    await do.append(alice, flags=("\\Seen", "$Work"))
    await store.mail.rename_mailbox(alice, "INBOX", "old")
    assert await do.flags(alice) == {}
    assert await do.flags(alice, "old") == {1: "$Work \\Seen"}
    assert "INBOX/sub" in await names(store, alice)


async def test_subscriptions_outlive_their_mailboxes(store: Opened, alice: int) -> None:
    await store.mail.create_mailbox(alice, "a")
    assert not (await one(store, alice, "a")).subscribed
    await store.mail.set_subscribed(alice, "a", subscribed=True)
    assert (await one(store, alice, "a")).subscribed
    await store.mail.delete_mailbox(alice, "a")
    infos = {info.name: info for info in await store.mail.list_mailboxes(alice)}
    assert (infos["a"].subscribed, infos["a"].selectable) == (True, False)
    await store.mail.set_subscribed(alice, "a", subscribed=False)
    assert "a" not in await names(store, alice)


async def test_status_counts_without_looking_at_messages(
    store: Opened, alice: int, do: Words
) -> None:
    await do.append(alice)
    await do.append(alice, flags=("\\Seen", "\\Deleted"))
    status = (await one(store, alice, "INBOX")).status
    assert status is not None
    assert (status.messages, status.unseen, status.deleted, status.recent) == (2, 1, 1, 2)
    assert status.size == 2 * len(
        b"From: bob@example.net\r\nSubject: greetings\r\n\r\nHello there.\r\n"
    )
    assert status.uid_next == 3


async def test_users_do_not_see_each_other(store: Opened, alice: int, bob: int, do: Words) -> None:
    await store.mail.create_mailbox(alice, "secret")
    await do.append(alice, "secret")
    assert "secret" not in await names(store, bob)
    with pytest.raises(MailboxNotFound):
        await do.open(bob, "secret")
