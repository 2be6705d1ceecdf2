"""Bodies in a real S3 server: there before a row refers to them, gone after it has gone."""

import asyncio
import contextlib
import datetime as dt
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import ObjectsConfig
from netmail_nmap.adapters.objects import PART, BodyObjects
from netmail_nmap.adapters.postgresql import Place, copy_of_postgresql, open_postgresql
from netmail_nmap.adapters.sql import Store
from netmail_nmap.adapters.sql._sweeper import Sweeper
from netmail_nmap.domain.delivery import (
    Envelope,
    Expansion,
    Recipient,
    Submission,
    SubmitOutcome,
)
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.mail import OpenRequest
from pydantic import ValidationError

from tests.nmap.copies import append, bodies_of, read_copy, restore_into
from tests.nmap.databases import database, s3, server
from tests.nmap.postgresql.conftest import make_user, rows_of
from tests.support.object_store import ObjectServer, object_server

pytestmark = pytest.mark.server

HEADER = b"A: b\r\n\r\n"
SMALL = HEADER + b"s" * 200_000
LARGE = HEADER + b"0123456789" * 50_000
SEVERAL = HEADER + bytes(range(256)) * (2 * PART // 256) + b"the end"


@dataclass
class World:
    """A bucket, an empty database, and the time of the stores that are opened."""

    place: Place
    bucket: str
    now: float = 1_800_000_000.0

    @property
    def config(self) -> ObjectsConfig:
        return ObjectsConfig.model_validate(s3().settings(f"s3://{self.bucket}/mail"))

    @property
    def objects(self) -> list[Path]:
        return s3().objects(self.bucket)

    def open(self, **options: Any) -> contextlib.AbstractAsyncContextManager[Store]:
        objects = BodyObjects(self.config)
        return open_postgresql(
            self.place, readers=2, writers=2, objects=objects, clock=lambda: self.now, **options
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    bucket = await to_thread(s3().bucket)
    async with database() as place:
        yield World(place, bucket)


@pytest.fixture
def own_server() -> Iterator[ObjectServer]:
    """One that a test may stop."""
    with object_server() as made:
        yield made


async def expunge_all(store: Store, user: int) -> None:
    view = await store.mail.open_mailbox(OpenRequest(user, "INBOX"))
    uids = view.messages.uids
    await store.mail.expunge(user, view.state.mailbox_id, uids, only_deleted=False)


async def swept(world: World, store: Store) -> None:
    """Looks until nothing is due for the next hours."""
    world.now += 86_400
    while await Sweeper(store.core).sweep():
        pass


async def test_only_large_bodies_go_there_in_pieces_and_come_back_whole(world: World) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        await append(store, user, SMALL)
        assert world.objects == []
        await append(store, user, LARGE)
        assert [one.stat().st_size for one in world.objects] == [len(LARGE) - len(HEADER)]
        await append(store, user, SEVERAL)
        sizes = sorted(one.stat().st_size for one in world.objects)
        assert sizes == sorted([len(LARGE) - len(HEADER), PART, PART, len("the end")])
        assert await bodies_of(store, user) == [SMALL, LARGE, SEVERAL]
        assert await rows_of(store, "body_chunks WHERE length(data) > 200000") == 0


async def test_objects_go_after_the_last_message_has_gone(world: World) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        for text in (LARGE, SEVERAL):
            await append(store, user, text)
        await swept(world, store)
        assert len(world.objects) == 4
        await expunge_all(store, user)
        await swept(world, store)
        assert world.objects == []
        assert await rows_of(store, "bodies") == await rows_of(store, "orphans") == 0


async def test_an_upload_that_ends_in_nothing_leaves_nothing(world: World) -> None:
    async with world.open() as store:
        upload = store.mail.upload(limit=100_000_000)
        await upload.write(SEVERAL)
        assert len(world.objects) == 2
        await Sweeper(store.core).sweep()
        assert len(world.objects) == 2  # it may still be under way
        await swept(world, store)
        assert world.objects == []
        assert await rows_of(store, "bodies") == 0


async def test_without_the_object_store_large_mail_waits_and_small_mail_does_not(
    world: World, own_server: ObjectServer
) -> None:
    config = ObjectsConfig.model_validate(own_server.settings(f"s3://{own_server.bucket()}"))
    async with open_postgresql(
        world.place, readers=2, writers=2, objects=BodyObjects(config)
    ) as store:
        user = await make_user(store, "alice")
        await append(store, user, LARGE)
        await to_thread(own_server.stop)
        with pytest.raises(StoreUnavailable):
            await append(store, user, LARGE)
        envelope = Envelope("message-1", "a@example.org", (Recipient("b@example.org"),))
        message = Submission(envelope, LARGE, (Expansion(users=(user,)),))
        (result,) = await store.queue.submit([message])
        assert result.outcome is SubmitOutcome.TEMPORARY_FAILURE
        await append(store, user, SMALL)
        with pytest.raises(StoreUnavailable):
            await bodies_of(store, user)
        assert await rows_of(store, "messages") == 2
        await to_thread(own_server.start)
        (result,) = await store.queue.submit([message])
        assert result.outcome is SubmitOutcome.ACCEPTED
        assert len(await bodies_of(store, user)) == 3


async def test_rows_go_although_objects_cannot_and_objects_follow(
    world: World, own_server: ObjectServer
) -> None:
    bucket = own_server.bucket()
    config = ObjectsConfig.model_validate(own_server.settings(f"s3://{bucket}"))
    objects = BodyObjects(config)
    async with open_postgresql(
        world.place, readers=2, writers=2, objects=objects, clock=lambda: world.now
    ) as store:
        user = await make_user(store, "alice")
        await append(store, user, LARGE)
        await expunge_all(store, user)
        await to_thread(own_server.stop)
        with pytest.raises(StoreUnavailable):
            await swept(world, store)
        assert await rows_of(store, "bodies") == 0
        await to_thread(own_server.start)
        assert len(own_server.objects(bucket)) == 1
        await swept(world, store)
        assert own_server.objects(bucket) == []
        assert await rows_of(store, "orphans") == 0


async def test_what_only_the_object_store_knows_goes_when_it_is_old(world: World) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        await append(store, user, LARGE)
        objects = store.core.objects
        assert objects is not None
        await objects.put(1 << 40, 0, b"of a database that was there before")
        sweeper = Sweeper(store.core)
        assert await sweeper.sweep_objects() == 0  # it is too young
        assert await sweeper.sweep_objects(dt.timedelta(0)) == 1
        await swept(world, store)
        assert len(world.objects) == 1
        assert await bodies_of(store, user) == [LARGE]


async def test_a_copy_has_the_objects_and_may_go_to_either_kind_of_store(
    world: World, tmp_path: Path
) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        for text in (SMALL, LARGE, SEVERAL):
            await append(store, user, text)
        upload = store.mail.upload(limit=100_000_000)
        await upload.write(SEVERAL)  # is not finished, and nobody's loss
        objects = BodyObjects(world.config)
        data = await read_copy(copy_of_postgresql(world.place, tmp_path, "s", objects=objects))
    url = server().create()
    await to_thread(restore_into, Place(url), tmp_path, data)
    async with open_postgresql(Place(url), readers=1) as store:
        assert await bodies_of(store, user) == [SMALL, LARGE, SEVERAL]
    other = ObjectsConfig.model_validate(s3().settings(f"s3://{s3().bucket()}"))
    await to_thread(
        lambda: restore_into(Place(url), tmp_path, data, replace=True, objects=BodyObjects(other))
    )
    with pytest.raises(ValueError, match=r"nmap\.store\.objects is missing"):
        async with open_postgresql(Place(url)):
            pass
    async with open_postgresql(Place(url), readers=1, objects=BodyObjects(other)) as store:
        assert await bodies_of(store, user) == [SMALL, LARGE, SEVERAL]
        assert await rows_of(store, "bodies WHERE elsewhere") == 2
    server().drop(url)


async def test_nothing_is_removed_while_a_copy_is_made(world: World) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        await append(store, user, LARGE)
        await expunge_all(store, user)
        keep = "BEGIN; SELECT pg_advisory_xact_lock_shared({}); SELECT pg_sleep({}); COMMIT"
        name = world.place.url.rpartition("/")[2]
        lock = 0x6E65746D61696C + 1
        copying = asyncio.create_task(to_thread(server().sql, keep.format(lock, 3), name))
        await asyncio.sleep(1)
        world.now += 86_400
        await Sweeper(store.core).sweep()
        assert len(world.objects) == 1
        assert await rows_of(store, "bodies") == 1
        await copying
        await swept(world, store)
        assert world.objects == []


async def test_a_copy_has_what_was_removed_while_it_was_made(world: World, tmp_path: Path) -> None:
    async with world.open() as store:
        user = await make_user(store, "alice")
        for _ in range(20):
            await append(store, user, SEVERAL)
        objects = BodyObjects(world.config)
        make = copy_of_postgresql(world.place, tmp_path, "store", objects=objects)
        copying = asyncio.create_task(read_copy(make))
        while not list(tmp_path.iterdir()):  # noqa: ASYNC110 - a thread makes it
            await asyncio.sleep(0.005)
        await expunge_all(store, user)
        world.now += 86_400
        await Sweeper(store.core).sweep()
        data = await copying
        await swept(world, store)
        assert world.objects == []
    url = server().create()
    await to_thread(restore_into, Place(url), tmp_path, data)
    async with open_postgresql(Place(url), readers=1) as store:
        assert await bodies_of(store, user) == [SEVERAL] * 20
    server().drop(url)


async def test_a_bucket_that_cannot_be_read_stops_the_start(world: World) -> None:
    missing = world.config.model_copy(update={"url": "s3://there-is-no-such-bucket"})
    with pytest.raises(StoreUnavailable):
        async with open_postgresql(world.place, objects=BodyObjects(missing)):
            pass


def test_keys_come_in_pairs() -> None:
    with pytest.raises(ValidationError, match="both or neither"):
        ObjectsConfig.model_validate({"url": "s3://bucket", "access_key_file": "/a"})
