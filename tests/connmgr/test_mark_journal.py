"""Revocations outlive the process that made them."""

import asyncio
import os
from pathlib import Path

import pytest
from netmail_common.connmgr.model import LoginProtocol, Profile, Registration, UserKey
from netmail_connmgr.adapters.mark_journal import MarkJournal
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.marks import MARK_LIFETIME
from netmail_connmgr.domain.store import RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome, TableLimits

from tests.connmgr.conftest import Clock

ALICE = UserKey("alice", "users.demo")
BOB = UserKey("b\u00f6b", "users.demo")
HOME = b"\xc0\x00\x02\x01"
V6 = bytes.fromhex("20010db800000001") + bytes(8)


class Machine:
    """Clocks of a machine, and Connection Managers that come and go on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state" / "cm1.revocations"
        self.clock, self.wall = Clock(), Clock()
        self.wall.time = 1_800_000_000.0

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.wall.advance(seconds)

    def start(self) -> MemoryStore:
        self.journal = MarkJournal(self.path, clock=self.clock, wall=self.wall)
        return MemoryStore(TableLimits(), clock=self.clock, journal=self.journal)

    def reboot(self) -> None:
        self.journal.close()
        self.clock.time = 1.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def order(
    user: UserKey | None = ALICE, network: bytes | None = None, epoch: int = 0
) -> RevokeOrder:
    return RevokeOrder(user, network, epoch, network, 64 if network else 0, "test")


async def outcome(
    store: MemoryStore, user: UserKey, age: float, epoch: int | None = 1, place: bytes = HOME
) -> Outcome:
    profile = Profile(user)
    protocol = LoginProtocol.IMAP
    item = Registration(profile, place, place, protocol, "mail1", "", "s", age, epoch)
    (answer,) = await store.register([item])
    return answer.outcome


async def test_a_login_that_was_revoked_does_not_come_back_after_a_restart(
    machine: Machine,
) -> None:
    store = machine.start()
    assert await outcome(store, ALICE, 0) is Outcome.REGISTERED
    machine.wait(10)
    assert await store.revoke(order(ALICE)) == 1
    await store.revoke(order(BOB, epoch=7))
    await store.revoke(order(None, V6))
    machine.wait(5)
    machine.reboot()
    machine.wait(60)
    again = machine.start()
    assert await outcome(again, ALICE, 80) is Outcome.REVOKED
    assert await outcome(again, ALICE, 60) is Outcome.REGISTERED
    assert await outcome(again, BOB, 0, epoch=6) is Outcome.REVOKED
    assert await outcome(again, BOB, 0, epoch=7) is Outcome.REGISTERED
    assert await outcome(again, ALICE, 70, place=V6) is Outcome.REVOKED
    assert await outcome(again, ALICE, 1, place=V6) is Outcome.REGISTERED
    machine.journal.close()


async def test_marks_are_forgotten_after_their_lifetime_and_files_do_not_grow_for_ever(
    machine: Machine,
) -> None:
    store = machine.start()
    for day in range(5):
        await store.revoke(order(UserKey(f"user{day}", "c")))
        machine.wait(MARK_LIFETIME)
    files = sorted(machine.path.parent.iterdir())
    assert [len(file.read_bytes().splitlines()) for file in files] == [1, 1]
    machine.journal.close()
    machine.start()
    assert machine.journal.revocations == []
    machine.journal.close()


async def test_half_a_line_was_never_acknowledged_and_does_no_harm(machine: Machine) -> None:
    store = machine.start()
    await store.revoke(order(ALICE))
    machine.journal.close()
    whole = machine.path.read_bytes()
    for cut in range(0, len(whole), 9):
        machine.path.write_bytes(whole + whole[:cut])
        again = machine.start()
        await again.revoke(order(BOB))
        machine.journal.close()
        machine.start()
        assert {one.user for one in machine.journal.revocations} == {ALICE, BOB}
        machine.journal.close()


@pytest.mark.parametrize(
    "junk", [b"null\n", b"[]\n", b"{}\n", b'{"at": "x"}\n', b"\xff\xfe\n", b"\n\n", b"1e999\n"]
)
async def test_junk_in_the_file_is_passed_over(machine: Machine, junk: bytes) -> None:
    machine.path.parent.mkdir()
    machine.path.write_bytes(junk)
    store = machine.start()
    await store.revoke(order(ALICE))
    machine.journal.close()
    machine.start()
    assert [one.user for one in machine.journal.revocations] == [ALICE]
    machine.journal.close()


async def test_a_wall_clock_that_was_set_back_keeps_the_marks(machine: Machine) -> None:
    store = machine.start()
    await store.revoke(order(ALICE))
    machine.reboot()
    machine.wall.time -= 3 * MARK_LIFETIME
    machine.wait(10)
    again = machine.start()
    assert await outcome(again, ALICE, 10) is Outcome.REVOKED
    machine.journal.close()


async def test_a_revocation_that_cannot_be_written_is_not_acknowledged(machine: Machine) -> None:
    store = machine.start()
    assert await outcome(store, ALICE, 0) is Outcome.REGISTERED
    machine.wait(1)
    full = os.open("/dev/full", os.O_WRONLY)
    machine.journal._file, kept = full, machine.journal._file
    with pytest.raises(StoreUnavailable):
        await store.revoke(order(ALICE))
    assert await outcome(store, ALICE, 1) is Outcome.REVOKED
    machine.journal._file = kept
    os.close(full)
    await store.revoke(order(ALICE))
    machine.journal.close()
    machine.start()
    assert len(machine.journal.revocations) == 1
    machine.journal.close()


async def test_revocations_at_the_same_time_share_a_write(machine: Machine) -> None:
    store = machine.start()
    users = [UserKey(f"user{n}", "c") for n in range(200)]
    await asyncio.gather(*(store.revoke(order(user)) for user in users))
    machine.journal.close()
    machine.start()
    assert {one.user for one in machine.journal.revocations} == set(users)
    machine.journal.close()
