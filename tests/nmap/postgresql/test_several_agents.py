"""Several agents on one database: nothing given twice, nothing lost, everybody told."""

import asyncio
import itertools
import random
import time

import pytest
from netmail_nmap.adapters.directory_store import SqlDirectoryStore
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.postgresql._locks import SharedLocks
from netmail_nmap.adapters.sql import Snapshot, Store
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
    SubmitOutcome,
)
from netmail_nmap.domain.mail import AppendTarget, OpenRequest, StoreMode, StoreRequest
from netmail_nmap.domain.users import Credentials, NewUser, UserChanges

from tests.nmap.postgresql.conftest import Pair, eventually, make_user, rows_of

pytestmark = pytest.mark.server

SOON = 10.0
"""Seconds; far more than it takes."""
PLAIN = b"Subject: x\r\n\r\nHello.\r\n"
_numbers = itertools.count(1)


def submission(*addresses: str, users: tuple[int, ...] = (), name: str = "") -> Submission:
    name = name or f"message-{next(_numbers):012d}"
    recipients = tuple(Recipient(address) for address in addresses or ("user@example.org",))
    expansions = (
        tuple(Expansion(remote=(address,)) for address in addresses)
        if addresses
        else (Expansion(users),)
    )
    return Submission(Envelope(name, "sender@example.net", recipients), PLAIN, expansions)


async def uids(store: Store, user: int, name: str = "INBOX") -> list[int]:
    return list((await store.mail.open_mailbox(OpenRequest(user, name))).messages.uids)


async def test_uids_and_ids_are_given_once(pair: Pair, alice: int, bob: int) -> None:
    async def append(store: Store) -> int:
        return (await store.mail.append(AppendTarget(alice, "INBOX"), PLAIN)).uid

    async def submit(store: Store) -> None:
        (result,) = await store.queue.submit([submission(users=(alice, bob))])
        assert result.outcome is SubmitOutcome.ACCEPTED

    work = [call(store) for _ in range(15) for store in pair.both for call in (append, submit)]
    appended = [uid for uid in await asyncio.gather(*work) if uid is not None]
    assert len(set(appended)) == 30
    assert await uids(pair.first, alice) == list(range(1, 61))
    assert await uids(pair.second, bob) == list(range(1, 31))
    assert await rows_of(pair.first, "bodies") == 60


async def test_whatever_two_agents_do_to_one_user_his_counts_are_right(
    pair: Pair, alice: int, bob: int
) -> None:
    chance = random.Random(1)

    async def step(store: Store) -> None:
        user = chance.choice([alice, bob])
        view = await store.mail.open_mailbox(OpenRequest(user, chance.choice(["INBOX", "Sent"])))
        mailbox, known = view.state.mailbox_id, list(view.messages.uids)
        some = sorted(chance.sample(known, min(len(known), 3)))
        match chance.randint(0, 5):
            case 0 | 1:
                to = tuple(chance.sample([alice, bob], chance.randint(1, 2)))
                await store.queue.submit([submission(users=to)])
            case 2:
                await store.mail.append(AppendTarget(user, "Sent", ("\\Seen", "$Work")), PLAIN)
            case 3:
                flags = tuple(chance.sample(["\\Seen", "\\Deleted", "$Later"], 2))
                await store.mail.store_flags(
                    StoreRequest(user, mailbox, some, chance.choice(list(StoreMode)), flags)
                )
            case 4:
                await store.mail.move(user, mailbox, some, chance.choice(["INBOX", "Sent"]))
            case _:
                await store.mail.expunge(user, mailbox, None, only_deleted=True)

    async def worker(store: Store) -> None:
        for _ in range(25):
            await step(store)

    await asyncio.gather(*(worker(store) for store in pair.both for _ in range(3)))
    for user in (alice, bob):
        total = 0
        for info in await pair.first.mail.list_mailboxes(user, with_status=True):
            view = await pair.second.mail.open_mailbox(
                OpenRequest(user, info.name, with_sizes=True)
            )
            flags = [view.messages.flag_sets[number] for number in view.messages.flag_set]
            assert info.status is not None
            assert info.status.messages == len(flags)
            assert info.status.unseen == sum("\\Seen" not in each for each in flags)
            assert info.status.deleted == sum("\\Deleted" in each for each in flags)
            assert info.status.size == sum(view.messages.sizes)
            total += info.status.size
        assert (await pair.first.mail.quota(user)).used_bytes == total


async def test_a_message_submitted_at_two_agents_is_taken_once(pair: Pair, alice: int) -> None:
    for number in range(10):
        here = submission(users=(alice,), name=f"here-{number:010d}")
        away = submission("a@one.example", name=f"away-{number:010d}")
        await asyncio.gather(
            *(
                store.queue.submit([each])
                for store in pair.both
                for each in (here, away)
                for _ in range(3)
            )
        )
    assert len(await uids(pair.first, alice)) == 10
    assert await rows_of(pair.first, "queue_messages") == 10


