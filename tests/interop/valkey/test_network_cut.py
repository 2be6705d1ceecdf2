"""The network between a primary and its replica is cut; both sides have a Sentinel."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from netmail_common.config import ValkeyConfig
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import StoreUnavailable

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
from tests.support.installation import free_port
from tests.support.namespaces import NextHost, next_host
from tests.support.valkey import Node, eventually, is_primary, needs_redis, redis_folder, running
from tests.support.waiting import until


@dataclass
class Cut:
    """A primary here; there a replica and the Sentinels' majority."""

    host: NextHost
    primary: Node
    replica: Node
    sentinels: list[str]


def redis_at(folder: Path, address: str, prefix: list[str], *options: str) -> Node:
    port = free_port()
    command = [
        *("redis-server", "--port", str(port), "--bind", address, "--protected-mode", "no"),
        *("--dir", str(folder), "--dbfilename", f"{port}.rdb", "--save", ""),
        *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
        *("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"),
        *options,
    ]
    return Node(port, folder, command, ("-h", address), prefix)


def sentinel_at(folder: Path, address: str, prefix: list[str], primary: str) -> Node:
    port = free_port()
    file = folder / f"sentinel-{port}.conf"
    file.write_text(
        f"port {port}\nbind {address}\nprotected-mode no\ndir {folder}\n"
        f"sentinel monitor netmail {primary} 2\n"
        "sentinel down-after-milliseconds netmail 4000\n"
        "sentinel failover-timeout netmail 6000\n"
    )
    return Node(port, folder, ["redis-sentinel", str(file)], ("-h", address), prefix)


@pytest.fixture
def cut() -> Iterator[Cut]:
    needs_redis(sentinel=True)
    with next_host() as host, redis_folder() as folder:
        there, here = host.address, str(ip_address(host.address) - 1)
        primary = redis_at(folder, here, [])
        joining = ("--replicaof", here, str(primary.port))
        replica = redis_at(folder, there, host.prefix(), *joining)
        watched = f"{here} {primary.port}"
        sentinels = [
            sentinel_at(folder, here, [], watched),
            sentinel_at(folder, there, host.prefix(), watched),
            sentinel_at(folder, there, host.prefix(), watched),
        ]
        with running(primary, replica, *sentinels):
            eventually(lambda: "state=online" in primary.cli("INFO", "replication"), "replica")
            eventually(lambda: all(map(_sees_all, sentinels)), "Sentinels see each other")
            addresses = [f"{one.login[1]}:{one.port}" for one in sentinels]
            yield Cut(host, primary, replica, addresses)


def _sees_all(sentinel: Node) -> bool:
    lines = sentinel.cli("SENTINEL", "MASTER", "netmail", check=False).splitlines()
    fields = dict(zip(lines[::2], lines[1::2], strict=False))
    return (fields.get("num-other-sentinels"), fields.get("num-slaves")) == ("2", "1")


async def allows(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return ALICE in await live(store, HOME)
    return False


async def test_on_the_side_of_the_old_primary_nobody_is_allowed_once_there_is_another(
    cut: Cut,
) -> None:
    config = prefixed(ValkeyConfig(mode="sentinel", addresses=cut.sentinels, timeout=1.0))
    async with valkey_store(config) as store:
        await register(store)
        cut.host.cut()

        async def replaced() -> bool:
            return await asyncio.to_thread(is_primary, cut.replica)

        await until(replaced, 30)
        # The Sentinel on this side does not know it, and still names the old one.
        assert is_primary(cut.primary)
        for _ in range(20):
            assert not await allows(store)
        with pytest.raises(StoreUnavailable):
            await register(store, BOB, OFFICE)
        with pytest.raises(StoreUnavailable):
            await store.sync()
        cut.host.mend()
        await until(lambda: allows(store), 30)
        await until(lambda: _has(store, OFFICE), 30)
        await until(lambda: asyncio.to_thread(lambda: not is_primary(cut.primary)), 30)


async def _has(store: ValkeyStore, place: bytes) -> bool:
    """What was kept meanwhile is registered."""
    with contextlib.suppress(StoreUnavailable):
        return bool(await live(store, place))
    return False
