"""The SMTP agent's replica of the login table: snapshot, memory, decision, revocation.

One Connection Manager with LOGINS logins in a process of its own, mutual TLS; the replica is in a
process of its own too, as in a worker of the SMTP agent.
"""

import asyncio
import functools
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from netmail_common.certificates import LocalAuthority
from netmail_common.config import LogConfig
from netmail_common.connmgr import ConnectionManagerClient, LoginReplica
from netmail_common.connmgr.model import Binding, CheckedSender, SenderQuestion
from netmail_common.logging import configure_logging
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role

from bench.harness import Result
from bench.logins import addresses, client_address, message, resident, user
from bench.manager import INSTALLATION, manager_client
from bench.processes import agent
from tests.support.installation import free_port

LOGINS = 1_000_000
FEW = 1000
DECISIONS = 100_000
REVOCATIONS = 500
REPLICAS = 8
_RUNS = 3


def run() -> list[Result]:
    """Measures; one row for each figure."""
    note = f"{LOGINS:,} logins"
    runs = [_measured("whole", LOGINS) for _ in range(_RUNS)]
    revoked = [_measured("revocation", FEW) for _ in range(_RUNS)]
    crowd = f"{REPLICAS} replicas, {REVOCATIONS} revocations among registrations"
    return [
        _row("snapshot, from connecting to fresh", "s", runs, "snapshot", 10.0, note),
        _row("memory of a login in the replica", "octets", runs, "memory", 300.0, note),
        _row("decision by the replica: p50", "us", runs, "p50", 20.0, note),
        _row("decision by the replica: p99", "us", runs, "p99", 100.0, note),
        _row("revocation until the replica obeys: p99", "ms", runs, "revoked", 50.0, note),
        _row("revocation until every replica obeys: p50", "ms", revoked, "p50", None, crowd),
        _row("revocation until every replica obeys: p99", "ms", revoked, "p99", 50.0, crowd),
    ]


def _row(
    name: str, unit: str, runs: list[dict[str, float]], key: str, target: float | None, note: str
) -> Result:
    figures = sorted(one[key] for one in runs)
    return Result(
        name, unit, figures[len(figures) // 2], target=target, runs_ours=figures, note=note
    )


def _measured(what: str, logins: int) -> dict[str, float]:
    """Figures of one run of a process of its own."""
    with tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder:
        certificates = Path(folder) / "certificates"
        authority = LocalAuthority.open_or_create(Path(folder) / "ca", INSTALLATION)
        for role in (Role.CONNMGR, Role.SMTP, Role.ADMIN):
            authority.issue(role, certificates)
        port = free_port()
        with agent("bench.filled_manager", str(certificates), str(port), str(logins)):
            done = subprocess.run(
                [sys.executable, "-m", "bench.replica", what, str(certificates), str(port)],
                check=True,
                stdout=subprocess.PIPE,
                timeout=600,
            )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@asynccontextmanager
async def _replica(certificates: Path, port: int) -> AsyncIterator[LoginReplica]:
    async with manager_client(certificates, port, Role.SMTP) as client:
        networks = NetworkMap(AddressRules())
        replica = LoginReplica(client, networks, max_staleness=10.0, max_logins=2 * LOGINS)
        task = asyncio.create_task(replica.run())
        try:
            yield replica
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not holds():  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.001)


async def _whole(certificates: Path, port: int) -> dict[str, float]:
    gc.collect()
    before = resident()
    start = time.perf_counter()
    async with _replica(certificates, port) as replica:
        await _until(lambda: replica.fresh)
        seconds = time.perf_counter() - start
        gc.collect()
        memory = (resident() - before) / replica.logins
        gc.freeze()
        times = sorted(_decisions(replica, replica.logins))
        async with manager_client(certificates, port) as client:
            revoked = await _revoked(client, [replica])
        return {
            "snapshot": seconds,
            "memory": memory,
            "p50": _at(times, 50),
            "p99": _at(times, 99),
            "revoked": _at(revoked, 99),
        }


def _decisions(replica: LoginReplica, logins: int) -> list[float]:
    """Microseconds of each."""
    times = []
    for number in random.sample(range(logins), DECISIONS):
        address, asked = client_address(number), question(number)
        start = time.perf_counter()
        decision = replica.allows(address, asked)
        times.append((time.perf_counter() - start) * 1e6)
        if decision is None:
            raise RuntimeError("the replica does not know a login")
    return times


def question(number: int) -> SenderQuestion:
    """The user's own address as the only sender."""
    address = addresses(number)[0]
    return SenderQuestion((CheckedSender(address, address, "example.org"),), Binding.DOMAIN)


async def _revocation(certificates: Path, port: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(_replica(certificates, port)) for _ in range(REPLICAS)
        ]
        client = await stack.enter_async_context(manager_client(certificates, port))
        await _until(lambda: all(replica.fresh for replica in replicas))
        times = await _revoked(client, replicas)
        return {"p50": _at(times, 50), "p99": _at(times, 99)}


async def _revoked(client: ConnectionManagerClient, replicas: list[LoginReplica]) -> list[float]:
    """Sorted milliseconds from asking for a revocation until no replica allows its user."""
    times = []
    for number in range(REVOCATIONS):
        await client.register([message(2 * LOGINS + number * 10 + n) for n in range(10)])
        start = time.perf_counter()
        await client.revoke(user=user(number))
        await _until(functools.partial(_nobody_allows, replicas, number))
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)


def _at(times: list[float], percent: int) -> float:
    return times[len(times) * percent // 100]


def _nobody_allows(replicas: list[LoginReplica], number: int) -> bool:
    address, asked = client_address(number), question(number)
    return all(replica.allows(address, asked) is None for replica in replicas)


_PARTS = {"whole": _whole, "revocation": _revocation}

if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"), service="smtp", instance="bench")
    figures = asyncio.run(_PARTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps(figures))
