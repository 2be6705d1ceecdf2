"""Opening: migrations by one at a time, what is refused, what a crash of the server leaves."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from netmail_nmap import migrations
from netmail_nmap.adapters.postgresql import Place, open_postgresql, prepare
from netmail_nmap.adapters.postgresql._driver import make_engine
from netmail_nmap.adapters.schema import metadata
from netmail_nmap.adapters.sql import Store, Transaction
from netmail_nmap.domain.delivery import Envelope, Expansion, Recipient, Submission, SubmitOutcome
from netmail_nmap.domain.errors import StoreUnavailable

from tests.nmap.databases import server as shared_server
from tests.nmap.postgresql.conftest import eventually, make_user
from tests.support.postgresql import Server, postgresql, standby

pytestmark = pytest.mark.server


@pytest.fixture
def server() -> Iterator[Server]:
    """One that a test may kill."""
    with postgresql() as made:
        yield made


@pytest.fixture
async def empty() -> AsyncIterator[Place]:
    """A database without tables."""
    url = await asyncio.to_thread(shared_server().create)
    yield Place(url)
    await asyncio.to_thread(shared_server().drop, url)


def _migrated_and_back(place: Place) -> tuple[list[object], set[str]]:
    engine = make_engine(place.connect)
    with engine.connect() as connection:
        migrations.upgrade(connection)
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "base")
        tables = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    return difference, tables


async def test_the_migrations_make_exactly_the_tables_of_the_schema_and_can_be_undone(
    empty: Place,
) -> None:
    difference, tables = await asyncio.to_thread(_migrated_and_back, empty)
    assert difference == []
    assert tables <= {"alembic_version"}


async def test_agents_that_start_together_migrate_once(empty: Place) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = await asyncio.gather(
            *(stack.enter_async_context(open_postgresql(empty)) for _ in range(4))
        )
        ids = {store.core.ids.store_id for store in stores}
    assert len(ids) == 1
    assert all(ids)


async def test_an_agent_of_the_release_before_starts_on_a_newer_schema(empty: Place) -> None:
    await asyncio.to_thread(prepare, empty)
    name = empty.url.rpartition("/")[2]
    newer = "UPDATE alembic_version SET version_num = '9999'; ALTER TABLE users ADD COLUMN x INT"
    await asyncio.to_thread(shared_server().sql, newer, name)
    async with open_postgresql(empty) as store:
        assert await make_user(store, "alice")
    revision = "SELECT version_num FROM alembic_version"
    assert await asyncio.to_thread(shared_server().sql, revision, name) == "9999"


def _migrate(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "netmail_nmap.migrate", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


async def test_a_job_can_migrate_before_the_agents_start(empty: Place, tmp_path: Path) -> None:
    file = tmp_path / "netmail.yaml"

    def configured(url: str) -> tuple[str, ...]:
        server = {
            "name": "mail1",
            "host_name": "mail1.example.org",
            "domains": ["example.org"],
            "contexts": [{"name": "users"}],
            "ube_relaying": {"smtp_after_pop": False},
            "nmap": {"listen": ["127.0.0.1:1"], "store": {"url": url}},
        }
        file.write_text(json.dumps({"messaging_servers": [server]}))
        return ("--config", str(file), "--state", str(tmp_path), "--server", "mail1")

    done = await asyncio.to_thread(_migrate, *configured(empty.url))
    assert (done.returncode, done.stderr) == (0, "")
    name = empty.url.rpartition("/")[2]
    tables = await asyncio.to_thread(shared_server().sql, r"\dt", name)
    assert "mailboxes" in tables
    away = await asyncio.to_thread(_migrate, *configured("postgresql://u:geheim@127.0.0.1:1/x"))
    assert away.returncode == 1
    assert "cannot be opened" in away.stderr
    assert "geheim" not in away.stderr


async def test_a_job_needs_no_configuration_where_a_file_has_the_url(
    empty: Place, tmp_path: Path
) -> None:
    file = tmp_path / "uri"
    file.write_text(f"{empty.url}\n")
    done = await asyncio.to_thread(_migrate, "--url-file", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    tables = await asyncio.to_thread(shared_server().sql, r"\dt", empty.url.rpartition("/")[2])
    assert "mailboxes" in tables
    file.write_text("postgresql://u:geheim@127.0.0.1:1/x\n")
    away = await asyncio.to_thread(_migrate, "--url-file", str(file))
    assert away.returncode == 1
    assert "cannot be opened" in away.stderr
    assert "geheim" not in away.stderr
    both = await asyncio.to_thread(_migrate, "--url-file", str(file), "--server", "mail1")
    assert both.returncode == 2


async def test_a_database_that_answers_before_the_disk_has_it_is_refused(empty: Place) -> None:
    name = empty.url.rpartition("/")[2]
    statement = f"ALTER DATABASE {name} SET synchronous_commit = off"
    await asyncio.to_thread(shared_server().sql, statement)
    with pytest.raises(StoreUnavailable, match="synchronous_commit"):
        async with open_postgresql(empty):
            pass


async def test_a_database_that_is_away_is_said_without_a_password(tmp_path: Path) -> None:
    place = Place("postgresql://netmail:geheim@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailable, match="cannot be opened") as raised:
        async with open_postgresql(place):
            pass
    assert "geheim" not in str(raised.value)
    file = tmp_path / "password"
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        async with open_postgresql(Place("postgresql://127.0.0.1:1/nothing", file)):
            pass


async def test_several_hosts_may_be_named(empty: Place) -> None:
    one = f"127.0.0.1:{shared_server().port}"
    several = f"{empty.url.replace(one, '127.0.0.1:1,' + one)}?target_session_attrs=read-write"
    async with open_postgresql(Place(several)) as store:
        assert await make_user(store, "alice")


def test_no_password_is_shown() -> None:
    for url in ("postgresql://u:geheim@a:1,b:2/x", "postgresql://u@a/x?password=geheim&sslmode=on"):
        assert "geheim" not in str(Place(url))
        assert str(Place(url)).startswith("postgresql://u")


async def test_the_url_comes_from_a_file_that_may_change(empty: Place, tmp_path: Path) -> None:
    file = tmp_path / "uri"
    place = Place(url_file=file)
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        async with open_postgresql(place):
            pass
    file.write_text("mysql://u:geheim@h/x\n")
    with pytest.raises(StoreUnavailable, match="no URL of a PostgreSQL database") as raised:
        async with open_postgresql(place):
            pass
    assert "geheim" not in str(raised.value)
    file.write_text("postgresql://u:geheim@127.0.0.1:1/x\n")
    assert "geheim" not in str(place)
    file.write_text(f"{empty.url}\n")
    async with open_postgresql(place) as store:
        assert await make_user(store, "alice")


async def test_the_password_comes_from_a_file(empty: Place, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    place = Place(empty.url, file)
    assert place.options()["password"] == "geheim"
    file.write_text("another\n")
    assert place.options()["password"] == "another"


def _submission(number: int) -> Submission:
    address = f"a@d{number % 7}.example"
    envelope = Envelope(f"message-{number:012d}", "s@example.net", (Recipient(address),))
    return Submission(envelope, b"A: b\r\n\r\nx", (Expansion(remote=(address,)),))


async def test_a_transaction_that_was_left_open_takes_nothing_in(empty: Place) -> None:
    async with open_postgresql(empty, readers=1, writers=1) as store:
        await make_user(store, "alice")

        def left_open(transaction: Transaction) -> None:
            driver = transaction.driver
            driver.rollback = driver.commit = lambda: None

        await store.core.writer.run(left_open)
        assert await make_user(store, "bob")
        rows = await store.core.readers.run(
            lambda snapshot: snapshot.driver.execute("SELECT name FROM users ORDER BY id")
        )
    assert [row[0] for row in rows] == ["alice", "bob"]


class Senders:
    """Submit for ever, and remember what was answered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = iter(range(1_000_000))
        self.answered: set[str] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._run()) for _ in range(3)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self) -> None:
        """Waits until 30 more are answered."""
        wanted = len(self.answered) + 30
        await eventually(lambda: len(self.answered) >= wanted)

    async def missing(self) -> int:
        """How many of the answered ones are not there; none may be there twice."""
        rows = await self._store.core.readers.run(
            lambda snapshot: snapshot.driver.execute("SELECT message_id FROM queue_messages")
        )
        kept = [row[0] for row in rows]
        assert len(kept) == len(set(kept))
        return len(self.answered - set(kept))

    async def _run(self) -> None:
        while True:
            submission = _submission(next(self._numbers))
            (result,) = await self._store.queue.submit([submission])
            if result.outcome is SubmitOutcome.ACCEPTED:
                self.answered.add(submission.envelope.message_id)
            else:
                await asyncio.sleep(0.05)


async def test_what_was_answered_survives_the_kill_of_the_server_and_work_goes_on(
    server: Server,
) -> None:
    url = await asyncio.to_thread(server.create)
    async with open_postgresql(Place(url), readers=2, writers=2) as store:
        senders = Senders(store)
        async with senders.running():
            for _ in range(2):
                await senders.more()
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.start)
            await senders.more()
        assert await senders.missing() == 0


async def test_the_standby_takes_over_and_nothing_that_was_answered_is_lost(
    server: Server,
) -> None:
    url = await asyncio.to_thread(server.create)
    with standby(server) as other:
        host = f"127.0.0.1:{server.port}"
        hosts = f"{host},127.0.0.1:{other.port}"
        place = Place(f"{url.replace(host, hosts)}?target_session_attrs=read-write")
        async with open_postgresql(place, readers=2, writers=2) as store:
            senders = Senders(store)
            async with senders.running():
                await senders.more()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(other.promote)
                await senders.more()
            assert await senders.missing() == 0
