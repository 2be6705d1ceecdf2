"""`smtp deliver`: works off the queue of its Messaging Server."""

import os
import socket
import time
from dataclasses import dataclass

from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    DeliverConfig,
    FixedKeys,
    Installation,
    MessagingServerConfig,
)
from netmail_common.config_reload import following_config
from netmail_common.grpc_security import agent_identity
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.nmap import NmapChannels, QueueClients
from netmail_common.roles import Role

from netmail_smtp.adapters.deliver_handover import HandOver
from netmail_smtp.adapters.deliver_pool import ConnectionPool
from netmail_smtp.adapters.deliver_queue import LeasedQueue
from netmail_smtp.adapters.deliver_router import Router
from netmail_smtp.adapters.deliver_session import SessionOpener
from netmail_smtp.adapters.deliver_smtp import SmtpTransport
from netmail_smtp.adapters.deliver_worker import Deliverer, Limits
from netmail_smtp.adapters.dns import Resolver
from netmail_smtp.domain.deliver_health import HostHealth
from netmail_smtp.domain.deliver_route import RouteTable

log = get_logger(__name__)


async def deliver(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    """Delivers until the lifecycle drains.

    Raises: ConfigError, OSError when it cannot start.
    """
    own = installation.messaging_server(arguments.name)
    identity = agent_identity(installation, Role.DELIVER)
    channels = NmapChannels(installation, own.name, identity)
    health = Health()
    try:
        async with http_server(own.deliver.http.listen, health):
            sender = build(installation, own, channels)
            health.add_check("queue", lambda: sender.deliverer.queue_answers)
            health.set_ready(True)
            lifecycle.announce_ready()
            log.info("delivering", messaging_server=own.name, queue=own.nmap.target)
            fixed = FixedKeys.of_agent(installation, own.name, "deliver")
            async with following_config(arguments, installation, fixed, sender.use):
                await sender.deliverer.run(lifecycle.draining)
            health.set_ready(False)
            await sender.pool.close()
    finally:
        await channels.close()


@dataclass(frozen=True, slots=True)
class Sender:
    """The parts of `smtp deliver`.

    Attributes:
        name: of the Messaging Server.
        deliverer: works off the queue.
        pool: of sessions with next hops.
        opener: of such sessions.
        router: finds next hops.
    """

    name: str
    deliverer: Deliverer
    pool: ConnectionPool
    opener: SessionOpener
    router: Router

    async def use(self, installation: Installation) -> None:
        """Goes on with other domains and routes; deliveries that are under way keep theirs."""
        own = installation.messaging_server(self.name)
        self.opener.use(own.deliver.routes)
        self.router.use(RouteTable(own.deliver.routes))
        self.deliverer.use(_holders(installation, self.name))


def build(installation: Installation, own: MessagingServerConfig, channels: NmapChannels) -> Sender:
    """Puts the parts together for one Messaging Server.

    Raises: ConfigError.
    """
    config = own.deliver
    helo_name = config.helo_name or own.host_name
    own_names = frozenset({own.host_name, helo_name.lower()})
    host_health = HostHealth(
        first=config.host_backoff, longest=config.host_backoff_max, clock=time.monotonic
    )
    opener = SessionOpener(config, helo_name=helo_name, own_names=own_names)
    pool = ConnectionPool(
        opener.open,
        host_health,
        per_target=config.concurrency_per_destination,
        idle_time=config.connection_idle,
        messages_per_connection=config.messages_per_connection,
    )
    router = Router(
        RouteTable(config.routes),
        _resolver(config),
        own_names=own_names,
        smtp_port=config.smtp_port,
        ipv6=config.ipv6,
    )
    clients = QueueClients(channels)
    reachable = installation.reachable_servers(own.name)
    queue = LeasedQueue(
        clients,
        own.name,
        worker=f"{socket.gethostname()}/{os.getpid()}",
        lease_seconds=config.lease,
    )
    deliverer = Deliverer(
        queue,
        SmtpTransport(router, pool, host_health),
        HandOver(clients, {server.name: server.host_name for server in reachable}),
        holders=_holders(installation, own.name),
        limits=Limits(
            items=config.concurrency,
            per_destination=config.concurrency_per_destination,
            drain=config.drain_timeout,
            lease_margin=min(30.0, config.lease / 10),
        ),
    )
    return Sender(own.name, deliverer, pool, opener, router)


def _holders(installation: Installation, name: str) -> dict[str, str]:
    """The Messaging Server of each domain that NAME reaches."""
    reachable = installation.reachable_servers(name)
    return {domain: server.name for server in reachable for domain in server.domains}


def _resolver(config: DeliverConfig) -> Resolver:
    try:
        return Resolver(config.dns_servers)
    except ValueError as error:
        raise ConfigError(f"deliver.dns_servers: {error}") from error


__all__ = ["Sender", "build", "deliver"]
