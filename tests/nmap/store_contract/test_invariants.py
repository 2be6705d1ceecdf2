"""Whatever happens to a mailbox, its counts are right and a sync tells what is there."""

import random
from dataclasses import dataclass, field

import pytest
from netmail_nmap.domain.mail import (
    AppendTarget,
    MailboxView,
    MessageColumns,
    StoreMode,
    StoreRequest,
)

from tests.nmap.store_contract.engines import Opened
from tests.nmap.store_contract.words import Words

NAMES = ("INBOX", "Sent", "Trash")
FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "$Work", "$Later")


@dataclass
class Box:
    """What a mailbox should hold, and what a session that syncs now and then believes."""

    id: int = 0
    messages: dict[int, tuple[frozenset[str], int]] = field(default_factory=dict)
    next_uid: int = 1
    replica: dict[int, str] = field(default_factory=dict)
    modseq: int = 0


def rows(columns: MessageColumns) -> dict[int, str]:
    return {
        uid: columns.flag_sets[number]
        for uid, number in zip(columns.uids, columns.flag_set, strict=True)
    }


def text(flags: frozenset[str]) -> str:
    return " ".join(sorted(flags))


class Game:
    """Random changes of a user's mailboxes beside a model of them."""

    def __init__(self, store: Opened, user: int, seed: int) -> None:
        self.store, self.user = store, user
        self.random = random.Random(seed)
        self.boxes = {name: Box() for name in NAMES}

    async def begin(self, do: Words) -> None:
        for name, box in self.boxes.items():
            state = (await do.open(self.user, name)).state
            box.id, box.modseq = state.mailbox_id, state.highest_modseq

    def some(self, box: Box) -> list[int]:
        """A few UIDs, some of which are not there."""
        known = [*box.messages, box.next_uid + 3]
        return sorted(self.random.sample(known, self.random.randint(1, len(known))))

    async def append(self, name: str, box: Box) -> None:
        flags = frozenset(self.random.sample(FLAGS, self.random.randint(0, 3)))
        data = b"A: b\r\n\r\n" + b"x" * self.random.randint(0, 50)
        appended = await self.store.mail.append(AppendTarget(self.user, name, tuple(flags)), data)
        assert appended.uid == box.next_uid
        self.put(box, flags, len(data))

    def put(self, box: Box, flags: frozenset[str], size: int) -> None:
        box.messages[box.next_uid] = (flags, size)
        box.next_uid += 1

    async def flag(self, _: str, box: Box) -> None:
        mode = self.random.choice(list(StoreMode))
        flags = frozenset(self.random.sample(FLAGS, self.random.randint(1, 2)))
        uids = self.some(box)
        await self.store.mail.store_flags(StoreRequest(self.user, box.id, uids, mode, tuple(flags)))
        for uid in uids:
            if uid in box.messages:
                old, size = box.messages[uid]
                new = {
                    StoreMode.ADD: old | flags,
                    StoreMode.REMOVE: old - flags,
                    StoreMode.REPLACE: flags,
                }[mode]
                box.messages[uid] = (new, size)

    async def copy(self, _: str, box: Box) -> None:
        name = self.random.choice(NAMES)
        uids = self.some(box)
        await self.store.mail.copy(self.user, box.id, uids, name)
        for message in [box.messages[uid] for uid in uids if uid in box.messages]:
            self.put(self.boxes[name], *message)

    async def move(self, _: str, box: Box) -> None:
        name = self.random.choice(NAMES)
        uids = self.some(box)
        await self.store.mail.move(self.user, box.id, uids, name)
        for message in [box.messages.pop(uid) for uid in uids if uid in box.messages]:
            self.put(self.boxes[name], *message)

    async def expunge(self, _: str, box: Box) -> None:
        uids = self.some(box) if self.random.random() < 0.5 else None
        expunged = await self.store.mail.expunge(self.user, box.id, uids, only_deleted=True)
        gone = [
            uid
            for uid, (flags, _) in box.messages.items()
            if "\\Deleted" in flags and (uids is None or uid in uids)
        ]
        assert list(expunged.uids) == gone
        for uid in gone:
            del box.messages[uid]

    async def step(self) -> None:
        name = self.random.choice(NAMES)
        change = self.random.choice(
            [self.append, self.append, self.flag, self.copy, self.move, self.expunge]
        )
        await change(name, self.boxes[name])

    async def check(self, do: Words) -> None:
        """Counts, listing, quota, and what a session makes of the changes it is told."""
        infos = {
            info.name: info
            for info in await self.store.mail.list_mailboxes(self.user, with_status=True)
        }
        for name, box in self.boxes.items():
            wanted = {uid: text(flags) for uid, (flags, _) in box.messages.items()}
            assert rows((await do.open(self.user, name)).messages) == wanted
            status = infos[name].status
            assert status is not None
            flags = [flags for flags, _ in box.messages.values()]
            assert status.messages == len(flags)
            assert status.unseen == sum("\\Seen" not in each for each in flags)
            assert status.deleted == sum("\\Deleted" in each for each in flags)
            assert status.size == sum(size for _, size in box.messages.values())
            assert status.uid_next == box.next_uid
            if self.random.random() < 0.5:
                view = await self.store.mail.sync_mailbox(self.user, box.id, box.modseq)
                self.apply(box, view)
                assert box.replica == wanted
        used = sum(size for box in self.boxes.values() for _, size in box.messages.values())
        assert (await self.store.mail.quota(self.user)).used_bytes == used

    @staticmethod
    def apply(box: Box, view: MailboxView) -> None:
        assert view.state.highest_modseq >= box.modseq
        assert all(modseq > box.modseq for modseq in view.messages.modseqs)
        for uid in view.expunged_uids:
            box.replica.pop(uid, None)
        box.replica.update(rows(view.messages))
        box.modseq = view.state.highest_modseq


@pytest.mark.parametrize("seed", range(4))
async def test_counts_and_syncs_stay_right(store: Opened, alice: int, do: Words, seed: int) -> None:
    game = Game(store, alice, seed)
    await game.begin(do)
    for number in range(120):
        await game.step()
        if number % 10 == 9:
            await game.check(do)
