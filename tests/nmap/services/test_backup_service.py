"""BackupService on a real store, and the copy put in the place of another."""

import asyncio
import hashlib
import io
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from netmail.nmap.v1 import backup_pb2 as pb
from netmail.nmap.v1 import backup_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import Installation
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.roles import Role
from netmail_nmap.adapters.backup import MAX_READ, StoreCopies, copy_of_database
from netmail_nmap.adapters.restore import RestoreRefused, restore_store
from netmail_nmap.adapters.sql import Store, open_store
from netmail_nmap.app import nmap_agent
from netmail_nmap.domain.delivery import QueueFilter
from netmail_nmap.domain.errors import BackupGone, StoreUnavailable
from netmail_nmap.domain.mail import OpenRequest

from tests.nmap.agents import two_servers
from tests.nmap.copies import append, bodies_of, queue_one, read_copy, restore

Backups = Callable[[Role], "backup_pb2_grpc.BackupServiceAsyncStub"]


@pytest.fixture
async def backups(
    tmp_path: Path, certificates: Path, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[Backups]:
    """Stubs by role to an agent that runs."""
    installation: Installation = two_servers(tmp_path, certificates)
    channels: list[Channel] = []

    def stub(role: Role) -> "backup_pb2_grpc.BackupServiceAsyncStub":
        target = installation.messaging_server("mail1").nmap.target
        channel = Channel(
            target, identity_for(role), installation="netmail", expected_role=Role.NMAP
        )
        channels.append(channel)
        return backup_pb2_grpc.BackupServiceStub(channel.raw)

    async with nmap_agent(installation, "mail1"):
        yield stub
        for channel in channels:
            await channel.close()


async def prepared(stub: "backup_pb2_grpc.BackupServiceAsyncStub") -> pb.PrepareBackupResponse:
    answer = await stub.PrepareBackup(pb.PrepareBackupRequest(wait_seconds=0))
    while not answer.ready:
        answer = await stub.PrepareBackup(
            pb.PrepareBackupRequest(backup_id=answer.backup_id, wait_seconds=5)
        )
    return answer


async def refused(call: Awaitable[object]) -> str | None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_reason(raised.value)


async def test_a_copy_is_read_in_pieces_and_is_what_its_checksum_says(
    backups: Backups, tmp_path: Path
) -> None:
    stub = backups(Role.ADMIN)
    answer = await prepared(stub)
    assert (answer.engine, len(answer.store_id)) == ("sqlite", 8)
    data = b""
    while len(data) < answer.size:
        piece = await stub.ReadBackup(
            pb.ReadBackupRequest(backup_id=answer.backup_id, offset=len(data), length=50_000)
        )
        data += piece.data
    assert hashlib.sha256(data).digest() == answer.sha256
    copied = tmp_path / "copied.db"
    copied.write_bytes(data)
    with sqlite3.connect(copied) as connection:
        names = connection.execute("SELECT name FROM users ORDER BY name").fetchall()
    connection.close()
    assert names == [("alice",), ("bob",)]
    assert not list(tmp_path.rglob("*.copy"))
    await stub.EndBackup(pb.EndBackupRequest(backup_id=answer.backup_id))
    read = pb.ReadBackupRequest(backup_id=answer.backup_id, offset=0, length=1)
    assert await refused(stub.ReadBackup(read)) == "BACKUP_GONE"


async def test_one_backup_at_a_time(
    backups: Backups,
) -> None:
    stub = backups(Role.ADMIN)
    answer = await prepared(stub)
    assert await refused(stub.PrepareBackup(pb.PrepareBackupRequest())) == "BACKUP_UNDER_WAY"
    too_much = pb.ReadBackupRequest(backup_id=answer.backup_id, length=MAX_READ + 1)
    assert await refused(stub.ReadBackup(too_much)) == "INVALID_REQUEST"
    await stub.EndBackup(pb.EndBackupRequest(backup_id=answer.backup_id))
    assert (await prepared(stub)).ready


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
async def test_no_agent_gets_a_copy(backups: Backups, role: Role) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await backups(role).PrepareBackup(pb.PrepareBackupRequest())
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


# -- the copy itself ---------------------------------------------------------------------------


async def make_user(store: Store) -> int:
    statement = (
        "INSERT INTO users (context, name, name_key, created_at) VALUES ('c', 'alice', 'alice', 0)"
    )
    return await store.core.writer.run(lambda t: int(t.driver.execute(statement).lastrowid))


async def copy_of(path: Path) -> bytes:
    return await read_copy(copy_of_database(path))


async def test_a_copy_made_under_writes_has_each_message_whole_and_none_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=2) as store:
        user = await make_user(store)
        written = 0
        enough = asyncio.Event()

        async def write() -> None:
            nonlocal written
            while True:
                await append(store, user, b"A: %d\r\n\r\n" % written + b"x" * 100_000)
                written += 1
                if written == 20:
                    enough.set()

        writing = asyncio.create_task(write())
        await enough.wait()
        before = written
        data = await copy_of(path)
        after = written
        writing.cancel()
    restore(tmp_path / "other.db", data)
    async with open_store(f"sqlite:///{tmp_path}/other.db", readers=1) as store:
        bodies = await bodies_of(store, user)
        assert before <= len(bodies) <= after + 1
        assert all(
            body == b"A: %d\r\n\r\n" % number + b"x" * 100_000 for number, body in enumerate(bodies)
        )


