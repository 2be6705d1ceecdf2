"""When all mail is gone, nothing of it is left in the database."""

import random
import sqlite3
from pathlib import Path

import pytest
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.adapters.sql._sweeper import Sweeper
from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Envelope,
    Expansion,
    ItemReport,
    LeasedItem,
    QueueFilter,
    Recipient,
    RecipientReport,
    Submission,
)
from netmail_nmap.domain.mail import OpenRequest

EMPTY = (
    "bodies",
    "body_chunks",
    "orphans",
    "messages",
    "accepted",
    "queue_messages",
    "queue_items",
    "queue_recipients",
)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Traffic:
    """Messages of all kinds in and out, with a fixed seed."""

    def __init__(self, store: Store, users: list[int], seed: int) -> None:
        self.store, self.users = store, users
        self.random = random.Random(seed)
        self.count = 0

    async def submit(self) -> None:
        self.count += 1
        recipients, expansions = [], []
        for number in range(self.random.randint(1, 4)):
            address = f"u{number}@d{self.random.randint(1, 3)}.example"
            recipients.append(Recipient(address))
            users = self.random.sample(self.users, self.random.randint(0, 2))
            remote = (address,) if self.random.random() < 0.5 or not users else ()
            expansions.append(Expansion(tuple(users), remote))
        envelope = Envelope(f"message-{self.count:012d}", "sender@example.net", tuple(recipients))
        size = self.random.choice([10, 3_000, 300_000, 1_200_000])
        body = b"Subject: x\r\n\r\n" + self.random.randbytes(size)
        if self.random.random() < 0.3:
            await self.store.queue.deliver(envelope, body, expansions)
            return
        upload = self.store.mail.upload(limit=10_000_000, local_prefix=envelope.return_path)
        for start in range(0, len(body), 200_000):
            await upload.write(body[start : start + 200_000])
        submission = Submission(envelope, await upload.finish(), tuple(expansions))
        for _ in range(self.random.randint(1, 2)):
            await self.store.queue.submit([submission])

    async def work(self) -> None:
        senders = {"sender@example.net": Expansion((self.users[0],))}
        leased = await self.store.queue.lease(limit=5, seconds=30, wait=0, worker="w")
        # Those that are not reported expire.
        reports = [self.report(item) for item in leased if self.random.random() < 0.8]
        await self.store.queue.report(reports, senders)

    def report(self, item: LeasedItem) -> ItemReport:
        outcomes = list(DeliveryOutcome)
        return ItemReport(
            item.lease_id,
            item.fence,
            tuple(
                RecipientReport(r.address, self.random.choice(outcomes), "4.0.0")
                for r in item.envelope.recipients
            ),
            untried=self.random.random() < 0.1,
        )

    async def tidy(self) -> None:
        user = self.random.choice(self.users)
        view = await self.store.mail.open_mailbox(OpenRequest(user, "INBOX"))
        uids = [uid for uid in view.messages.uids if self.random.random() < 0.5]
        name = self.random.choice(["Trash", ""])
        mailbox = view.state.mailbox_id
        if name:
            await self.store.mail.move(user, mailbox, uids, name)
        else:
            await self.store.mail.expunge(user, mailbox, uids, only_deleted=False)

    async def end(self) -> None:
        await self.store.queue.remove(QueueFilter(), bounce=False, senders={})
        for user in self.users:
            for name in ("INBOX", "Trash"):
                view = await self.store.mail.open_mailbox(OpenRequest(user, name))
                await self.store.mail.expunge(
                    user, view.state.mailbox_id, list(view.messages.uids), only_deleted=False
                )


async def make_users(store: Store) -> list[int]:
    def operation(transaction: Transaction) -> list[int]:
        statement = "INSERT INTO users (context, name, name_key, created_at) VALUES ('c', ?, ?, 0)"
        return [
            transaction.driver.execute(statement, (name, name)).lastrowid for name in ("a", "b")
        ]

    return await store.core.writer.run(operation)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_left_of_mail_that_is_gone(tmp_path: Path, seed: int) -> None:
    path, clock = tmp_path / "x.db", Clock()
    async with open_store(f"sqlite:///{path}", clock=clock) as store:
        users = await make_users(store)
        traffic = Traffic(store, users, seed)
        sweeper = Sweeper(store.core)
        for _ in range(60):
            step = traffic.random.choice(
                [traffic.submit, traffic.submit, traffic.work, traffic.work, traffic.tidy]
            )
            await step()
            clock.now += traffic.random.choice([0, 20, 400])
            if traffic.random.random() < 0.2:
                await sweeper.sweep()
        await traffic.end()
        clock.now += 10 * 86_400
        while await sweeper.sweep():
            pass
        for user in users:
            assert (await store.mail.quota(user)).used_bytes == 0
        other = sqlite3.connect(path)
        left = {
            table: other.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in EMPTY
        }
        other.close()
    assert left == dict.fromkeys(EMPTY, 0)
