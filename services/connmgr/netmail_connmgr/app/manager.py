"""The Connection Manager's process: store, gRPC server, health, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import grpc
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import ConfigError, ConnectionManagerConfig, Installation
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.networks import Address, AddressRules, NetworkMap
from netmail_common.roles import Role

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.audit_trail import audit_trail
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.grpc_service import SERVICE_NAME, ConnectionManagerService
from netmail_connmgr.adapters.mark_journal import MarkJournal
from netmail_connmgr.adapters.memory_store import MemoryStore, boot_time
from netmail_connmgr.adapters.own_addresses import own_addresses
from netmail_connmgr.app.abuse import abuse_protection
from netmail_connmgr.app.connections import connection_rules
from netmail_connmgr.app.front_ends import front_ends
from netmail_connmgr.domain.suspicions import SuspicionBook
from netmail_connmgr.domain.table import TableLimits

__all__ = ["Running", "connection_manager", "run"]

DRAIN_TIMEOUT = 5.0
_CLEAN_UP_EVERY = 1.0
_ADDRESSES_EVERY = 30.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A Connection Manager that serves.

    Attributes:
        ports: of its gRPC server, one for each address that it listens on.
        http_port: of health and metrics; None when off.
        front_end_ports: of the front ends in this process, by name.
    """

    ports: tuple[int, ...]
    http_port: int | None
    front_end_ports: Mapping[str, Sequence[int]]


@contextlib.asynccontextmanager
async def connection_manager(installation: Installation, name: str) -> AsyncIterator[Running]:
    """Serves a Connection Manager of the installation until the block ends, then drains.

    Raises: ConfigError.
    """
    config = _config(installation, name)
    rules = _rules(installation, name)
    journal = _journal(installation.state_dir, name)
    store = MemoryStore(
        TableLimits(
            login_lifetime=config.login_lifetime,
            max_networks_per_user=config.max_networks_per_user,
            max_logins=config.max_logins,
        ),
        journal=journal,
    )
    suspicions = SuspicionBook(boot_time)
    service = ConnectionManagerService(
        store, NetworkMap(rules), max_users_per_network=config.max_users_per_network
    )
    health = Health()

    def register(server: grpc.aio.Server) -> None:
        connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(service, server)

    async with contextlib.AsyncExitStack() as stack:
        if journal is not None:
            stack.callback(journal.close)
        service.audit = await stack.enter_async_context(
            audit_trail(config.audit, name, lambda: service.desk.networks)
        )
        checker = await stack.enter_async_context(
            connection_rules(config, rules, store, service.desk)
        )
        await stack.enter_async_context(
            abuse_protection(installation, config, service, checker, store, suspicions, None)
        )
        cleaner = asyncio.create_task(_clean_up(store))
        stack.push_async_callback(_cancel, cleaner)
        stack.push_async_callback(_cancel, asyncio.create_task(service.watch_stalls()))
        stack.push_async_callback(_cancel, asyncio.create_task(_follow_addresses(service, rules)))
        http_port = await stack.enter_async_context(http_server(config.http.listen, health))
        bound = await stack.enter_async_context(
            grpc_server(
                listen=config.listen,
                identity=Identity.from_folder(installation.certificates, Role.CONNMGR),
                role=Role.CONNMGR,
                installation=installation.installation,
                register=register,
                health=health,
                service_names=[SERVICE_NAME],
                drain_timeout=DRAIN_TIMEOUT,
            )
        )
        stack.callback(service.drain)
        setup = FrontEndSetup(installation, name, rules, service.desk)
        front_end_ports = await stack.enter_async_context(front_ends(setup))
        health.set_ready(True)
        log.info("serving", listen=config.listen, table=store.instance_id)
        yield Running(bound.ports, http_port, front_end_ports)


async def run(installation: Installation, name: str, lifecycle: Lifecycle) -> None:
    """Serves until the drain.

    Raises: ConfigError.
    """
    async with connection_manager(installation, name):
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()


def _config(installation: Installation, name: str) -> ConnectionManagerConfig:
    try:
        return installation.connection_manager(name)
    except KeyError:
        raise ConfigError(f"no connection manager is named {name!r}") from None


def _rules(installation: Installation, name: str) -> AddressRules:
    rules = AddressRules.of_installation(installation, name)
    return replace(rules, own_addresses=_own_addresses())


def _own_addresses() -> frozenset[Address]:
    try:
        return own_addresses()
    except OSError as error:
        log.warning("own addresses are not known", error=str(error))
        return frozenset()


async def _follow_addresses(service: ConnectionManagerService, rules: AddressRules) -> None:
    """Keeps the map of networks up with the addresses of this machine."""
    while True:
        await asyncio.sleep(_ADDRESSES_EVERY)
        known = _own_addresses()
        if known and known != rules.own_addresses:
            log.info("own addresses changed", addresses=sorted(map(str, known)))
            rules = replace(rules, own_addresses=known)
            service.use(NetworkMap(rules))


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


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