async def test_what_was_given_out_after_the_copy_is_never_given_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        user = await make_user(store)
        await append(store, user, b"A: kept\r\n\r\n")
        data = await copy_of(path)
        lost = await append(store, user, b"A: lost\r\n\r\n")
        opened = OpenRequest(user, "INBOX", with_object_ids=True)
        old = await store.mail.open_mailbox(opened)
    restore(path, data, replace=True)
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        new_uid = await append(store, user, b"A: new\r\n\r\n")
        new = await store.mail.open_mailbox(opened)
        assert new_uid > lost
        assert new.state.uid_validity == old.state.uid_validity
        assert new.messages.uids[0] == old.messages.uids[0]
        assert new.messages.object_ids[0] == old.messages.object_ids[0]
        assert new.messages.object_ids[1] not in old.messages.object_ids
        # Who asks for what changed since then hears of every message.
        assert min(new.messages.modseqs) > old.state.highest_modseq
        created = await store.mail.create_mailbox(user, "Another")
        assert created.id > 1 << 32


@pytest.mark.parametrize("hold", [True, False])
async def test_the_restored_queue_waits_for_the_operator_or_goes_on(
    tmp_path: Path, hold: bool
) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        await queue_one(store, 1)
        await queue_one(store, 2)
        assert len(await store.queue.lease(limit=1, seconds=600, wait=0, worker="w")) == 1
        data = await copy_of(path)
    restore(tmp_path / "other.db", data, hold=hold)
    async with open_store(f"sqlite:///{tmp_path}/other.db", readers=1) as store:
        leased = await store.queue.lease(limit=10, seconds=60, wait=0, worker="w")
        assert len(leased) == (0 if hold else 1)
        if hold:
            assert await store.queue.release(QueueFilter()) == 2
            leased = await store.queue.lease(limit=10, seconds=60, wait=0, worker="w")
            assert len(leased) == 2


async def test_a_store_in_use_or_not_empty_or_a_damaged_copy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        await make_user(store)
        data = await copy_of(path)
        with pytest.raises(StoreUnavailable, match="in use"):
            restore(path, data, replace=True)
    before = path.read_bytes()
    with pytest.raises(RestoreRefused, match="not empty"):
        restore(path, data)
    other = tmp_path / "other.db"
    with pytest.raises(RestoreRefused, match="checksum"):
        restore_store(other, io.BytesIO(data), sha256="00", replace=False, hold_queue=True)
    with pytest.raises(RestoreRefused, match=r"damaged|not a store"):
        restore(other, data[:8192] + bytes(16_384) + data[24_576:])
    with pytest.raises(RestoreRefused, match="not a store"):
        restore(other, b"what is this")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.glob("other.db*")] == ["other.db.lock"]


async def test_a_copy_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        await store.core.writer.run(
            lambda t: t.driver.execute("UPDATE alembic_version SET version_num = '9999'").rowcount
        )
        data = await copy_of(path)
    with pytest.raises(RestoreRefused, match="newer NetMail"):
        restore(tmp_path / "other.db", data)


async def test_the_store_that_was_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1) as store:
        user = await make_user(store)
        await append(store, user, b"A: b\r\n\r\n")
        data = await copy_of(path)
    restore(path, data, replace=True)
    (kept,) = tmp_path.glob("store.db.before-*")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    connection.close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_copy_that_nobody_reads_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_store(f"sqlite:///{path}", readers=1):
        copies = StoreCopies(copy_of_database(path), idle=0.2)
        copy_id = copies.begin()
        for _ in range(200):
            await asyncio.sleep(0.02)
            if copies._copy is None:
                break
        with pytest.raises(BackupGone):
            await copies.wait(copy_id, 0)
        copies = StoreCopies(copy_of_database(path))
        copies.begin()
        await copies.close()
        assert not list(tmp_path.glob("*.copy"))