async def test_a_message_handed_over_to_two_agents_is_delivered_once(pair: Pair) -> None:
    for number in range(10):
        given = submission("a@one.example", name=f"handed-over-{number:010d}")
        await asyncio.gather(
            *(
                store.queue.deliver(given.envelope, PLAIN, given.expansions)
                for store in pair.both
                for _ in range(2)
            )
        )
    assert await rows_of(pair.first, "queue_messages") == 10


async def test_an_item_is_leased_by_one(pair: Pair) -> None:
    addresses = [f"user{number}@d{number % 40}.example" for number in range(200)]
    await pair.first.queue.submit([submission(address) for address in addresses])
    leased: list[int] = []

    async def worker(store: Store) -> None:
        while items := await store.queue.lease(limit=7, seconds=600, wait=0, worker="w"):
            leased.extend(item.lease_id for item in items)

    await asyncio.gather(*(worker(store) for store in pair.both for _ in range(2)))
    leased += [
        item.lease_id
        for item in await pair.first.queue.lease(limit=200, seconds=600, wait=0, worker="w")
    ]
    assert len(leased) == len(set(leased)) == 200


def delivered(item: LeasedItem) -> ItemReport:
    said = tuple(
        RecipientReport(r.address, DeliveryOutcome.DELIVERED, "2.0.0")
        for r in item.envelope.recipients
    )
    return ItemReport(item.lease_id, item.fence, said)


async def test_a_message_whose_last_items_end_at_two_agents_leaves_nothing(pair: Pair) -> None:
    for _ in range(20):
        await pair.first.queue.submit([submission("a@one.example", "b@two.example")])
        items = await pair.first.queue.lease(limit=2, seconds=60, wait=0, worker="w")
        answers = await asyncio.gather(
            *(
                store.queue.report([delivered(item)], {})
                for store, item in zip(pair.both, items, strict=True)
            )
        )
        assert answers == [[True], [True]]
    for table in ("queue_items", "queue_messages", "queue_recipients", "bodies", "body_chunks"):
        assert await rows_of(pair.first, table) == 0, table


async def test_who_waits_for_a_lease_hears_of_a_submission_elsewhere(pair: Pair) -> None:
    waiting = asyncio.create_task(
        pair.second.queue.lease(limit=1, seconds=60, wait=SOON, worker="w")
    )
    await asyncio.sleep(0.05)
    await pair.first.queue.submit([submission("a@one.example")])
    assert len(await waiting) == 1


