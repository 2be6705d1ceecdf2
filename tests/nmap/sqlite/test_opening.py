"""Opening: the migration, the lock, what a crash left behind."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from netmail_nmap import migrations
from netmail_nmap.adapters.schema import metadata
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.adapters.sql._sweeper import Sweeper
from netmail_nmap.domain.delivery import Envelope, Expansion, QueueFilter, Recipient, Submission
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.mail import AppendTarget, OpenRequest


def test_the_migrations_make_exactly_the_tables_of_the_schema() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        migrations.upgrade(connection)
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert difference == []


def test_a_migration_of_a_database_that_is_up_to_date_changes_nothing(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        migrations.upgrade(connection)
        connection.commit()
        before = connection.exec_driver_sql("SELECT sql FROM sqlite_master").all()
        migrations.upgrade(connection)
        assert connection.exec_driver_sql("SELECT sql FROM sqlite_master").all() == before
    engine.dispose()


async def test_a_migration_that_fails_leaves_no_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE users (id INTEGER)")
    other.commit()
    with pytest.raises(StoreUnavailable, match="migrated"):
        async with open_store(f"sqlite:///{path}"):
            pass
    tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master")}
    other.close()
    assert tables == {"users"}


async def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"my precious notes" * 1000)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        async with open_store(f"sqlite:///{path}"):
            pass
    assert path.read_bytes() == b"my precious notes" * 1000


async def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="lock"):
        async with open_store(f"sqlite:///{tmp_path}/file/x.db"):
            pass


def test_every_migration_can_be_undone() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        migrations.upgrade(connection)
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "base")
        tables = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    assert tables <= {"alembic_version"}


async def test_everything_is_durable_and_the_log_is_on(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/x.db") as store:

        def settings(transaction: Transaction) -> tuple[str, int]:
            driver = transaction.driver
            (mode,) = driver.execute("PRAGMA journal_mode").fetchone()
            (synchronous,) = driver.execute("PRAGMA synchronous").fetchone()
            return mode, synchronous

        assert await store.core.writer.run(settings) == ("wal", 2)
    assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0


async def test_one_process_owns_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with open_store(url):
        with pytest.raises(StoreUnavailable, match="in use"):
            async with open_store(url):
                pass
    async with open_store(url):
        pass


@pytest.mark.parametrize("url", ["postgresql://x/y", "sqlite://", "sqlite:///:memory:"])
async def test_only_a_file_of_sqlite_will_do(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite file|in memory|psycopg|dialect"):
        async with open_store(url):
            pass


async def make_user(store: Store) -> int:
    def operation(transaction: Transaction) -> int:
        return int(
            transaction.driver.execute(
                "INSERT INTO users (context, name, name_key, created_at) VALUES ('c', 'a', 'a', 0)"
            ).lastrowid
        )

    return await store.core.writer.run(operation)


def count(path: Path, table: str) -> int:
    other = sqlite3.connect(path)
    try:
        (rows,) = other.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(rows)
    finally:
        other.close()


class Later:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def sweep(store: Store) -> None:
    sweeper = Sweeper(store.core)
    while await sweeper.sweep():
        pass


async def test_a_body_goes_with_its_last_reference(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", Later()
    async with open_store(f"sqlite:///{path}", clock=clock) as store:
        user = await make_user(store)
        for _ in range(2):
            await store.mail.append(AppendTarget(user, "INBOX"), b"A: b\r\n\r\ntext")
        mailbox = (await store.mail.open_mailbox(OpenRequest(user, "INBOX"))).state.mailbox_id
        await store.mail.copy(user, mailbox, [1], "Sent")
        await store.mail.expunge(user, mailbox, [1, 2], only_deleted=False)
        await sweep(store)
        assert count(path, "bodies") == 2, "whoever is reading it may go on"
        clock.now += 61
        await sweep(store)
        assert (count(path, "bodies"), count(path, "body_chunks")) == (1, 1)
        await store.mail.delete_mailbox(user, "Sent")
        clock.now += 61
        await sweep(store)
        assert (count(path, "bodies"), count(path, "body_chunks")) == (0, 0)


async def test_a_queued_body_goes_when_it_is_delivered_and_nobody_else_has_it(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "x.db", Later()
    async with open_store(f"sqlite:///{path}", clock=clock) as store:
        user = await make_user(store)
        for number, users in enumerate(((), (user,))):
            envelope = Envelope(f"message-{number:010d}", "a@b", (Recipient("c@d.example"),))
            expansion = Expansion(users, ("c@d.example",))
            await store.queue.submit([Submission(envelope, b"A: b\r\n\r\nc", (expansion,))])
        await store.queue.remove(QueueFilter(), bounce=False, senders={})
        await sweep(store)
        assert count(path, "bodies") == 1


async def test_marks_of_accepted_messages_are_kept_as_long_as_one_may_come_again(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "x.db", Later()
    async with open_store(f"sqlite:///{path}", clock=clock) as store:
        user = await make_user(store)
        submitted = Envelope("message-0000000001", "a@b", (Recipient("c@d.example"),))
        handed_over = Envelope("message-0000000002", "a@b", (Recipient("c@example.org"),))
        far = Expansion(remote=("c@d.example",))
        await store.queue.submit([Submission(submitted, b"A: b\r\n\r\nc", (far,))])
        await store.queue.deliver(handed_over, b"A: b\r\n\r\nc", [Expansion((user,))])
        assert count(path, "accepted") == 3
        clock.now += 86_400 - 1
        await sweep(store)
        assert count(path, "accepted") == 3
        clock.now += 4 * 86_400
        await sweep(store)
        assert count(path, "accepted") == 2
        clock.now += 2 * 86_400
        await sweep(store)
        assert count(path, "accepted") == 0


async def test_an_upload_that_was_cut_off_is_swept_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with open_store(f"sqlite:///{path}") as store:
        upload = store.mail.upload(limit=10_000_000)
        for _ in range(3):
            await upload.write(b"A: b\r\n\r\n" + b"x" * 1_000_000)
        await sweep(store)
        assert count(path, "body_chunks") > 0, "it is still under way"
    async with open_store(f"sqlite:///{path}") as store:
        await sweep(store)
        assert (count(path, "bodies"), count(path, "body_chunks")) == (0, 0)


async def test_an_abandoned_upload_is_swept_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with open_store(f"sqlite:///{path}") as store:
        upload = store.mail.upload(limit=10_000_000)
        await upload.write(b"A: b\r\n\r\n" + b"x" * 2_000_000)
        await upload.abandon()
        await sweep(store)
        assert count(path, "bodies") == 0


async def test_object_ids_are_never_given_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    clock = Later()
    ids: list[str] = []
    user = 0
    for _ in range(2):
        async with open_store(url, clock=clock) as store:
            user = user or await make_user(store)
            await store.mail.append(AppendTarget(user, "INBOX"), b"A: b\r\n\r\ntext")
            view = await store.mail.open_mailbox(OpenRequest(user, "INBOX", with_object_ids=True))
            ids += view.messages.object_ids
            await store.mail.expunge(
                user, view.state.mailbox_id, view.messages.uids, only_deleted=False
            )
            clock.now += 100
            await sweep(store)
    assert len(set(ids)) == 2


_WRITER = """
import asyncio, sys
from netmail_nmap.adapters.sql import open_store
from netmail_nmap.domain.delivery import Envelope, Expansion, Recipient, Submission

async def main(url):
    async with open_store(url) as store:
        async def send(worker):
            number = 0
            while True:
                number += 1
                name = f"message-{worker:04d}-{number:08d}"
                recipient = Recipient("c@d.example")
                submission = Submission(
                    Envelope(name, "a@b", (recipient,)),
                    b"A: b\\r\\n\\r\\n" + b"x" * 3000,
                    (Expansion(remote=("c@d.example",)),),
                )
                await store.queue.submit([submission])
                print(name, flush=True)
        await asyncio.gather(*(send(worker) for worker in range(8)))

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, f"sqlite:///{path}", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    answered = {(await process.stdout.readline()).decode().strip() for _ in range(300)}
    os.kill(process.pid, signal.SIGKILL)
    answered |= {line.decode().strip() for line in await _complete_lines(process.stdout)}
    await process.wait()
    async with open_store(f"sqlite:///{path}"):
        other = sqlite3.connect(path)
        kept = {name for (name,) in other.execute("SELECT message_id FROM queue_messages")}
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        other.close()
    assert answered <= kept


async def _complete_lines(reader: asyncio.StreamReader) -> list[bytes]:
    rest = await reader.read()
    return rest.split(b"\n")[:-1]
