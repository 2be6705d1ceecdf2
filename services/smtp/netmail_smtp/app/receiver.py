"""The listeners of a Messaging Server, and what their sessions work with."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network

from netmail_common.acceptor import AcceptorHandle, ClientInfo, accept_connections
from netmail_common.config import (
    ConfigError,
    Installation,
    MessagingServerConfig,
    RatesConfig,
    SmtpListenerConfig,
)
from netmail_common.connmgr import ConnectionManagerClient, LoginReplica
from netmail_common.connmgr.gate import Gate
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import AgentIdentity, agent_identity
from netmail_common.networks import AddressRules, Network, NetworkMap
from netmail_common.nmap import DirectoryClient, NmapChannels, QueueClient
from netmail_common.roles import Role
from netmail_common.sasl import Mechanism
from netmail_common.shared_networks import SharedNetworkError, read_trusted_networks
from netmail_common.tls import ServerTls

from netmail_smtp.adapters.lookups import RecipientLookups
from netmail_smtp.adapters.recognition import Recognizer
from netmail_smtp.adapters.revocations import following_logins
from netmail_smtp.adapters.services import Listener, Services, SessionRegistry
from netmail_smtp.adapters.session import SmtpSession
from netmail_smtp.domain.miss_limiter import MissLimiter
from netmail_smtp.domain.relay import RelayPolicy
from netmail_smtp.domain.user_word import UserWords
from netmail_smtp.protocol.reply import Reply

__all__ = ["Receiver", "build_listener", "check_config", "serving"]

_BUSY = Reply(421, "4.7.0", "Too many connections, try again later").encode()


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


@dataclass(frozen=True, slots=True)
class _Peers:
    """Whom sessions ask, and what is known of them: the same as long as the process runs.

    Attributes:
        directory: Authenticate and Resolve.
        queue: Submit.
        checker: the Connection Manager; None: this Messaging Server has none.
        replica: of its login table.
        limiter: of questions from strangers.
        gate: who may log in, and how much known senders may send.
        sessions: that are open.
    """

    directory: DirectoryClient
    queue: QueueClient
    checker: ConnectionManagerClient | None
    replica: LoginReplica | None
    limiter: MissLimiter
    gate: Gate
    sessions: SessionRegistry


class Receiver:
    """Receives mail for a Messaging Server. Belongs to its event loop.

    Args:
        installation: the configuration.
        name: of the Messaging Server.
        peers: whom sessions ask.

    Attributes:
        handles: of the listeners, in the order of the configuration.
    """

    def __init__(self, installation: Installation, name: str, peers: _Peers) -> None:
        own = installation.messaging_server(name)
        self.handles: list[AcceptorHandle] = []
        self._name = name
        self._peers = peers
        self._tls = {config.name: _tls(own, config) for config in own.smtp.listeners}
        self._services = self._build_services(installation)
        self._listeners = self._build_listeners(own)

    @property
    def sessions(self) -> SessionRegistry:
        """Those that are open."""
        return self._peers.sessions

    @property
    def connected(self) -> bool:
        """Whether the Connection Manager is there to be asked."""
        return self._peers.gate.connected

    async def open(self, stack: contextlib.AsyncExitStack, *, reuse_port: bool) -> None:
        """Opens the listeners until the stack is left.

        Raises: OSError.
        """
        for listener in list(self._listeners.values()):
            name = listener.config.name

            def session(client: ClientInfo, name: str = name) -> SmtpSession:
                return SmtpSession(client, self._services, self._listeners[name])

            self.handles.append(
                await stack.enter_async_context(
                    accept_connections(
                        listener.config,
                        protocol_factory=session,
                        tls=self._tls[name],
                        busy=lambda _client: _BUSY,
                        reuse_port=reuse_port,
                    )
                )
            )

    async def use(self, installation: Installation) -> None:
        """Goes on with another configuration; open sessions do so between two messages.

        Raises: ConfigError; nothing has changed then.
        """
        own = installation.messaging_server(self._name)
        check_config(installation, own)
        _user_words(own)
        rules = _address_rules(installation, own)
        peers = self._peers
        peers.directory.use(installation)
        peers.gate.use(NetworkMap(rules), _rates(installation, own))
        if peers.replica is not None:
            peers.replica.use(rules)
        self._services = self._build_services(installation)
        self._listeners = self._build_listeners(own)
        for session in self.sessions.open_sessions():
            if isinstance(session, SmtpSession):
                session.go_on_with(self._services, self._listeners[session.listener.config.name])

    def stop_accepting(self) -> None:
        """Closes the listeners; open sessions go on."""
        for handle in self.handles:
            handle.stop_accepting()

    def _build_services(self, installation: Installation) -> Services:
        """Raises: ConfigError."""
        own = installation.messaging_server(self._name)
        peers = self._peers
        return Services(
            messaging_server=own.name,
            host_name=own.host_name,
            postmaster_domain=own.domains[0],
            limits=own.smtp.limits,
            directory=peers.directory,
            lookups=RecipientLookups(peers.directory, own.smtp.recipient_cache),
            queue=peers.queue,
            recognizer=Recognizer(
                peers.checker,
                replica=peers.replica,
                messaging_server=own.name,
                allowed=_allowed_networks(own, _address_rules(installation, own)),
                limiter=peers.limiter,
            ),
            separator_of=lambda server: (
                installation.messaging_server(server).nmap.subaddress_separator
            ),
            sessions=peers.sessions,
            gate=peers.gate,
            user_words=_user_words(own),
        )

    def _build_listeners(self, own: MessagingServerConfig) -> dict[str, Listener]:
        return {
            config.name: build_listener(own, config, self._peers.directory, self._tls[config.name])
            for config in own.smtp.listeners
        }


@contextlib.asynccontextmanager
async def serving(
    installation: Installation, name: str, *, reuse_port: bool = False
) -> AsyncIterator[Receiver]:
    """Opens the listeners of the Messaging Server NAME until the block ends.

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
        networks = NetworkMap(_address_rules(installation, own))
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
        receiver = Receiver(
            installation,
            name,
            _Peers(
                directory=directory,
                queue=QueueClient(channels),
                checker=checker,
                replica=replica,
                limiter=MissLimiter(networks),
                gate=gate,
                sessions=sessions,
            ),
        )
        await receiver.open(stack, reuse_port=reuse_port)
        try:
            yield receiver
        finally:
            receiver.stop_accepting()
            sessions.abort()


def _tls(own: MessagingServerConfig, config: SmtpListenerConfig) -> ServerTls | None:
    """Raises: ConfigError."""
    if config.tls == "none":
        return None
    return ServerTls.from_config(own.tls, config.minimum_tls_version)


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
    rates = _rates(installation, own)
    agent = f"smtp/{os.uname().nodename}/{os.getpid()}"
    return Gate(client, networks, messaging_server=own.name, agent=agent, rates=rates)


def _rates(installation: Installation, own: MessagingServerConfig) -> RatesConfig | None:
    """Of known senders; None: they have none."""
    if own.connection_manager is None:
        return None
    return installation.connection_manager(own.connection_manager).rates


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
