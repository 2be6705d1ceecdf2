"""Copies of a PostgreSQL store while two agents use it, and databases made of copies."""

import asyncio
import hashlib
import io
import sqlite3
from asyncio import to_thread
from pathlib import Path
from typing import Any

import pytest
from netmail_nmap.adapters.backup import StoreCopies, copy_of_database
from netmail_nmap.adapters.postgresql import (
    Place,
    copy_of_postgresql,
    open_postgresql,
    prepare,
    restore_postgresql,
)
from netmail_nmap.adapters.restore import RestoreRefused
from netmail_nmap.adapters.schema import mailbox_locks, metadata
from netmail_nmap.adapters.sql import Store, open_store
from netmail_nmap.domain.delivery import QueueFilter
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.mail import OpenRequest

from tests.nmap.copies import append, bodies_of, queue_one, read_copy, restore, restore_into
from tests.nmap.databases import server
from tests.nmap.postgresql.conftest import Pair, make_user
from tests.support.postgresql import pgbouncer

pytestmark = pytest.mark.server

LARGE = b"x" * 3_000_000


@pytest.fixture
def other() -> Any:
    """An empty database."""
    url = server().create()
    yield Place(url)
    server().drop(url)


async def copy_of(place: Place, folder: Path) -> bytes:
    return await read_copy(copy_of_postgresql(place, folder, "store"))


async def put(place: Place, folder: Path, data: bytes, **options: Any) -> Any:
    return await to_thread(restore_into, place, folder, data, **options)


async def test_a_copy_made_while_two_agents_write_is_of_one_moment(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path
) -> None:
    written = 0
    enough = asyncio.Event()

    async def write(store: Store) -> None:
        nonlocal written
        while True:
            await append(store, alice, b"A: b\r\n\r\n" + b"%d" % written + LARGE[:300_000])
            written += 1
            if written == 20:
                enough.set()

    writing = [asyncio.create_task(write(store)) for store in pair.both]
    await enough.wait()
    before = written
    data = await copy_of(place, tmp_path)
    after = written
    for task in writing:
        task.cancel()
    done = await put(other, tmp_path, data)
    assert (done.users, done.kept) == (1, None)
    async with open_postgresql(other, readers=1) as store:
        bodies = await bodies_of(store, alice)
        assert before <= len(bodies) <= after + 2
        assert all(body.endswith(LARGE[:300_000]) for body in bodies)
    assert not list(tmp_path.iterdir())


async def test_every_row_of_every_table_arrives(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path
) -> None:
    store = pair.first
    for text in (b"A: small\r\n\r\n", b"A: large\r\n\r\n" + LARGE):
        await append(store, alice, text)
    await store.mail.create_mailbox(alice, "Entwürfe/☃")
    await queue_one(store, 1)
    columns = "user_id, name, name_key, digest, ended, created_at"
    revocation = "name, context, credential_epoch, created_at"
    for statement in (
        f"INSERT INTO device_passwords ({columns}) VALUES (1, 'a', 'a', '\\x0001ff', true, 7)",
        "INSERT INTO user_addresses VALUES ('ä@b.org', 'Ä@b.org', 1, 0)",
        f"INSERT INTO pending_revocations ({revocation}) VALUES ('alice', 'c', 2, 3)",
        "INSERT INTO expunged VALUES (1, 2, 3)",
        "INSERT INTO keywords VALUES (1, 5, '$Work')",
        "INSERT INTO orphans VALUES (1, 4000000000000)",
    ):
        server().sql(statement, place.url.rpartition("/")[2])
    data = await copy_of(place, tmp_path)
    await put(other, tmp_path, data, hold=False)
    changed = {"users", "mailboxes", "messages", "queue_items"}  # each is, on purpose
    for table in metadata.sorted_tables:
        if table is mailbox_locks:
            continue
        rows = f"SELECT {table.name}::TEXT FROM {table.name} ORDER BY 1"
        if table.name in changed:
            rows = f"SELECT count(*) FROM {table.name}"
        was = server().sql(rows, place.url.rpartition("/")[2])
        assert server().sql(rows, other.url.rpartition("/")[2]) == was
        assert was


