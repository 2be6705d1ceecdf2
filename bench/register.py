"""Registrations a second over gRPC, with the table in memory and in Redis; IN_FLIGHT at once.

A Connection Manager in a process of its own, mutual TLS; Redis is Debian's, with its append-only
file synced every second. Every login is new: an address and a user that were not there before.
`gathered`: as the agents call, so that what waits goes together; `alone`: a call for each login.
At the end a second Connection Manager reads the table that is there by then.
"""

import asyncio
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ValkeyConfig
from netmail_common.connmgr import ConnectionManagerClient
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.table import TableLimits

from bench.harness import Result
from bench.logins import message
from bench.manager import Manager, connection_manager, manager_client
from tests.support.valkey import one_redis

IN_FLIGHT = 64
CALLS = 6000
RUNS = 5
AIMS = {"memory, gathered": 2000.0, "Redis, gathered": 1000.0}

Register = Callable[[ConnectionManagerClient, pb.LoginRegistration], Awaitable[object]]


def run() -> list[Result]:
    """Measures; a row for each store and way of calling."""
    rows = []
    with _manager(store="memory") as manager:
        rows += asyncio.run(_measure("memory", manager))
    with one_redis("--appendonly", "yes", "--appendfsync", "everysec") as redis:
        with _manager(store="valkey", valkey={"addresses": [redis.address]}) as manager:
            rows += asyncio.run(_measure("Redis", manager))
        rows.append(asyncio.run(_reading(redis.address)))
    return rows


@contextlib.contextmanager
def _manager(**store: Any) -> Iterator[Manager]:
    with (
        tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder,
        connection_manager(Path(folder), **store) as manager,
    ):
        yield manager


async def _measure(store: str, manager: Manager) -> list[Result]:
    numbers = itertools.count()
    ways: dict[str, Register] = {
        "gathered": lambda client, login: client.register_one(login),
        "alone": lambda client, login: client.register([login]),
    }
    async with manager_client(manager.certificates, manager.port) as client:
        await _rate(client, ways["alone"], numbers)
        figures = {way: [await _rate(client, call, numbers) for _ in range(RUNS)]
                   for way, call in ways.items()}  # fmt: skip
    return [_row(f"{store}, {way}", rates) for way, rates in figures.items()]


async def _rate(
    client: ConnectionManagerClient, register: Register, numbers: Iterator[int]
) -> float:
    """Registrations a second."""
    ours = iter(list(itertools.islice(numbers, CALLS)))

    async def lane() -> None:
        for number in ours:
            await register(client, message(number))

    begun = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return CALLS / (time.perf_counter() - begun)


async def _reading(address: str) -> Result:
    """Seconds until another Connection Manager has read the table."""
    config = ValkeyConfig(addresses=[address])
    seconds, count = [], 0
    for _ in range(RUNS):
        valkey = Valkey(config)
        store = ValkeyStore(valkey, TableLimits(), config)
        begun = time.perf_counter()
        following = asyncio.create_task(store.run())
        await store.ready()
        seconds.append(time.perf_counter() - begun)
        count = await store.size()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await valkey.close()
    return Result(
        f"reading a table of {count:,} logins from Redis",
        "s",
        statistics.median(seconds),
        runs_ours=seconds,
    )


def _row(name: str, rates: list[float]) -> Result:
    rate, aim = statistics.median(rates), AIMS.get(name)
    return Result(
        f"RegisterLogin, {name}",
        "1/s",
        rate,
        theirs=aim,
        ratio=rate / aim if aim else None,
        target=1.0 if aim else None,
        peer="the aim" if aim else "",
        runs_ours=rates,
        note=f"{IN_FLIGHT} in flight, mutual TLS",
    )
