"""Losing the database in the middle of something: work goes on once there is one again."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.sql import Snapshot, Store, Transaction
from netmail_nmap.domain.errors import NmapError, StoreUnavailable

from tests.nmap.postgresql.conftest import eventually, make_user
from tests.support.postgresql import Server, postgresql, standby
from tests.support.tcp_service import TcpService
from tests.support.valkey import eventually as now

pytestmark = pytest.mark.server

SLEEP = sa.text("SELECT pg_sleep(30)")


@pytest.fixture
def server() -> Iterator[Server]:
    """One that a test may kill."""
    with postgresql() as made:
        yield made


async def write_slowly(store: Store) -> None:
    """By a statement of SQLAlchemy's."""

    def work(transaction: Transaction) -> None:
        transaction.connection.execute(SLEEP)

    await store.core.writer.run(work)


async def read_slowly(store: Store) -> None:
    """The same for a reader."""

    def work(snapshot: Snapshot) -> None:
        snapshot.connection.execute(SLEEP)

    await store.core.readers.run(work)


async def number_of_users(store: Store) -> int:
    return await store.core.readers.run(
        lambda snapshot: int(snapshot.driver.execute("SELECT count(*) FROM users")[0][0])
    )


async def test_no_connection_is_spoilt_by_a_kill_in_the_middle_of_a_statement(
    server: Server,
) -> None:
    url = await asyncio.to_thread(server.create)
    async with open_postgresql(Place(url), readers=2, writers=2) as store:
        under_way = [
            asyncio.create_task(work(store)) for work in (write_slowly, write_slowly, read_slowly)
        ]
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await asyncio.to_thread(now, lambda: server.sql(sleeping) == "3", sleeping)
        await asyncio.to_thread(server.kill)
        ended = await asyncio.gather(*under_way, return_exceptions=True)
        assert [type(each) for each in ended] == [StoreUnavailable] * 3
        await asyncio.to_thread(server.start)
        made = await asyncio.gather(*(make_user(store, f"user{n}") for n in range(20)))
        assert len(set(made)) == 20
        counted = await asyncio.gather(*(number_of_users(store) for _ in range(20)))
        assert counted == [20] * 20


async def test_what_waits_at_a_primary_that_stands_still_is_given_up_when_another_has_taken_over(
    server: Server,
) -> None:
    url = await asyncio.to_thread(server.create)
    with standby(server) as other:
        async with contextlib.AsyncExitStack() as stack:
            service = stack.enter_context(TcpService(server.port).running())
            place = Place(url.replace(f":{server.port}/", f":{service.port}/"))
            store = await stack.enter_async_context(open_postgresql(place, readers=1, writers=1))
            await make_user(store, "alice")
            await eventually(lambda: store.core.directory_version.value is not None)
            service.stand_still()
            under_way = [
                asyncio.create_task(number_of_users(store)),
                asyncio.create_task(make_user(store, "bob")),
            ]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(other.promote)
            service.lead_to(other.port)
            began = time.monotonic()
            await asyncio.wait(under_way)
            # A statement may take 30 s to be answered, and each of several would wait its turn.
            assert time.monotonic() - began < 25
            print(f"given up after {time.monotonic() - began:.1f} s")
            await asyncio.gather(*under_way, return_exceptions=True)
            assert await make_user(store, "carol")
            assert await number_of_users(store) >= 2


async def test_no_reader_is_lost_while_only_a_standby_is_there(server: Server) -> None:
    url = await asyncio.to_thread(server.create)
    with standby(server) as other, TcpService(server.port).running() as service:
        place = Place(
            url.replace(f":{server.port}/", f":{service.port}/")
            + "?target_session_attrs=read-write"
        )
        async with open_postgresql(place, readers=1, writers=1) as store:
            await make_user(store, "alice")
            await eventually(lambda: store.core.directory_version.value is not None)
            service.lead_to(other.port)
            await asyncio.to_thread(server.kill)
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(number_of_users(store), 20)
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(make_user(store, "bob"), 20)
            await eventually(lambda: store.core.directory_version.value is None)
            await asyncio.to_thread(other.promote)
            assert await asyncio.wait_for(number_of_users(store), 20) == 1
            await eventually(lambda: store.core.directory_version.value is not None)


async def test_writes_fail_together_while_the_database_is_away(server: Server) -> None:
    url = await asyncio.to_thread(server.create)
    async with open_postgresql(Place(url), readers=1, writers=1) as store:
        await make_user(store, "alice")
        await asyncio.to_thread(server.kill)
        tries = 0
        connect = store.core.writer._engine.pool._creator  # type: ignore[attr-defined]

        def counted(*args: object) -> object:
            nonlocal tries
            tries += 1
            return connect(*args)

        store.core.writer._engine.pool._creator = counted  # type: ignore[attr-defined]
        gathered = [
            asyncio.create_task(store.core.writer.run_gathered(_refuse_nothing, n))
            for n in range(30)
        ]
        ended = await asyncio.gather(*gathered, return_exceptions=True)
        assert [type(each) for each in ended] == [StoreUnavailable] * 30
        assert tries < 30


def _refuse_nothing(transaction: Transaction, items: Sequence[int]) -> Sequence[int | NmapError]:
    transaction.driver.execute("SELECT 1")
    return list(items)


async def test_what_nobody_waits_for_any_more_is_not_written(server: Server) -> None:
    url = await asyncio.to_thread(server.create)
    async with open_postgresql(Place(url), readers=1, writers=1) as store:
        slow = asyncio.create_task(store.core.writer.run(lambda t: t.driver.execute(
            "SELECT pg_sleep(1)")))  # fmt: skip
        given_up = asyncio.create_task(make_user(store, "alice"))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await slow
        assert await make_user(store, "bob")
        assert await number_of_users(store) == 1
