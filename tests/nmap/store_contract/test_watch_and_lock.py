"""What sessions hear of each other, and POP3's lock."""

import asyncio

from netmail_nmap.domain.mail import MailboxChange

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import Words

SOON = 5.0
"""Far more than it takes; a change that is not told fails the test."""


async def test_a_watched_mailbox_tells_its_modseq_at_once(
    store: Opened, alice: int, do: Words
) -> None:
    await do.append(alice)
    state = (await do.open(alice)).state
    async with store.mail.watch() as watch:
        await watch.add([state.mailbox_id, 4711])
        changes = await asyncio.wait_for(watch.changes(), SOON)
    assert set(changes) == {
        MailboxChange(state.mailbox_id, state.highest_modseq),
        MailboxChange(4711, 0, gone=True),
    }


async def test_every_kind_of_change_is_told(store: Opened, alice: int, do: Words) -> None:
    mailbox = (await do.open(alice)).state.mailbox_id
    async with store.mail.watch() as watch:
        await watch.add([mailbox])
        await watch.changes()

        async def told() -> bool:
            changes = await asyncio.wait_for(watch.changes(), SOON)
            view = await store.mail.sync_mailbox(alice, mailbox, 0)
            return list(changes) == [MailboxChange(mailbox, view.state.highest_modseq)]

        await do.append(alice)
        assert await told()
        await do.deliver_to(alice)
        assert await told()
        await do.set_flags(alice, mailbox, [1], "\\Seen")
        assert await told()
        await store.mail.copy(alice, mailbox, [1], "INBOX")
        assert await told()
        await store.mail.move(alice, mailbox, [1], "Trash")
        assert await told()
        await store.mail.expunge(alice, mailbox, [2], only_deleted=False)
        assert await told()


async def test_a_deleted_mailbox_is_told_as_gone(store: Opened, alice: int, do: Words) -> None:
    await store.mail.create_mailbox(alice, "a")
    mailbox = (await do.open(alice, "a")).state.mailbox_id
    async with store.mail.watch() as watch:
        await watch.add([mailbox])
        await watch.changes()
        await store.mail.delete_mailbox(alice, "a")
        (change,) = await asyncio.wait_for(watch.changes(), SOON)
    assert (change.mailbox_id, change.gone) == (mailbox, True)


async def test_changes_are_merged_while_nobody_reads(store: Opened, alice: int, do: Words) -> None:
    mailbox = (await do.open(alice)).state.mailbox_id
    async with store.mail.watch() as watch:
        await watch.add([mailbox])
        for _ in range(10):
            await do.append(alice)
        (change,) = await asyncio.wait_for(watch.changes(), SOON)
        assert change.highest_modseq == (await do.open(alice)).state.highest_modseq


async def test_a_removed_mailbox_is_silent(store: Opened, alice: int, do: Words) -> None:
    inbox = (await do.open(alice)).state.mailbox_id
    sent = (await do.open(alice, "Sent")).state.mailbox_id
    async with store.mail.watch() as watch:
        await watch.add([inbox, sent])
        watch.remove([inbox])
        await watch.changes()
        await do.append(alice)
        await do.append(alice, "Sent")
        changes = await asyncio.wait_for(watch.changes(), SOON)
    assert [change.mailbox_id for change in changes] == [sent]


async def test_a_mailbox_is_locked_by_one_at_a_time(store: Opened, alice: int, bob: int) -> None:
    async with store.mail.lock(alice, "INBOX") as first:
        assert first
        async with store.mail.lock(alice, "inbox") as second:
            assert not second
        async with store.mail.lock(bob, "INBOX") as other:
            assert other
        async with store.mail.lock(alice, "INBOX") as third:
            assert not third
    async with store.mail.lock(alice, "INBOX") as again:
        assert again
