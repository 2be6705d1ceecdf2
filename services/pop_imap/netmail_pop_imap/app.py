"""The POP/IMAP agent's process: clients of the other agents, listeners, drain."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from random import SystemRandom
from typing import Self

from netmail_common.acceptor import AcceptorHandle, ClientInfo, accept_connections
from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    FixedKeys,
    Installation,
    MailListenerConfig,
    MessagingServerConfig,
    PopImapConfig,
)
from netmail_common.config_reload import following_config
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.connmgr.gate import Gate
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import AgentIdentity, agent_identity
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.nmap import DirectoryClient, MailboxClients, NmapChannels
from netmail_common.roles import Role
from netmail_common.tls import ServerTls

from netmail_pop_imap.adapters.connection import ConnectionFactory
from netmail_pop_imap.adapters.context import ListenerContext
from netmail_pop_imap.adapters.imap import ImapConnection
from netmail_pop_imap.adapters.imap_hub import MailboxHub
from netmail_pop_imap.adapters.logins import Agent, LoginRegistrar
from netmail_pop_imap.adapters.maildrop_stream import MaildropStreams
from netmail_pop_imap.adapters.pop3 import Pop3Connection
from netmail_pop_imap.adapters.sessions import SessionSet

log = get_logger(__name__)

CONNECTIONS: Mapping[str, ConnectionFactory] = {"pop3": Pop3Connection, "imap": ImapConnection}
"""What serves a listener of each protocol."""

BUSY = {
    "pop3": b"-ERR [SYS/TEMP] too many connections\r\n",
    "imap": b"* BYE [UNAVAILABLE] too many connections\r\n",
}


class PopImapAgent:
    """What one process runs: every listener of a Messaging Server.

    Use it as a context manager; `ports` are known inside.

    Args:
        installation: the configuration.
        server_name: the Messaging Server.
        worker: index of a worker process; None when this is the only process.
        failure_delay: seconds before a session's first failed login is answered.
    """

    def __init__(
        self,
        installation: Installation,
        server_name: str,
        *,
        worker: int | None = None,
        failure_delay: float = 0.5,
    ) -> None:
        self.installation = installation
        self.server: MessagingServerConfig = installation.messaging_server(server_name)
        self.health = Health()
        self.sessions = SessionSet()
        self.ports: dict[str, tuple[int, ...]] = {}
        """Of each listener, by its name."""
        self.mailbox_hub: MailboxHub
        self._contexts: dict[str, ListenerContext] = {}
        self._directory: DirectoryClient
        self._gate: Gate
        self._worker = worker
        self._failure_delay = failure_delay
        self._acceptors: list[AcceptorHandle] = []
        self._stack = AsyncExitStack()

    @property
    def _config(self) -> PopImapConfig:
        return self.server.pop_imap

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def drain(self) -> None:
        """No new connections; those that are open end with a farewell, spread over a while."""
        self.health.set_ready(False)
        for acceptor in self._acceptors:
            acceptor.stop_accepting()
        await self.sessions.drain(self._config.drain_timeout, SystemRandom())

    async def use(self, installation: Installation) -> None:
        """Goes on with another configuration; open connections end with the limits they had."""
        own = installation.messaging_server(self.server.name)
        self.installation, self.server = installation, own
        self._directory.use(installation)
        self._gate.use(_networks(installation, own), None)
        for listener in own.pop_imap.listeners:
            self._contexts[listener.name] = replace(
                self._contexts[listener.name],
                server=own,
                listener=listener,
                limits=own.pop_imap.limits,
                plaintext_networks=tuple(map(ip_network, listener.plaintext_auth_networks)),
            )

    async def _start(self, stack: AsyncExitStack) -> None:
        identity = agent_identity(self.installation, Role.POP_IMAP)
        channels = NmapChannels(self.installation, self.server.name, identity)
        stack.push_async_callback(channels.close)
        self._directory = directory = DirectoryClient(channels)
        stack.push_async_callback(directory.close)
        mailboxes = MailboxClients(channels)
        maildrops = MaildropStreams(mailboxes.for_server)
        stack.push_async_callback(maildrops.close)
        self.mailbox_hub = MailboxHub(mailboxes)
        stack.push_async_callback(self.mailbox_hub.close)
        logins, self._gate = self._start_logins(stack, identity)
        for listener in self._config.listeners:
            context = ListenerContext(
                server=self.server,
                listener=listener,
                limits=self._config.limits,
                tls=self._tls(listener),
                loop=asyncio.get_running_loop(),
                directory=directory,
                mailboxes=mailboxes,
                maildrops=maildrops,
                mailbox_hub=self.mailbox_hub,
                logins=logins,
                gate=self._gate,
                sessions=self.sessions,
                plaintext_networks=tuple(map(ip_network, listener.plaintext_auth_networks)),
                failure_delay=self._failure_delay,
            )
            self._contexts[listener.name] = context
            await self._listen(stack, context)
        offset = self._worker or 0
        await stack.enter_async_context(
            http_server(self._config.http.listen, self.health, port_offset=offset)
        )
        self.health.set_ready(True)

    def _start_logins(
        self, stack: AsyncExitStack, identity: AgentIdentity
    ) -> tuple[LoginRegistrar, Gate]:
        client, networks = None, _networks(self.installation, self.server)
        if self.server.connection_manager is not None:
            manager = self.installation.connection_manager(self.server.connection_manager)
            channel = Channel(
                manager.target,
                identity,
                installation=self.installation.installation,
                expected_role=Role.CONNMGR,
            )
            stack.push_async_callback(channel.close)
            client = ConnectionManagerClient(
                channel, timeout=self._config.register_timeout, networks=networks
            )
        agent = Agent(self.server.name, f"pop_imap/{os.uname().nodename}/{os.getpid()}")
        gate = Gate(client, networks, messaging_server=agent.server, agent=agent.name)
        stack.push_async_callback(gate.close)
        logins = LoginRegistrar(client, agent=agent, config=self._config, on_event=gate.take)
        task = asyncio.create_task(logins.run())
        stack.push_async_callback(_cancel, task)
        return logins, gate

    def _tls(self, listener: MailListenerConfig) -> ServerTls | None:
        if listener.tls == "none":
            return None
        return ServerTls.from_config(self.server.tls, listener.minimum_tls_version)

    async def _listen(self, stack: AsyncExitStack, context: ListenerContext) -> None:
        listener = context.listener
        factory = CONNECTIONS[listener.protocol]

        def connect(client: ClientInfo) -> asyncio.Protocol:
            return factory(client, self._contexts[listener.name])

        def busy(_client: ClientInfo) -> bytes:
            return BUSY[listener.protocol]

        acceptor = await stack.enter_async_context(
            accept_connections(
                listener,
                protocol_factory=connect,
                tls=context.tls,
                busy=busy,
                reuse_port=self._worker is not None,
            )
        )
        self._acceptors.append(acceptor)
        self.ports[listener.name] = acceptor.ports
        log.info("listening", listener=listener.name, protocol=listener.protocol)


def _networks(installation: Installation, own: MessagingServerConfig) -> NetworkMap:
    """Those of the Connection Manager, if there is one."""
    if own.connection_manager is None:
        return NetworkMap(AddressRules())
    return NetworkMap(
        AddressRules.from_config(installation.connection_manager(own.connection_manager))
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def run(arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle) -> None:
    """Serves until the drain, and drains."""
    fixed = FixedKeys.of_agent(installation, arguments.name, "pop_imap")
    async with (
        PopImapAgent(installation, arguments.name, worker=arguments.worker) as agent,
        following_config(arguments, installation, fixed, agent.use),
    ):
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()
        await agent.drain()
