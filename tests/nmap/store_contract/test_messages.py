"""Messages of a mailbox: opening, changes, what sessions are told."""

import pytest
from netmail_nmap.domain.errors import (
    InvalidRequest,
    MailboxGone,
    MailboxNotFound,
    OverQuota,
    TooManyKeywords,
)
from netmail_nmap.domain.mail import (
    AppendTarget,
    FetchRequest,
    OpenRequest,
    StoreMode,
    StoreRequest,
)

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import PLAIN, Words


async def test_an_opened_mailbox_lists_its_messages_in_uid_order(alice: int, do: Words) -> None:
    for flags in (("\\Seen",), (), ("\\Flagged", "Later")):
        await do.append(alice, flags=flags)
    view = await do.open(alice)
    assert view.messages.uids == [1, 2, 3]
    assert list(view.messages.sizes) == [len(PLAIN)] * 3
    assert len(set(view.messages.object_ids)) == 3
    assert view.state.keywords == ("Later",)
    assert (view.state.messages, view.state.uid_next) == (3, 4)
    assert max(view.messages.modseqs) == view.state.highest_modseq
    assert await do.flags(alice) == {1: "\\Seen", 2: "", 3: "Later \\Flagged"}


async def test_recent_messages_belong_to_the_first_session_that_claims_them(
    alice: int, do: Words
) -> None:
    await do.append(alice)
    assert (await do.open(alice)).state.first_recent_uid == 1
    assert (await do.open(alice, claim=True)).state.first_recent_uid == 1
    assert (await do.open(alice, claim=True)).state.first_recent_uid == 2
    await do.append(alice)
    assert (await do.open(alice)).state.first_recent_uid == 2


async def test_a_session_that_is_there_claims_by_syncing(
    store: Opened, alice: int, do: Words
) -> None:
    state = (await do.open(alice, claim=True)).state
    await do.append(alice)
    first = await store.mail.sync_mailbox(
        alice, state.mailbox_id, state.highest_modseq, claim_recent=True
    )
    second = await store.mail.sync_mailbox(
        alice, state.mailbox_id, state.highest_modseq, claim_recent=True
    )
    assert first.state.first_recent_uid == 1
    assert second.state.first_recent_uid == 2


async def test_a_sync_tells_what_changed_and_nothing_else(
    store: Opened, alice: int, do: Words
) -> None:
    for _ in range(4):
        await do.append(alice)
    state = (await do.open(alice)).state
    await do.set_flags(alice, state.mailbox_id, [2], "\\Seen")
    await store.mail.expunge(alice, state.mailbox_id, [3], only_deleted=False)
    await do.append(alice)
    view = await store.mail.sync_mailbox(alice, state.mailbox_id, state.highest_modseq)
    assert view.messages.uids == [2, 5]
    assert view.expunged_uids == [3]
    assert view.delta
    again = await store.mail.sync_mailbox(alice, state.mailbox_id, view.state.highest_modseq)
    assert (list(again.messages.uids), list(again.expunged_uids)) == ([], [])


async def test_reopening_tells_only_what_changed(store: Opened, alice: int, do: Words) -> None:
    for _ in range(3):
        await do.append(alice)
    known = (await do.open(alice)).state
    await store.mail.expunge(alice, known.mailbox_id, [1], only_deleted=False)
    await do.set_flags(alice, known.mailbox_id, [3], "\\Answered")
    request = OpenRequest(
        alice, "INBOX", known_mailbox_id=known.mailbox_id, known_modseq=known.highest_modseq
    )
    view = await store.mail.open_mailbox(request)
    assert view.delta
    assert (view.messages.uids, view.expunged_uids) == ([3], [1])
    other = await store.mail.open_mailbox(
        OpenRequest(alice, "INBOX", known_mailbox_id=99, known_modseq=known.highest_modseq)
    )
    assert not other.delta
    assert other.messages.uids == [2, 3]


async def test_every_change_raises_the_modseq_and_no_change_does_not(
    store: Opened, alice: int, do: Words
) -> None:
    await do.append(alice, flags=("\\Seen",))
    state = (await do.open(alice)).state
    same = await store.mail.store_flags(
        StoreRequest(alice, state.mailbox_id, [1], StoreMode.ADD, ("\\Seen",))
    )
    assert same.highest_modseq == same.previous_modseq == state.highest_modseq
    assert same.changed.uids == [1]
    changed = await store.mail.store_flags(
        StoreRequest(alice, state.mailbox_id, [1], StoreMode.REMOVE, ("\\Seen",))
    )
    assert changed.previous_modseq == state.highest_modseq
    assert changed.highest_modseq == state.highest_modseq + 1
    assert changed.changed.modseqs == [changed.highest_modseq]


