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

__all__ = ["AbuseProtection", "abuse_protection"]

_CLEAN_UP_EVERY = 5.0

log = get_logger(__name__)


class AbuseProtection:
    """What counts failed logins and mail. Belongs to its event loop.

    Args:
        guessing: judges by failed logins.
        failures: the same, for those who must go on without.
        events: takes reports of the agents.
        service: whose desk tells of failed logins.
        checker: judges connections.
    """

    def __init__(
        self,
        guessing: Guessing,
        failures: FailureCounts,
        events: EventDesk,
        service: ConnectionManagerService,
        checker: ConnectionChecker,
    ) -> None:
        self._guessing = guessing
        self._failures = failures
        self._events = events
        self._desk = service.desk
        self._checker = checker

    def use(self, installation: Installation, config: ConnectionManagerConfig) -> None:
        """Counts by the configuration from now on; what was counted stays."""
        self._guessing.use(
            GuessingRules.from_config(config.guessing), _listeners(installation, config.name)
        )
        failures = self._failures if config.guessing.enabled else None
        self._checker.guessing = failures
        self._desk.count_failure = failures.count_failure if failures else None
        self._desk.remember_logins = failures.remember if failures else None
        self._events.use(failures, config.rates)


@contextlib.asynccontextmanager
async def abuse_protection(
    installation: Installation,
    config: ConnectionManagerConfig,
    service: ConnectionManagerService,
    checker: ConnectionChecker,
    store: LoginStore,
    suspicions: SuspicionBook,
    valkey: Valkey | None,
) -> AsyncIterator[AbuseProtection]:
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
        rules = GuessingRules.from_config(config.guessing)
        guessing = Guessing(counters, suspects, lambda: desk.networks, rules, clock=boot_time)
        failures = FailureCounts(guessing)
        events = EventDesk(counters, None, config.rates, store, lambda: desk.networks, boot_time)
        protection = AbuseProtection(guessing, failures, events, service, checker)
        protection.use(installation, config)
        service.events = desk.events = events
        await stack.enter_async_context(_running(failures.run))
        await stack.enter_async_context(_running(lambda: _clean_up(suspicions, counters)))
        yield protection


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
