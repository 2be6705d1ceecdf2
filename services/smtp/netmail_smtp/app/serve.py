"""`smtp serve`: receives mail, in as many worker processes as there are cores."""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_network

from netmail_common.acceptor import AcceptorHandle, ClientInfo, accept_connections
from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    Installation,
    MessagingServerConfig,
    SmtpListenerConfig,
)
from netmail_common.connmgr import ConnectionManagerClient, LoginReplica
from netmail_common.connmgr.gate import Gate
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import AgentIdentity, agent_identity
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.networks import AddressRules, Network, NetworkMap
from netmail_common.nmap import DirectoryClient, NmapChannels, QueueClient
from netmail_common.roles import Role
from netmail_common.sasl import Mechanism
from netmail_common.shared_networks import SharedNetworkError, read_trusted_networks
from netmail_common.tls import ServerTls
from netmail_common.workers import run_workers

from netmail_smtp.adapters.lookups import RecipientLookups
from netmail_smtp.adapters.recognition import Recognizer
from netmail_smtp.adapters.revocations import following_logins
from netmail_smtp.adapters.services import Listener, Services, SessionRegistry
from netmail_smtp.adapters.session import SmtpSession
from netmail_smtp.domain.miss_limiter import MissLimiter
from netmail_smtp.domain.relay import RelayPolicy
from netmail_smtp.domain.user_word import UserWords
from netmail_smtp.protocol.reply import Reply

__all__ = ["serve", "serving"]

log = get_logger(__name__)

_BUSY = Reply(421, "4.7.0", "Too many connections, try again later").encode()


