"""The login table's store, made from the configuration."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from netmail_common.config import ConnectionManagerConfig, Installation, ValkeyConfig
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.mark_journal import MarkJournal
from netmail_connmgr.adapters.memory_store import MemoryStore, boot_time
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import LoginStore
from netmail_connmgr.domain.table import TableLimits

__all__ = ["OpenStore", "open_store"]

START_TIMEOUT = 10.0
"""Seconds to wait for the shared store; then the Connection Manager starts without it, and answers
UNAVAILABLE until it is there."""
_CLEAN_UP_EVERY = 1.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store that is open.

    Attributes:
        logins: the table.
        valkey: where it is, if replicas share it.
    """

    logins: LoginStore
    valkey: Valkey | None = None


@contextlib.asynccontextmanager
async def open_store(
    installation: Installation, config: ConnectionManagerConfig
) -> AsyncIterator[OpenStore]:
    """Opens the store that is configured until the block ends.

    Raises: ConfigError.
    """
    limits = TableLimits(
        login_lifetime=config.login_lifetime,
        max_networks_per_user=config.max_networks_per_user,
        max_logins=config.max_logins,
    )
    if config.valkey is not None:
        async with _shared(config.valkey, limits) as shared:
            yield shared
    else:
        async with _own(installation.state_dir, config, limits) as own:
            yield own


@contextlib.asynccontextmanager
async def _shared(config: ValkeyConfig, limits: TableLimits) -> AsyncIterator[OpenStore]:
    valkey = Valkey(config)
    try:
        store = ValkeyStore(valkey, limits, config)
        async with _running(store.run()):
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    await store.ready()
            except TimeoutError:
                log.warning("starting without the store", addresses=config.addresses)
            yield OpenStore(store, valkey)
    finally:
        await valkey.close()


@contextlib.asynccontextmanager
async def _own(
    state: Path, config: ConnectionManagerConfig, limits: TableLimits
) -> AsyncIterator[OpenStore]:
    with contextlib.ExitStack() as stack:
        journal = _journal(state, config.name)
        if journal is not None:
            stack.callback(journal.close)
        # Nobody has logins to tell again who has never had a Connection Manager here.
        settle = 0.0 if journal is not None and journal.is_new else config.settle_time
        store = MemoryStore(limits, journal=journal, settle=settle)
        metrics.STORE_UP.set(1)
        async with _running(_clean_up(store)):
            yield OpenStore(store)


def _journal(state: Path, name: str) -> MarkJournal | None:
    """The journal of revocations; without a place to write it goes on, and says so."""
    path = state / f"connmgr-{quote(name, safe='')}.revocations"
    try:
        return MarkJournal(path, clock=boot_time)
    except OSError as error:
        log.warning(
            "revocations are forgotten with the process", file=str(path), error=str(error.strerror)
        )
        return None


async def _clean_up(store: MemoryStore) -> None:
    """Lets an idle table shrink, a little at a time."""
    while True:
        await asyncio.sleep(_CLEAN_UP_EVERY)
        while store.drop_expired():  # noqa: ASYNC110 - it gives way between two portions
            await asyncio.sleep(0)
        metrics.LOGINS.set(await store.size())


@contextlib.asynccontextmanager
async def _running(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Lets it run until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
