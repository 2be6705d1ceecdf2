"""The wall clock of the machine with Redis is set, while it runs."""

import asyncio
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netmail_common.config import ValkeyConfig
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import LoginFilter, Position, RevokeOrder, StoreUnavailable
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    HOME,
    OFFICE,
    live,
    prefixed,
    register,
    valkey_store,
)
from tests.support.valkey import Node, needs_redis, redis_folder, running, server
from tests.support.waiting import until

SOURCE = Path(__file__).parents[2] / "support/skewed_clock.c"
HOUR, DAY = 3600, 86_400

SetClock = Callable[[float], None]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs the Debian package gcc")
    library = tmp_path_factory.mktemp("shim") / "skewed_clock.so"
    build = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(build, check=True)
    return library


@pytest.fixture
def skewed(shim: Path) -> Iterator[tuple[Node, SetClock]]:
    """A Redis, and what sets its wall clock ahead or back by seconds."""
    needs_redis()
    with redis_folder() as folder:
        skew = folder / "skew"

        def set_ahead(seconds: float) -> None:
            with skew.open("r+b") as file:
                file.write(struct.pack("d", seconds))

        skew.write_bytes(struct.pack("d", 0.0))
        node = server(folder)
        node.command = ["env", f"LD_PRELOAD={shim}", f"SKEW_FILE={skew}", *node.command]
        with running(node):
            yield node, set_ahead


@pytest.fixture
def config(skewed: tuple[Node, SetClock]) -> ValkeyConfig:
    return prefixed(ValkeyConfig(addresses=[skewed[0].address], timeout=1.0))


async def set_clock(skewed: tuple[Node, SetClock], store: ValkeyStore, seconds: float) -> None:
    """Sets the clock, and lets the store notice."""
    node, set_ahead = skewed
    before = int((await asyncio.to_thread(node.cli, "TIME")).split()[0])
    set_ahead(seconds)

    async def noticed() -> bool:
        now = int((await asyncio.to_thread(node.cli, "TIME")).split()[0])
        try:
            await store.sync()
        except StoreUnavailable:
            return False
        return abs(now - before) > abs(seconds) / 2

    await until(noticed)


@pytest.mark.parametrize("back", [1, 700, HOUR, 400 * DAY], ids=str)
async def test_a_clock_that_is_set_back_prolongs_no_login(
    skewed: tuple[Node, SetClock], config: ValkeyConfig, back: int
) -> None:
    async with valkey_store(config) as store:
        await register(store, ALICE, HOME, age=896)
        await register(store, BOB, OFFICE, age=100)
        await set_clock(skewed, store, -back)

        async def over() -> bool:
            return not await live(store, HOME)

        await until(over, 10)
        (found,) = await store.find([OFFICE])
        assert 90 < found.now - found.logins[0].verified < 130


@pytest.mark.parametrize("ahead", [20, 700, HOUR, 30 * DAY], ids=str)
async def test_a_clock_that_is_set_forward_forgets_no_revocation(
    skewed: tuple[Node, SetClock], config: ValkeyConfig, ahead: int
) -> None:
    async with valkey_store(config) as store:
        await register(store, ALICE, HOME)
        await store.revoke(RevokeOrder(BOB, None, 0))
        await set_clock(skewed, store, ahead)
        for age in (5, 60, 899):
            late = await register(store, BOB, OFFICE, age=age, session=f"{age}")
            assert late.outcome is Outcome.REVOKED, "it is older than the revocation"
        await asyncio.sleep(3)
        assert (await register(store, BOB, OFFICE, age=0)).outcome is Outcome.REGISTERED
        await store.revoke(RevokeOrder(BOB, None, 0))
        # Logins may end early; whoever registers again is known again.
        assert (await live(store, HOME)) <= {ALICE}
        again = await register(store, ALICE, HOME, session="again", renewal=True)
        assert again.outcome is Outcome.REGISTERED
        assert 890 < again.remaining <= 900
        assert await live(store) == {ALICE}
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            snapshot = await feed.snapshot(logins=True)
            logins = [store.packer.unpack(record) for record in snapshot.records if record]
            current = [one for one in logins if one.expires > snapshot.now]
            assert [one.user for one in current] == [ALICE]
            assert 890 < current[0].expires - snapshot.now <= 901
            assert [one.user for one in snapshot.revocations] == [BOB]


async def test_a_clock_that_jumps_to_and_fro_lets_nobody_stay(
    skewed: tuple[Node, SetClock], config: ValkeyConfig
) -> None:
    async with valkey_store(config) as store:
        await register(store, ALICE, HOME, age=890)
        for seconds in (5000, -5000, 100, -DAY, 0):
            await set_clock(skewed, store, seconds) if seconds else skewed[1](0)

        async def over() -> bool:
            return not (await store.list_logins(LoginFilter(), 10, "")).logins

        await until(over, 15)