async def serve(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    """Receives mail until the lifecycle drains.

    Raises: ConfigError, OSError when it cannot start.
    """
    own = installation.messaging_server(arguments.name)
    if not own.smtp.listeners:
        raise ConfigError(f"messaging server {own.name!r} has no smtp.listeners")
    check_config(installation, own)
    workers = own.smtp.workers
    if arguments.worker is not None or workers == 1:
        await _serve_here(arguments.worker or 0, installation, own, lifecycle, alone=workers == 1)
        return
    command = [sys.executable, "-m", "netmail_smtp", "serve", *arguments.argv()]
    await run_workers(
        workers,
        lambda index: [*command, "--worker", str(index)],
        lifecycle,
        name=f"smtp {own.name}",
        drain_timeout=own.smtp.drain_timeout + 5.0,
    )


def check_config(installation: Installation, own: MessagingServerConfig) -> None:
    """Checks what the schema cannot.

    Raises: ConfigError.
    """
    _allowed_networks(own, _address_rules(installation, own))
    for listener in own.smtp.listeners:
        if listener.proxy_protocol and not listener.proxy_trusted_networks:
            raise ConfigError(
                f"listener {listener.name!r}: proxy_protocol needs proxy_trusted_networks"
            )


async def _serve_here(
    worker: int,
    installation: Installation,
    own: MessagingServerConfig,
    lifecycle: Lifecycle,
    *,
    alone: bool,
) -> None:
    health = Health()
    async with (
        http_server(own.smtp.http.listen, health, port_offset=worker),
        serving(installation, own.name, reuse_port=not alone) as (handles, sessions),
    ):
        # What is here now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        health.set_ready(True)
        lifecycle.announce_ready()
        log.info("receiving", messaging_server=own.name, ports=[h.ports for h in handles])
        await lifecycle.wait_for_drain()
        health.set_ready(False)
        for handle in handles:
            handle.stop_accepting()
        await _drain(sessions, own.smtp.drain_timeout)


@contextlib.asynccontextmanager
async def serving(
    installation: Installation, name: str, *, reuse_port: bool = False
) -> AsyncIterator[tuple[list[AcceptorHandle], SessionRegistry]]:
    """Opens the listeners of the Messaging Server NAME; gives their handles, in order.

    Raises: ConfigError, OSError.
    """
    own = installation.messaging_server(name)
    identity = agent_identity(installation, Role.SMTP)
    channels = NmapChannels(installation, name, identity)
    directory = DirectoryClient(channels)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(channels.close)
        stack.push_async_callback(directory.close)
        sessions = SessionRegistry()
        rules = _address_rules(installation, own)
        networks = NetworkMap(rules)
        checker = _connection_manager(installation, own, identity, networks, stack)
        gate = _gate(installation, own, checker, networks)
        stack.push_async_callback(gate.close)
        replica: LoginReplica | None = None
        if checker is not None:
            replica = await stack.enter_async_context(
                following_logins(
                    checker,
                    networks,
                    sessions.open_sessions,
                    max_staleness=own.smtp.max_staleness,
                    max_logins=own.smtp.replica_max_logins,
                    on_event=gate.take,
                )
            )
        services = Services(
            messaging_server=name,
            host_name=own.host_name,
            postmaster_domain=own.domains[0],
            limits=own.smtp.limits,
            directory=directory,
            lookups=RecipientLookups(directory, own.smtp.recipient_cache),
            queue=QueueClient(channels),
            recognizer=Recognizer(
                checker,
                replica=replica,
                messaging_server=own.name,
                allowed=_allowed_networks(own, rules),
                limiter=MissLimiter(networks),
            ),
            separator_of=lambda server: (
                installation.messaging_server(server).nmap.subaddress_separator
            ),
            sessions=sessions,
            gate=gate,
            user_words=_user_words(own),
        )
        handles = [
            await stack.enter_async_context(
                _open_listener(own, config, services, reuse_port=reuse_port)
            )
            for config in own.smtp.listeners
        ]
        try:
            yield handles, services.sessions
        finally:
            for handle in handles:
                handle.stop_accepting()
            services.sessions.abort()


def _open_listener(
    own: MessagingServerConfig,
    config: SmtpListenerConfig,
    services: Services,
    *,
    reuse_port: bool,
) -> contextlib.AbstractAsyncContextManager[AcceptorHandle]:
    tls = None
    if config.tls != "none":
        tls = ServerTls.from_config(own.tls, config.minimum_tls_version)
    listener = build_listener(own, config, services.directory, tls)

    def session(client: ClientInfo) -> SmtpSession:
        return SmtpSession(client, services, listener)

    return accept_connections(
        config,
        protocol_factory=session,
        tls=tls,
        busy=lambda _client: _BUSY,
        reuse_port=reuse_port,
    )


def build_listener(
    own: MessagingServerConfig,
    config: SmtpListenerConfig,
    directory: DirectoryClient,
    tls: ServerTls | None,
) -> Listener:
    """The rules of one listener."""
    mechanisms: tuple[Mechanism, ...] = ()
    if config.auth:
        mechanisms = tuple(
            mechanism
            for mechanism in map(Mechanism, config.auth_mechanisms)
            if mechanism.reveals_password or directory.scram_offered
        )
    return Listener(
        config=config,
        policy=RelayPolicy(
            submission=config.role == "submission",
            relay_domains=frozenset(own.smtp.relay_domains),
            auth_offered=bool(mechanisms),
            smtp_after_pop=own.ube_relaying.smtp_after_pop and config.smtp_after_pop,
        ),
        after_auth=own.sender_binding.after_auth,
        after_login=own.sender_binding.after_login,
        tls=tls if config.tls == "starttls" else None,
        plaintext_auth_networks=tuple(ip_network(n) for n in config.plaintext_auth_networks),
        mechanisms=mechanisms,
        extensions=frozenset(config.extensions),
    )


def _connection_manager(
    installation: Installation,
    own: MessagingServerConfig,
    identity: AgentIdentity,
    networks: NetworkMap,
    stack: contextlib.AsyncExitStack,
) -> ConnectionManagerClient | None:
    if own.connection_manager is None:
        return None
    manager = installation.connection_manager(own.connection_manager)
    channel = Channel(
        manager.target,
        identity,
        installation=installation.installation,
        expected_role=Role.CONNMGR,
    )
    stack.push_async_callback(channel.close)
    return ConnectionManagerClient(channel, timeout=own.smtp.connmgr_timeout, networks=networks)


def _gate(
    installation: Installation,
    own: MessagingServerConfig,
    client: ConnectionManagerClient | None,
    networks: NetworkMap,
) -> Gate:
    """Who may log in, and how much known senders may send; everybody and anything without one."""
    rates = None
    if own.connection_manager is not None:
        rates = installation.connection_manager(own.connection_manager).rates
    agent = f"smtp/{os.uname().nodename}/{os.getpid()}"
    return Gate(client, networks, messaging_server=own.name, agent=agent, rates=rates)


def _address_rules(installation: Installation, own: MessagingServerConfig) -> AddressRules:
    """Those of the Connection Manager; without one the proxies alone are shared."""
    if own.connection_manager is None:
        proxies = {n for listener in own.smtp.listeners for n in listener.proxy_trusted_networks}
        return AddressRules(shared_networks=tuple(map(ip_network, proxies)))
    return AddressRules.of_installation(installation, own.connection_manager)


def _user_words(own: MessagingServerConfig) -> UserWords | None:
    """What stands for users' names in what leaves; None: the names. Raises: ConfigError."""
    config = own.x_auth_ok
    if config.remote == "name" or config.key_file is None:
        return None
    try:
        return UserWords(config.key_file.read_bytes().strip())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"messaging server {own.name!r}: x_auth_ok.key_file: {config.key_file}: {reason}"
        ) from error


def _allowed_networks(own: MessagingServerConfig, rules: AddressRules) -> tuple[Network, ...]:
    try:
        return read_trusted_networks(own.smtp.allowed_networks, rules, "allowed_networks")
    except SharedNetworkError as error:
        raise ConfigError(f"messaging server {own.name!r}: {error}") from error


async def _drain(sessions: SessionRegistry, seconds: float) -> None:
    """Lets transactions that are under way end; the rest is told to come again."""
    sessions.drain()
    try:
        async with asyncio.timeout(seconds):
            await sessions.wait_empty()
    except TimeoutError:
        log.warning("sessions ended by the drain's end", sessions=len(sessions))
