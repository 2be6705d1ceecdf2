"""Failed logins and rates, made from the configuration."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from urllib.parse import quote

from netmail_common.config import ConnectionManagerConfig, Installation
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.connection_checks import ConnectionChecker
from netmail_connmgr.adapters.event_desk import EventDesk
from netmail_connmgr.adapters.failure_counts import FailureCounts
from netmail_connmgr.adapters.grpc_service import ConnectionManagerService
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.adapters.memory_store import boot_time
from netmail_connmgr.adapters.note_journal import NoteJournal
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey_counters import SharedSuspicions, ValkeyCounters
from netmail_connmgr.domain.counters import Counters
from netmail_connmgr.domain.guessing import Guessing, GuessingRules, Suspects
from netmail_connmgr.domain.store import LoginStore
from netmail_connmgr.domain.suspicions import SuspicionBook

__all__ = ["abuse_protection"]

_CLEAN_UP_EVERY = 5.0

log = get_logger(__name__)


@contextlib.asynccontextmanager
async def abuse_protection(
    installation: Installation,
    config: ConnectionManagerConfig,
    service: ConnectionManagerService,
    checker: ConnectionChecker,
    store: LoginStore,
    suspicions: SuspicionBook,
    valkey: Valkey | None,
) -> AsyncIterator[None]:
    """Counts failed logins and mail while the block runs.

    Args:
        installation: names the listeners.
        config: of this Connection Manager.
        service: takes reports.
        checker: judges by failed logins.
        store: of the logins that may be revoked for a rate.
        suspicions: that the service's watchers are told.
        valkey: where replicas count together; None: this process counts for itself.
    """
    desk = service.desk
    async with contextlib.AsyncExitStack() as stack:
        suspects: Suspects = suspicions
        counters: Counters
        if valkey is not None:
            suspects = SharedSuspicions(valkey, suspicions, clock=boot_time)
            await stack.enter_async_context(_running(suspects.run))
            counters = ValkeyCounters(valkey)
        else:
            counters = _memory_counters(installation.state_dir, config.name, stack)
        failures = None
        if config.guessing.enabled:
            guessing = Guessing(
                counters,
                suspects,
                lambda: desk.networks,
                GuessingRules.from_config(config.guessing),
                clock=boot_time,
                listeners=_listeners(installation, config.name),
            )
            failures = FailureCounts(guessing)
            checker.guessing = failures
            desk.count_failure = failures.count_failure
            desk.remember_login = failures.remember
            await stack.enter_async_context(_running(failures.run))
        service.events = EventDesk(
            counters, failures, config.rates, store, lambda: desk.networks, boot_time
        )
        await stack.enter_async_context(_running(lambda: _clean_up(suspicions, counters)))
        yield


def _memory_counters(state: Path, name: str, stack: contextlib.AsyncExitStack) -> MemoryCounters:
    """Counters whose notes are on disk; without a place to write they go on, and say so."""
    path = state / f"connmgr-{quote(name, safe='')}.known-addresses"
    try:
        journal = NoteJournal(path)
    except OSError as error:
        log.warning(
            "known addresses are forgotten with the process",
            file=str(path),
            error=str(error.strerror),
        )
        return MemoryCounters(boot_time)
    stack.callback(journal.close)
    return MemoryCounters(boot_time, journal=journal)


def _listeners(installation: Installation, name: str) -> list[tuple[str, str]]:
    """Messaging Server and name of the listeners whose agents report here."""
    servers = [s for s in installation.messaging_servers if s.connection_manager == name]
    return [
        *((server.name, listener.name) for server in servers for listener in server.smtp.listeners),
        *(
            (server.name, listener.name)
            for server in servers
            for listener in server.pop_imap.listeners
        ),
    ]


async def _clean_up(suspicions: SuspicionBook, counters: Counters) -> None:
    while True:
        await asyncio.sleep(_CLEAN_UP_EVERY)
        suspicions.drop_expired()
        metrics.SUSPECTS.set(len(suspicions))
        if isinstance(counters, MemoryCounters):
            counters.drop_expired()


@contextlib.asynccontextmanager
async def _running(work: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