async def test_a_session_hears_of_a_change_made_elsewhere(pair: Pair, alice: int) -> None:
    view = await pair.first.mail.open_mailbox(OpenRequest(alice, "INBOX"))
    await heard(pair.second)
    async with pair.second.mail.watch() as watch:
        await watch.add([view.state.mailbox_id])
        await watch.changes()
        delays = []
        for _ in range(10):
            appended = time.monotonic()
            await pair.first.mail.append(AppendTarget(alice, "INBOX"), PLAIN)
            async with asyncio.timeout(SOON):
                (change,) = await watch.changes()
            delays.append(time.monotonic() - appended)
        now = await pair.first.mail.open_mailbox(OpenRequest(alice, "INBOX"))
        assert change.highest_modseq == now.state.highest_modseq
        # Far quicker than polling: 100 ms when the machine is not busy with other things.
        assert sorted(delays)[len(delays) // 2] < 0.5
        print(f"told after {max(delays) * 1000:.0f} ms at most")


async def test_without_notices_polling_finds_a_change(place: Place, pair: Pair, alice: int) -> None:
    view = await pair.first.mail.open_mailbox(OpenRequest(alice, "INBOX"))
    nowhere = Place("postgresql://netmail@127.0.0.1:1/nothing")
    async with open_postgresql(place, listen=nowhere) as deaf:
        waiting = asyncio.create_task(deaf.queue.lease(limit=1, seconds=60, wait=SOON, worker="w"))
        await asyncio.sleep(0.05)
        await pair.first.queue.submit([submission("a@one.example")])
        assert len(await waiting) == 1
        assert SqlDirectoryStore(deaf.core).version is None
        assert await uids(deaf, alice) == []
        assert view.state.mailbox_id


async def heard(store: Store) -> None:
    """Waits until the store hears the others."""
    await eventually(lambda: store.core.directory_version.value is not None)


async def test_a_change_of_a_user_voids_what_the_other_agent_remembers(pair: Pair) -> None:
    first, second = (SqlDirectoryStore(store.core) for store in pair.both)
    await heard(pair.second)
    before = second.version
    user = await first.write(
        lambda changes: changes.create(NewUser("c", "carol", "carol", Credentials("x"), (), 0))
    )
    await eventually(lambda: second.version != before)
    ended: list[int] = []
    with pair.second.ended_users.listening(ended.append):
        await first.write(lambda changes: changes.set_credentials(user.id, Credentials("y")))
        await eventually(lambda: bool(ended))
    assert ended == [user.id]


async def test_sessions_end_though_the_notice_is_not_heard(place: Place, pair: Pair) -> None:
    user = await make_user(pair.first, "frank")
    async with open_postgresql(Place(place.url, pooled=True)) as deaf:
        ended: list[int] = []
        await asyncio.sleep(1.5)  # it has looked once
        with deaf.ended_users.listening(ended.append):
            await SqlDirectoryStore(pair.first.core).write(
                lambda changes: changes.set_disabled(user, disabled=True)
            )
            await eventually(lambda: bool(ended))
    assert ended == [user]


async def test_one_name_is_made_by_one(pair: Pair) -> None:
    stores = [SqlDirectoryStore(store.core) for store in pair.both]

    async def create(store: SqlDirectoryStore) -> int:
        def work(changes: UserChanges) -> int:
            known = changes.by_name("c", "dave")
            if known is not None:
                return known.id
            return changes.create(NewUser("c", "dave", "dave", Credentials("x"), (), 0)).id

        return int(await store.write(work))

    made = await asyncio.gather(*(create(store) for store in stores for _ in range(4)))
    assert len(set(made)) == 1
    secrets = await asyncio.gather(*(store.secret("scram") for store in stores for _ in range(4)))
    assert len(set(secrets)) == 1


async def test_pop3_locks_hold_across_agents_and_end_with_their_process(
    pair: Pair, place: Place, alice: int
) -> None:
    async with pair.first.mail.lock(alice, "INBOX") as first:
        assert first
        async with pair.second.mail.lock(alice, "inbox") as second:
            assert not second
    async with pair.second.mail.lock(alice, "INBOX") as again:
        assert again
        # As if the process had died a minute ago.
        await pair.first.core.writer.run(
            lambda transaction: transaction.driver.execute(
                "UPDATE mailbox_locks SET held_until = 1"
            )
        )
        async with pair.first.mail.lock(alice, "INBOX") as after:
            assert after


async def test_only_locks_that_are_held_are_renewed(pair: Pair, alice: int) -> None:
    locks = pair.first.mail._locks
    assert isinstance(locks, SharedLocks)

    def held_until(snapshot: Snapshot) -> dict[str, int]:
        rows = snapshot.driver.execute("SELECT name, held_until FROM mailbox_locks")
        return {row[0]: row[1] for row in rows}

    async with pair.first.mail.lock(alice, "INBOX"):
        await pair.first.core.writer.run(
            lambda transaction: transaction.driver.execute(
                "INSERT INTO mailbox_locks SELECT user_id, 'left behind', holder, held_until"
                " FROM mailbox_locks"
            )
        )
        before = await pair.first.core.readers.run(held_until)
        await locks.renew()
        after = await pair.first.core.readers.run(held_until)
    assert after["INBOX"] > before["INBOX"]
    assert after["left behind"] == before["left behind"]


async def test_a_start_leaves_the_uploads_of_others_alone(
    pair: Pair, place: Place, alice: int
) -> None:
    upload = pair.first.mail.upload(limit=10_000_000)
    data = b"Subject: large\r\n\r\n" + b"x" * 3_000_000
    for start in range(0, len(data), 500_000):
        await upload.write(data[start : start + 500_000])
        if start == 2_000_000:
            async with open_postgresql(place) as other:
                await make_user(other, "new")
                await asyncio.sleep(0.2)
    await pair.first.mail.append(AppendTarget(alice, "INBOX"), await upload.finish())
    view = await pair.second.mail.open_mailbox(OpenRequest(alice, "INBOX", with_sizes=True))
    assert list(view.messages.sizes) == [len(data)]


async def test_operators_and_workers_of_two_agents_get_along(pair: Pair) -> None:
    for number in range(40):
        await pair.first.queue.submit([submission(f"a@d{number}.example", f"b@d{number}.example")])

    async def work(store: Store) -> None:
        while items := await store.queue.lease(limit=3, seconds=60, wait=0, worker="w"):
            await store.queue.report([delivered(item) for item in items], {})

    await asyncio.gather(
        work(pair.first),
        work(pair.second),
        pair.second.queue.remove(QueueFilter(destination="d7.example"), bounce=True, senders={}),
        pair.first.queue.retry(QueueFilter()),
    )
    await work(pair.first)  # the notification about what was removed
    assert await rows_of(pair.first, "queue_messages") == 0


@pytest.mark.parametrize("pooled", [False, True])
async def test_statements_need_not_be_kept_prepared(place: Place, pooled: bool) -> None:
    async with open_postgresql(Place(place.url, pooled=pooled), writers=1) as store:
        user = await make_user(store, "erin")
        for _ in range(3):
            await store.queue.submit([submission(users=(user,))])
        assert await uids(store, user) == [1, 2, 3]
        kept = await store.core.writer.run(
            lambda transaction: transaction.driver.execute(
                "SELECT count(*) FROM pg_prepared_statements"
            )
        )
        assert (kept[0][0] <= 1) == pooled
