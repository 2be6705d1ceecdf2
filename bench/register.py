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

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import Installation, ValkeyConfig, load_config
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.table import TableLimits

from bench.deliver import agent
from bench.harness import Result
from bench.logins import addresses, client_address, user
from tests.support.installation import free_port
from tests.support.valkey import one_redis

IN_FLIGHT = 64
CALLS = 6000
RUNS = 5
AIMS = {"memory, gathered": 2000.0, "Redis, gathered": 1000.0}
_CONFIG = """\
log: {{level: warning, format: json}}
connection_managers:
  - {{name: cm1, listen: ["127.0.0.1:{port}"], {store}}}
messaging_servers:
  - name: mail1
    host_name: mail1.example.org
    domains: [example.org]
    connection_manager: cm1
    contexts: [{{name: users.demo}}]
    nmap: {{listen: ["127.0.0.1:{unused}"]}}
"""

Register = Callable[[ConnectionManagerClient, pb.LoginRegistration], Awaitable[object]]


def run() -> list[Result]:
    """Measures; a row for each store and way of calling."""
    rows = []
    with _manager("store: memory") as manager:
        rows += asyncio.run(_measure("memory", *manager))
    with one_redis("--appendonly", "yes", "--appendfsync", "everysec") as redis:
        section = f'store: valkey, valkey: {{addresses: ["{redis.address}"]}}'
        with _manager(section) as manager:
            rows += asyncio.run(_measure("Redis", *manager))
        rows.append(asyncio.run(_reading(redis.address)))
    return rows


@contextlib.contextmanager
def _manager(store: str) -> Iterator[tuple[int, Installation]]:
    """A Connection Manager in a process of its own; its port."""
    with tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder:
        state, port = Path(folder), free_port()
        config = state / "config.yaml"
        text = _CONFIG.format(port=port, unused=free_port(), store=store)
        config.write_text(text, encoding="utf-8")
        installation = load_config(config, state=state)
        authority = LocalAuthority.open_or_create(state / "ca", installation.installation)
        for role in (Role.CONNMGR, Role.ADMIN):
            authority.issue(role, installation.certificates)
        options = ("--config", str(config), "--state", folder, "--name", "cm1")
        with agent("netmail_connmgr", *options):
            yield port, installation


async def _measure(store: str, port: int, installation: Installation) -> list[Result]:
    identity = Identity.from_folder(installation.certificates, Role.ADMIN)
    channel = Channel(
        f"127.0.0.1:{port}",
        identity,
        installation=installation.installation,
        expected_role=Role.CONNMGR,
    )
    client = ConnectionManagerClient(channel)
    numbers = itertools.count()
    ways: dict[str, Register] = {
        "gathered": lambda client, login: client.register_one(login),
        "alone": lambda client, login: client.register([login]),
    }
    try:
        await _rate(client, ways["alone"], numbers)
        figures = {way: [await _rate(client, call, numbers) for _ in range(RUNS)]
                   for way, call in ways.items()}  # fmt: skip
    finally:
        await channel.close()
    return [_row(f"{store}, {way}", rates) for way, rates in figures.items()]


async def _rate(
    client: ConnectionManagerClient, register: Register, numbers: Iterator[int]
) -> float:
    """Registrations a second."""
    ours = iter(list(itertools.islice(numbers, CALLS)))

    async def lane() -> None:
        for number in ours:
            await register(client, _login(number))

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


def _login(number: int) -> pb.LoginRegistration:
    name, context = user(number)
    return pb.LoginRegistration(
        user=pb.UserKey(name=name, context=context),
        addresses=addresses(number),
        client_address=client_address(number),
        protocol=pb.PROTOCOL_IMAP,
        messaging_server="mail1",
        agent="bench",
        session_id=f"{number:032x}",
        credential_epoch=1,
        domains=["example.org"],
    )