@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        (StoreMode.REPLACE, "$B \\Draft"),
        (StoreMode.ADD, "$A $B \\Draft \\Seen"),
        (StoreMode.REMOVE, "$A \\Seen"),
    ],
)
async def test_flags_are_replaced_added_removed(
    alice: int, do: Words, mode: StoreMode, flags: str
) -> None:
    await do.append(alice, flags=("\\Seen", "$A"))
    mailbox = (await do.open(alice)).state.mailbox_id
    await do.set_flags(alice, mailbox, [1], "\\draft", "$B", mode=mode)
    assert await do.flags(alice) == {1: flags}


async def test_removing_system_flags_keeps_the_keywords(alice: int, do: Words) -> None:
    await do.append(alice, flags=("\\Seen", "\\Flagged", "$Work"))
    mailbox = (await do.open(alice)).state.mailbox_id
    await do.set_flags(alice, mailbox, [1], "\\Seen", "\\Flagged", mode=StoreMode.REMOVE)
    assert await do.flags(alice) == {1: "$Work"}


async def test_keywords_compare_without_case_and_keep_their_first_spelling(
    alice: int, do: Words
) -> None:
    await do.append(alice, flags=("$Forwarded",))
    await do.append(alice, flags=("$FORWARDED",))
    assert await do.flags(alice) == {1: "$Forwarded", 2: "$Forwarded"}


@pytest.mark.parametrize("flag", ["", "two words", "par(en", 'quo"te', "\\Unknown", "ä", "a\x7f"])
async def test_what_is_no_flag_is_refused(alice: int, do: Words, flag: str) -> None:
    with pytest.raises(InvalidRequest):
        await do.append(alice, flags=(flag,))
    assert await do.flags(alice) == {}


async def test_unused_keywords_make_room_for_new_ones(alice: int, do: Words) -> None:
    await do.append(alice, flags=tuple(f"k{number}" for number in range(58)))
    with pytest.raises(TooManyKeywords):
        await do.append(alice, flags=("one-more",))
    mailbox = (await do.open(alice)).state.mailbox_id
    await do.set_flags(alice, mailbox, [1], "k7", mode=StoreMode.REMOVE)
    await do.append(alice, flags=("one-more",))
    view = await do.open(alice)
    assert "one-more" in view.state.keywords
    assert "k7" not in view.state.keywords


async def test_unchanged_since_spares_what_changed(store: Opened, alice: int, do: Words) -> None:
    for _ in range(3):
        await do.append(alice)
    state = (await do.open(alice)).state
    await do.set_flags(alice, state.mailbox_id, [2], "\\Flagged")
    stored = await store.mail.store_flags(
        StoreRequest(
            alice, state.mailbox_id, [1, 2, 3], StoreMode.ADD, ("\\Seen",), state.highest_modseq
        )
    )
    assert stored.modified_uids == [2]
    assert stored.changed.uids == [1, 3]
    assert await do.flags(alice) == {1: "\\Seen", 2: "\\Flagged", 3: "\\Seen"}


async def test_a_copy_keeps_flags_dates_and_object_id(store: Opened, alice: int, do: Words) -> None:
    await do.append(alice, "Sent", flags=("other",))
    await do.append(alice, flags=("\\Seen", "$Work"))
    source = await do.open(alice)
    copied = await store.mail.copy(alice, source.state.mailbox_id, [1, 99], "Sent")
    assert (copied.source_uids, copied.target_uids) == ([1], [2])
    assert await do.flags(alice, "Sent") == {1: "other", 2: "$Work \\Seen"}
    assert await do.flags(alice) == {1: "$Work \\Seen"}
    target = await do.open(alice, "Sent")
    assert target.messages.object_ids[1] == source.messages.object_ids[0]
    (message,) = await do.fetch(
        FetchRequest(alice, target.state.mailbox_id, [2], internal_date=True)
    )
    assert message.internal_date == 1_700_000_000


async def test_a_move_is_a_copy_that_expunges(store: Opened, alice: int, do: Words) -> None:
    for _ in range(3):
        await do.append(alice)
    state = (await do.open(alice)).state
    moved = await store.mail.move(alice, state.mailbox_id, [1, 3], "Archive")
    assert (moved.source_uids, moved.target_uids) == ([1, 3], [1, 2])
    assert moved.previous_modseq == state.highest_modseq
    assert await do.flags(alice) == {2: ""}
    view = await store.mail.sync_mailbox(alice, state.mailbox_id, state.highest_modseq)
    assert view.expunged_uids == [1, 3]
    assert view.state.highest_modseq == moved.highest_modseq


