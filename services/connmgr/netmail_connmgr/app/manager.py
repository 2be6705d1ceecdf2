"""The Connection Manager's process: store, gRPC server, health, drain."""

import asyncio
import contextlib
import functools
import gc
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netmail.connmgr.v1.connmgr_pb2_grpc import (
    add_ConnectionManagerServiceServicer_to_server as _add_to_server,
)
from netmail_common.certificates import Identity
from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    ConnectionManagerConfig,
    FixedKeys,
    Installation,
)
from netmail_common.config_reload import Take, following_config
from netmail_common.grpc_security import AgentIdentity, agent_identity
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role

from netmail_connmgr.adapters.audit_trail import audit_trail
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.grpc_addresses import AddressDesk
from netmail_connmgr.adapters.grpc_service import SERVICE_NAME, ConnectionManagerService
from netmail_connmgr.adapters.memory_store import boot_time
from netmail_connmgr.app.abuse import abuse_protection
from netmail_connmgr.app.addresses import SharedAddresses, kept_up_to_date, known_own_addresses
from netmail_connmgr.app.connections import connection_rules
from netmail_connmgr.app.front_ends import FrontEnds, front_ends, prepare
from netmail_connmgr.app.live import LiveManager
from netmail_connmgr.app.stores import open_store
from netmail_connmgr.app.workers import (
    owner_target,
    run_worker,
    worker_command,
    worker_processes,
)
from netmail_connmgr.domain.probe import ProbeTokens
from netmail_connmgr.domain.suspicions import SuspicionBook

__all__ = ["Running", "connection_manager", "run"]

DRAIN_TIMEOUT = 5.0
_IN_CLUSTER = "NETMAIL_KUBERNETES"
"""Environment: set in a pod of the chart."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A Connection Manager that serves.

    Attributes:
        ports: of its gRPC server, one for each address that it listens on.
        http_port: of health and metrics; None when off.
        front_end_ports: of the front ends in this process, by name.
        use: goes on with another configuration.
    """

    ports: tuple[int, ...]
    http_port: int | None
    front_end_ports: Mapping[str, Sequence[int]]
    use: Take


@contextlib.asynccontextmanager
async def connection_manager(
    installation: Installation, name: str, command: Sequence[str] = ()
) -> AsyncIterator[Running]:
    """Serves a Connection Manager of the installation until the block ends, then drains.

    Args:
        command: command line of its workers, but for their index; empty: this process serves the
            front ends itself, whatever front_end_workers says.

    Raises: ConfigError; OSError.
    """
    config = _config(installation, name)
    configured = _rules(installation, name)
    suspicions = SuspicionBook(boot_time)
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_store(installation, config))
        store = opened.logins
        service = ConnectionManagerService(
            store,
            NetworkMap(configured),
            max_users_per_network=config.max_users_per_network,
            suspicions=suspicions,
        )
        shared = SharedAddresses(configured, service.use, store)
        await stack.enter_async_context(
            kept_up_to_date(
                shared,
                learn_cluster=config.learn_cluster_networks,
                in_cluster=bool(os.environ.get(_IN_CLUSTER)),
            )
        )
        rules = shared.rules
        identity = agent_identity(installation, Role.CONNMGR)
        service.addresses = AddressDesk(
            networks=lambda: service.desk.networks,
            cluster=lambda: shared.cluster,
            tokens=ProbeTokens(_probe_key(identity)),
            learns=config.learn_cluster_networks,
        )
        service.audit = await stack.enter_async_context(
            audit_trail(config.audit, name, lambda: service.desk.networks)
        )
        connections = await stack.enter_async_context(
            connection_rules(config, rules, store, service.desk)
        )
        checker = connections.checker
        abuse = await stack.enter_async_context(
            abuse_protection(
                installation, config, service, checker, store, suspicions, opened.valkey
            )
        )
        stack.push_async_callback(_cancel, asyncio.create_task(service.watch_stalls()))
        http_port = await stack.enter_async_context(http_server(config.http.listen, health))
        bound = await stack.enter_async_context(
            grpc_server(
                listen=config.listen,
                identity=identity,
                role=Role.CONNMGR,
                installation=installation.installation,
                register=functools.partial(_add_to_server, service),
                health=health,
                service_names=[SERVICE_NAME],
                drain_timeout=DRAIN_TIMEOUT,
                max_connection_age=config.max_connection_age,
            )
        )
        stack.callback(service.drain)
        setup = FrontEndSetup(installation, name, rules, service.desk)
        served: FrontEnds | None = None
        if config.front_end_workers and command:
            prepare(setup)  # says what is wrong before any worker is started
            owner = owner_target(config.listen[0], bound.ports[0])
            await stack.enter_async_context(
                worker_processes(config.front_end_workers, command, owner)
            )
        else:
            served = await stack.enter_async_context(front_ends(setup))
        health.set_ready(True)
        log.info("serving", listen=config.listen, table=store.instance_id)
        live = LiveManager(name, service, shared, connections, abuse, served)
        yield Running(bound.ports, http_port, served.ports if served is not None else {}, live.use)


async def run(arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle) -> None:
    """Serves until the drain; as a worker the front ends only.

    Raises: ConfigError; OSError.
    """
    if arguments.worker is not None:
        await run_worker(arguments, installation, arguments.worker, lifecycle)
        return
    fixed = FixedKeys.of_connection_manager(arguments.name)
    async with (
        connection_manager(installation, arguments.name, worker_command(arguments)) as running,
        following_config(arguments, installation, fixed, running.use),
    ):
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()


def _config(installation: Installation, name: str) -> ConnectionManagerConfig:
    try:
        return installation.connection_manager(name)
    except KeyError:
        raise ConfigError(f"no connection manager is named {name!r}") from None


def _probe_key(identity: AgentIdentity) -> bytes:
    """The certificate's key, which all replicas have; without one each knows its own tokens."""
    if isinstance(identity, Identity):
        return identity.current().key
    return secrets.token_bytes(32)


def _rules(installation: Installation, name: str) -> AddressRules:
    rules = AddressRules.of_installation(installation, name)
    return replace(rules, own_addresses=known_own_addresses())


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