async def test_what_was_given_out_after_the_copy_is_never_given_again(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path
) -> None:
    opened = OpenRequest(alice, "INBOX", with_object_ids=True)
    await append(pair.first, alice, b"A: kept\r\n\r\n")
    data = await copy_of(place, tmp_path)
    for store in pair.both:
        lost = await append(store, alice, b"A: lost\r\n\r\n")
    old = await pair.first.mail.open_mailbox(opened)
    await put(other, tmp_path, data)
    async with open_postgresql(other, readers=1) as store:
        new_uid = await append(store, alice, b"A: new\r\n\r\n")
        new = await store.mail.open_mailbox(opened)
        assert new_uid > lost
        assert new.state.uid_validity == old.state.uid_validity
        assert new.messages.object_ids[0] == old.messages.object_ids[0]
        assert new.messages.object_ids[1] not in old.messages.object_ids
        assert min(new.messages.modseqs) > old.state.highest_modseq
        assert (await store.mail.create_mailbox(alice, "Another")).id > 1 << 32
        assert await make_user(store, "later") > 1 << 32


@pytest.mark.parametrize("hold", [True, False])
async def test_the_restored_queue_waits_for_the_operator_or_goes_on(
    pair: Pair, place: Place, other: Place, tmp_path: Path, hold: bool
) -> None:
    for number in (1, 2):
        await queue_one(pair.first, number)
    assert len(await pair.first.queue.lease(limit=1, seconds=600, wait=0, worker="w")) == 1
    await put(other, tmp_path, await copy_of(place, tmp_path), hold=hold)
    async with open_postgresql(other, readers=1) as store:
        leased = await store.queue.lease(limit=10, seconds=60, wait=0, worker="w")
        assert len(leased) == (0 if hold else 1)
        if hold:
            assert await store.queue.release(QueueFilter()) == 2


async def test_a_database_in_use_or_not_empty_is_refused(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path
) -> None:
    await append(pair.first, alice, b"A: kept\r\n\r\n")
    data = await copy_of(place, tmp_path)
    with pytest.raises(StoreUnavailable, match="in use by NMAP agents"):
        await put(place, tmp_path, data, replace=True)
    await put(other, tmp_path, data)
    with pytest.raises(RestoreRefused, match="not empty"):
        await put(other, tmp_path, data)
    kept = (await put(other, tmp_path, data, replace=True)).kept
    assert kept.startswith("schema before_2")
    database = other.url.rpartition("/")[2]
    schema = kept.removeprefix("schema ")
    assert server().sql(f"SELECT count(*) FROM {schema}.messages", database) == "1"
    async with open_postgresql(other, readers=1) as store:
        assert await bodies_of(store, alice) == [b"A: kept\r\n\r\n"]
        await append(store, alice, b"A: new\r\n\r\n")
    assert server().sql(f"SELECT count(*) FROM {schema}.messages", database) == "1"


async def test_a_migrated_database_without_users_is_filled(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path
) -> None:
    data = await copy_of(place, tmp_path)
    await to_thread(prepare, other)
    assert (await put(other, tmp_path, data)).kept is None
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'before%'"
    assert server().sql(schemas, other.url.rpartition("/")[2]) == "0"