async def test_a_move_within_a_mailbox_gives_new_uids(store: Opened, alice: int, do: Words) -> None:
    await do.append(alice)
    state = (await do.open(alice)).state
    moved = await store.mail.move(alice, state.mailbox_id, [1], "INBOX")
    assert (moved.source_uids, moved.target_uids) == ([1], [2])
    assert moved.previous_modseq == state.highest_modseq
    assert await do.flags(alice) == {2: ""}
    (info,) = await store.mail.list_mailboxes(alice, name="INBOX", with_status=True)
    assert info.status is not None
    assert info.status.messages == 1


async def test_copies_to_nowhere_change_nothing(store: Opened, alice: int, do: Words) -> None:
    await do.append(alice)
    state = (await do.open(alice)).state
    with pytest.raises(MailboxNotFound):
        await store.mail.copy(alice, state.mailbox_id, [1], "nowhere")
    with pytest.raises(MailboxNotFound):
        await store.mail.move(alice, state.mailbox_id, [1], "nowhere")
    assert await do.flags(alice) == {1: ""}


async def test_expunging_takes_what_is_marked_or_what_is_named(
    store: Opened, alice: int, do: Words
) -> None:
    for flags in (("\\Deleted",), (), ("\\Deleted",), ()):
        await do.append(alice, flags=flags)
    state = (await do.open(alice)).state
    mailbox = state.mailbox_id
    named = await store.mail.expunge(alice, mailbox, [2, 3], only_deleted=True)
    assert named.uids == [3]
    assert named.previous_modseq == state.highest_modseq
    marked = await store.mail.expunge(alice, mailbox, None, only_deleted=True)
    assert marked.uids == [1]
    forced = await store.mail.expunge(alice, mailbox, [4], only_deleted=False)
    assert forced.uids == [4]
    nothing = await store.mail.expunge(alice, mailbox, None, only_deleted=True)
    assert list(nothing.uids) == []
    assert nothing.highest_modseq == forced.highest_modseq
    assert await do.flags(alice) == {2: ""}


async def test_uids_are_never_used_again(store: Opened, alice: int, do: Words) -> None:
    await do.append(alice)
    mailbox = (await do.open(alice)).state.mailbox_id
    await store.mail.expunge(alice, mailbox, [1], only_deleted=False)
    assert await do.append(alice) == 2


async def test_the_quota_counts_every_copy_and_gives_back_what_goes(
    store: Opened, do: Words
) -> None:
    user = await store.make_user("carol", 3 * len(PLAIN))
    await do.append(user)
    mailbox = (await do.open(user)).state.mailbox_id
    await store.mail.copy(user, mailbox, [1], "Sent")
    assert (await store.mail.quota(user)).used_bytes == 2 * len(PLAIN)
    await do.append(user)
    with pytest.raises(OverQuota):
        await do.append(user)
    with pytest.raises(OverQuota):
        await store.mail.copy(user, mailbox, [1], "Sent")
    await store.mail.move(user, mailbox, [1], "Trash")
    await store.mail.delete_mailbox(user, "Trash")
    await store.mail.expunge(user, mailbox, [2], only_deleted=False)
    quota = await store.mail.quota(user)
    assert (quota.used_bytes, quota.limit_bytes) == (len(PLAIN), 3 * len(PLAIN))


async def test_a_deleted_mailbox_is_gone_for_sessions_that_have_it_open(
    store: Opened, alice: int, do: Words
) -> None:
    await store.mail.create_mailbox(alice, "a")
    mailbox = (await do.open(alice, "a")).state.mailbox_id
    await store.mail.delete_mailbox(alice, "a")
    with pytest.raises(MailboxGone):
        await store.mail.sync_mailbox(alice, mailbox, 1)
    with pytest.raises(MailboxGone):
        await do.set_flags(alice, mailbox, [1], "\\Seen")
    with pytest.raises(MailboxGone):
        await do.fetch(FetchRequest(alice, mailbox, [1], flags=True))


async def test_a_mailbox_id_of_another_user_opens_nothing(
    store: Opened, alice: int, bob: int, do: Words
) -> None:
    await do.append(alice)
    mailbox = (await do.open(alice)).state.mailbox_id
    with pytest.raises(MailboxGone):
        await do.fetch(FetchRequest(bob, mailbox, [1], body=True))
    with pytest.raises(MailboxGone):
        await store.mail.expunge(bob, mailbox, [1], only_deleted=False)
    with pytest.raises(MailboxGone):
        await store.mail.copy(bob, mailbox, [1], "Sent")


async def test_an_append_to_nowhere_stores_nothing(store: Opened, alice: int) -> None:
    with pytest.raises(MailboxNotFound):
        await store.mail.append(AppendTarget(alice, "nowhere"), PLAIN)
    assert (await store.mail.quota(alice)).used_bytes == 0
