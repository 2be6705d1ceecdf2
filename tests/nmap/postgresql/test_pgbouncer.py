"""Behind Debian's pgbouncer, which gives each transaction another connection."""

import asyncio
import functools
from collections.abc import Iterator

import pytest
from netmail_nmap.adapters.directory_store import SqlDirectoryStore
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.domain.mail import AppendTarget, OpenRequest
from netmail_nmap.domain.users import Credentials, NewUser, UserChanges

from tests.nmap.databases import server
from tests.nmap.postgresql.conftest import eventually, make_user
from tests.support.postgresql import pgbouncer

pytestmark = pytest.mark.server

PLAIN = b"Subject: x\r\n\r\nHello.\r\n"


@pytest.fixture
def pooled(place: Place) -> Iterator[Place]:
    with pgbouncer(server()) as port:
        yield Place(place.url.replace(str(server().port), str(port)), pooled=True)


def _create(name: str, changes: UserChanges) -> None:
    changes.create(NewUser("c", name, name, Credentials("x"), (), 0))


async def test_two_agents_work_through_it(pooled: Place) -> None:
    async with open_postgresql(pooled) as first, open_postgresql(pooled) as second:
        user = await make_user(first, "alice")
        directories = [SqlDirectoryStore(store.core) for store in (first, second)]
        await asyncio.gather(
            *(
                directory.write(functools.partial(_create, f"u{number}"))
                for number, directory in enumerate(directories * 5)
            )
        )
        await asyncio.gather(
            *(
                store.mail.append(AppendTarget(user, "INBOX"), PLAIN)
                for store in (first, second)
                for _ in range(20)
            )
        )
        view = await second.mail.open_mailbox(OpenRequest(user, "INBOX"))
        assert list(view.messages.uids) == list(range(1, 41))
        async with second.mail.lock(user, "INBOX") as held, first.mail.lock(user, "INBOX") as other:
            assert held
            assert not other
        # Nothing that was told is heard: users are not remembered, changes are found by polling.
        assert directories[0].version is None
        async with second.mail.watch() as watch:
            await watch.add([view.state.mailbox_id])
            await watch.changes()
            await first.mail.append(AppendTarget(user, "INBOX"), PLAIN)
            async with asyncio.timeout(20):
                (change,) = await watch.changes()
        assert change.highest_modseq > view.state.highest_modseq


async def test_notices_come_from_the_database_itself(pooled: Place, place: Place) -> None:
    async with open_postgresql(pooled, listen=place) as store:
        await eventually(lambda: SqlDirectoryStore(store.core).version is not None)