async def test_a_copy_goes_from_one_engine_to_the_other_and_back(
    other: Place, tmp_path: Path
) -> None:
    async with open_store(f"sqlite:///{tmp_path}/first.db", readers=1) as store:
        user = await store.core.writer.run(
            lambda t: int(
                t.driver.execute(
                    "INSERT INTO users (context, name, name_key, disabled, created_at)"
                    " VALUES ('c', 'alice', 'alice', 1, 0)"
                ).lastrowid
            )
        )
        await append(store, user, b"A: b\r\n\r\n" + LARGE)
        data = await read_copy(copy_of_database(tmp_path / "first.db"))
    await put(other, tmp_path, data)
    async with open_postgresql(other, readers=1) as store:
        assert await bodies_of(store, user) == [b"A: b\r\n\r\n" + LARGE]
        await append(store, user, b"A: second\r\n\r\n")
        data = await copy_of(other, tmp_path)
    await to_thread(restore, tmp_path / "second.db", data)
    async with open_store(f"sqlite:///{tmp_path}/second.db", readers=1) as store:
        assert await bodies_of(store, user) == [b"A: b\r\n\r\n" + LARGE, b"A: second\r\n\r\n"]
        assert await store.core.readers.run(
            lambda s: s.driver.execute("SELECT disabled FROM users").fetchall()
        ) == [(1,)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM body_chunks WHERE id = (SELECT max(id) FROM body_chunks)", "octets of a"),
        ("DELETE FROM bodies", "has no body"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer NetMail"),
        ("DROP TABLE alembic_version", "not a store"),
        ("UPDATE user_addresses SET user_id = 99", "rows refer to what is not there"),
    ],
)
async def test_a_damaged_copy_changes_nothing(
    pair: Pair, place: Place, other: Place, alice: int, tmp_path: Path, damage: str, words: str
) -> None:
    await append(pair.first, alice, b"A: b\r\n\r\n" + LARGE)
    await pair.first.core.writer.run(
        lambda t: t.driver.execute(
            "INSERT INTO user_addresses VALUES ('a@b.org', 'a@b.org', $1, 0)", alice
        )
    )
    copied = tmp_path / "copied.db"
    copied.write_bytes(await copy_of(place, tmp_path))
    with sqlite3.connect(copied) as connection:
        connection.execute(damage)
    connection.close()
    data = copied.read_bytes()
    with pytest.raises(RestoreRefused, match=words):
        await put(other, tmp_path, data)
    with pytest.raises(RestoreRefused, match="checksum"):
        await to_thread(
            lambda: restore_postgresql(
                other, tmp_path, io.BytesIO(data), sha256="00", replace=False, hold_queue=True
            )
        )
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert server().sql(tables, other.url.rpartition("/")[2]) == "0"
    assert [one.name for one in tmp_path.iterdir()] == ["copied.db"]


async def test_backup_and_restore_through_pgbouncer(
    pair: Pair, place: Place, alice: int, tmp_path: Path
) -> None:
    await append(pair.first, alice, b"A: b\r\n\r\n" + LARGE)
    target = server().create()
    name = target.rpartition("/")[2]
    with pgbouncer(server()) as port:

        def pooled(database: str) -> Place:
            return Place(f"postgresql://netmail@127.0.0.1:{port}/{database}", pooled=True)

        for _ in range(2):  # whatever was left behind on a server's connection is in the way now
            data = await copy_of(pooled(place.url.rpartition("/")[2]), tmp_path)
        await put(pooled(name), tmp_path, data)
    async with open_postgresql(Place(target), readers=1) as store:
        assert await bodies_of(store, alice) == [b"A: b\r\n\r\n" + LARGE]
    server().drop(target)


async def test_a_copy_of_a_database_that_is_away_or_newer_fails(
    place: Place, pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        await copy_of(Place("postgresql://netmail@127.0.0.1:1/nothing"), tmp_path)
    await pair.first.core.writer.run(
        lambda t: t.driver.execute("UPDATE alembic_version SET version_num = '9999'")
    )
    try:
        with pytest.raises(StoreUnavailable, match="newer"):
            await copy_of(place, tmp_path)
    finally:
        revision = "UPDATE alembic_version SET version_num = '0004'"
        await pair.first.core.writer.run(lambda t: t.driver.execute(revision))
    assert not list(tmp_path.iterdir())


async def test_a_copy_that_is_given_up_ends_its_transaction(
    pair: Pair, place: Place, alice: int, tmp_path: Path
) -> None:
    for _ in range(20):
        await append(pair.first, alice, b"A: b\r\n\r\n" + LARGE)
    copies = StoreCopies(copy_of_postgresql(place, tmp_path, "store"))
    copies.begin()
    while not list(tmp_path.iterdir()):  # noqa: ASYNC110 - a thread makes it
        await asyncio.sleep(0.005)
    await copies.close()
    assert not list(tmp_path.iterdir())
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'idle in transaction'"
    )
    assert server().sql(waiting, place.url.rpartition("/")[2]) == "0"
    assert hashlib.sha256(await copy_of(place, tmp_path)).digest()
