"""What every front end is opened with."""

from collections.abc import Sequence
from dataclasses import dataclass

from netmail_common.config import (
    ConfigError,
    ConnectionManagerConfig,
    Installation,
    MessagingServerConfig,
)
from netmail_common.connmgr.model import LoginProtocol, UserKey
from netmail_common.networks import AddressRules, Network
from netmail_common.shared_networks import SharedNetworkError, read_trusted_networks

from netmail_connmgr.domain.address_map import AddressMap
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import FrontDesk

__all__ = ["FrontEndSetup"]


@dataclass(frozen=True, slots=True)
class FrontEndSetup:
    """Where a front end stands, and whom it asks.

    Attributes:
        name: of the Connection Manager.
        rules: what counts as shared.
        desk: where its questions go.
        worker: index of this process among the workers, which share listeners by SO_REUSEPORT;
            None: the process that owns the table serves the front ends alone.
    """

    installation: Installation
    name: str
    rules: AddressRules
    desk: FrontDesk
    worker: int | None = None

    @property
    def config(self) -> ConnectionManagerConfig:
        """The Connection Manager's."""
        return self.installation.connection_manager(self.name)

    @property
    def reuse_port(self) -> bool:
        """Whether other processes bind the same addresses."""
        return self.worker is not None

    @property
    def opens_unix_sockets(self) -> bool:
        """One process only: a Unix socket cannot be shared by its path."""
        return not self.worker

    @property
    def servers(self) -> Sequence[MessagingServerConfig]:
        """The Messaging Servers that name this Connection Manager."""
        return [
            server
            for server in self.installation.messaging_servers
            if server.connection_manager == self.name
        ]

    @property
    def default_context(self) -> str:
        """Context of a bare user name: the first own one of the first Messaging Server."""
        for server in self.servers:
            return server.contexts[0].name
        return ""

    def holder(self, context: str) -> MessagingServerConfig | None:
        """The Messaging Server that has a context; None: none that we serve."""
        for server in self.servers:
            if any(own.name == context for own in server.contexts):
                return server
        return None

    def user(self, text: str, default_context: str | None = None) -> UserKey:
        """Whose name that is: `name@context` of a context that we serve, else a bare name.

        Args:
            default_context: of bare names, if it is another one here.
        """
        name, _, context = text.rpartition("@")
        if name and self.holder(context) is not None:
            return UserKey(name, context)
        return UserKey(text, self.default_context if default_context is None else default_context)

    def candidate(
        self,
        user: UserKey,
        client_address: bytes,
        protocol: LoginProtocol,
        known: AddressMap,
        *,
        agent: str,
        session_id: str = "",
    ) -> Candidate:
        """A login, with the addresses and the Messaging Server that its user is known to have."""
        holder = self.holder(user.context)
        return Candidate(
            user=user,
            client_address=client_address,
            protocol=protocol,
            addresses=known.addresses_of(user),
            domains=(*(holder.domains if holder is not None else ()), *known.domains_of(user)),
            messaging_server=holder.name if holder is not None else "",
            agent=agent,
            session_id=session_id,
        )

    def allowed_sources(self, texts: Sequence[str], section: str) -> tuple[Network, ...]:
        """Reads SECTION.allowed_sources. Raises: ConfigError, for a shared network."""
        return self.trusted(texts, f"{section}.allowed_sources")

    def trusted(self, texts: Sequence[str], key: str) -> tuple[Network, ...]:
        """Reads networks whose clients are trusted by their address. Raises: ConfigError."""
        try:
            return read_trusted_networks(texts, self.rules, key)
        except SharedNetworkError as error:
            raise self.error(str(error)) from error

    def error(self, text: str) -> ConfigError:
        """A configuration error that names this Connection Manager."""
        return ConfigError(f"connection manager {self.name!r}: {text}")
