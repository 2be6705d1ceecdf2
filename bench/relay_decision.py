"""The relay decision by RPC, and the registration of a login: how long a client waits for them.

One Connection Manager in a process of its own, mutual TLS, LOGINS logins in its table; the client
is the library that the agents use. One at a time, then IN_FLIGHT at once, where calls are gathered.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import ConnectionManagerClient

from bench.harness import Result
from bench.logins import addresses, client_address, message
from bench.manager import Manager, connection_manager, manager_client

LOGINS = 100_000
CALLS = 2000
IN_FLIGHT = 64
RUNS = 5

Call = Callable[[int], Awaitable[object]]


def run() -> list[Result]:
    """Measures; one row for each figure."""
    with (
        tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder,
        connection_manager(Path(folder)) as manager,
    ):
        return asyncio.run(_measure(manager))


async def _measure(manager: Manager) -> list[Result]:
    async with manager_client(manager.certificates, manager.port) as client:
        await _fill(client)
        check: Call = lambda _: client.check_sender(_check(random.randrange(LOGINS)))  # noqa: E731
        miss: Call = lambda _: client.check_sender(_check(LOGINS + 1))  # noqa: E731
        register: Call = lambda n: client.register_one(  # noqa: E731
            message(random.randrange(LOGINS), session=f"again {n}")
        )
        return [
            *await _rows("relay decision, known address", check),
            *await _rows("relay decision, unknown address", miss),
            *await _rows("registration of a login", register),
        ]


async def _fill(client: ConnectionManagerClient) -> None:
    for first in range(0, LOGINS, 1000):
        await client.register([message(n) for n in range(first, first + 1000)])


async def _rows(name: str, call: Call) -> list[Result]:
    await _one_at_a_time(call)
    alone = [await _one_at_a_time(call) for _ in range(RUNS)]
    crowd = [await _crowded(call) for _ in range(RUNS)]
    note = f"{LOGINS:,} logins, log level warning"
    return [
        _median(f"{name}: p50", "ms", [times[len(times) // 2] for times in alone], note),
        _median(f"{name}: p99", "ms", [times[len(times) * 99 // 100] for times in alone], note),
        _median(f"{name}: {IN_FLIGHT} at once, p50", "ms", [_at(c[1], 50) for c in crowd], note),
        _median(f"{name}: {IN_FLIGHT} at once, p99", "ms", [_at(c[1], 99) for c in crowd], note),
        _median(f"{name}: {IN_FLIGHT} at once", "1/s", [c[0] for c in crowd], note),
    ]


def _median(name: str, unit: str, figures: list[float], note: str) -> Result:
    return Result(name, unit, statistics.median(figures), runs_ours=figures, note=note)


def _at(times: list[float], percent: int) -> float:
    return times[len(times) * percent // 100]


async def _one_at_a_time(call: Call) -> list[float]:
    """Sorted times in milliseconds."""
    return sorted([await _timed(call, number) for number in range(CALLS)])


async def _crowded(call: Call) -> tuple[float, list[float]]:
    """Calls a second, and sorted times in milliseconds."""
    numbers = iter(range(CALLS * 4))

    async def worker() -> list[float]:
        return [await _timed(call, number) for number in numbers]

    start = time.perf_counter()
    times = await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    seconds = time.perf_counter() - start
    return CALLS * 4 / seconds, sorted(one for several in times for one in several)


async def _timed(call: Call, number: int) -> float:
    start = time.perf_counter()
    await call(number)
    return (time.perf_counter() - start) * 1000


def _check(number: int) -> pb.SenderCheck:
    return pb.SenderCheck(
        client_address=client_address(number),
        senders=addresses(number)[:1],
        binding=pb.SENDER_BINDING_DOMAIN,
        messaging_server="mail1",
    )
