"""The whole installation: the root of the configuration."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from netmail_common.config._base import RELOADED, Address, Domain, Section, parse_host_port
from netmail_common.config.common import HttpConfig, TlsConfig
from netmail_common.config.connmgr import ConnectionManagerConfig
from netmail_common.config.nmap import ContextConfig, NmapConfig
from netmail_common.config.pop_imap import PopImapConfig
from netmail_common.config.smtp import (
    DeliverConfig,
    SenderBindingConfig,
    SmtpConfig,
    UbeRelayingConfig,
)
from netmail_common.roles import Role

__all__ = [
    "GrpcConfig",
    "HttpConfig",
    "Installation",
    "LogConfig",
    "MeshConfig",
    "MessagingServerConfig",
    "SinkConfig",
    "TlsConfig",
    "TracingConfig",
]


class LogConfig(Section):
    """Logging to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], RELOADED] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: for people on a terminal, else JSON."""


class TracingConfig(Section):
    """Where request ids go; nothing is exported yet."""

    enabled: bool = False


class MeshConfig(Section):
    """The mesh whose proxies authenticate the agents, and what it calls them."""

    proxy: Literal["istio", "linkerd"]
    """Of which mesh: istio (sidecars) or linkerd."""
    proxy_address: Address | None = None
    """Where the proxy says that it is ready; default: 127.0.0.1:15021 or 127.0.0.1:4191."""
    identities: dict[Role, list[str]]
    """For each role what the mesh calls its holders, for instance
    spiffe://cluster.local/ns/NAMESPACE/sa/ACCOUNT. Each stands for one role only."""

    @field_validator("identities")
    @classmethod
    def _one_role_each(cls, identities: dict[Role, list[str]]) -> dict[Role, list[str]]:
        _unique("identity", (name for names in identities.values() for name in names))
        return identities


class GrpcConfig(Section):
    """How agents talk to each other."""

    security: Literal["mtls", "mesh"] = "mtls"
    """mtls: mutual TLS of our own, also inside a mesh. mesh: the proxies of a service mesh encrypt
    and authenticate; an agent does not start without one, and serves only what comes through it."""
    certificates: Path | None = None
    """Folder with ca.pem and, for each role, ROLE.pem and ROLE.key; or with ca.crt, tls.crt and
    tls.key, as a Secret of Kubernetes has them. Default: STATE_DIR/tls."""
    mesh: MeshConfig | None = None
    """For security: mesh."""

    @model_validator(mode="after")
    def _mesh_needs_identities(self) -> "GrpcConfig":
        if (self.security == "mesh") != (self.mesh is not None):
            raise ValueError("grpc.mesh and grpc.security: mesh go together")
        return self


class SinkConfig(Section):
    """An SMTP server that accepts every message and writes each as NNNN.eml.

    A remote world to try an installation against.
    """

    name: str
    listen: list[Address] = Field(min_length=1)
    directory: Path
    host_name: str = "sink.invalid"


class XAuthOkConfig(Section):
    """What the header says to the world about a known sender."""

    remote: Literal["name", "hmac"] = "name"
    """hmac: messages to remote recipients name the user by a keyed hash instead; local recipients
    always see the name."""
    key_file: Path | None = None
    """At least 32 octets, for hmac."""

    @model_validator(mode="after")
    def _hmac_needs_key(self) -> "XAuthOkConfig":
        if self.remote == "hmac" and self.key_file is None:
            raise ValueError("x_auth_ok.remote: hmac needs x_auth_ok.key_file")
        return self


class MessagingServerConfig(Section):
    """One Messaging Server: a host name, its domains, its contexts and its agents."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    host_name: Domain
    domains: Annotated[list[Domain], Field(min_length=1), RELOADED]
    """The first is the primary. Users get an address in each domain that is there when they are
    made."""
    contexts: Annotated[list[ContextConfig], Field(min_length=1), RELOADED]
    standalone: bool = False
    """True: only its own contexts are known. False: those of every Messaging Server, own first."""
    connection_manager: str | None = None
    """Name of the Connection Manager that remembers its logins."""
    tls: TlsConfig = TlsConfig()
    ube_relaying: Annotated[UbeRelayingConfig, RELOADED] = UbeRelayingConfig()
    sender_binding: Annotated[SenderBindingConfig, RELOADED] = SenderBindingConfig()
    x_auth_ok: Annotated[XAuthOkConfig, RELOADED] = XAuthOkConfig()
    nmap: NmapConfig
    smtp: SmtpConfig = SmtpConfig()
    deliver: DeliverConfig = DeliverConfig()
    pop_imap: PopImapConfig = PopImapConfig()

    @model_validator(mode="after")
    def _listeners_have_names(self) -> "MessagingServerConfig":
        _unique("smtp listener", (one.name for one in self.smtp.listeners))
        _unique("pop_imap listener", (one.name for one in self.pop_imap.listeners))
        return self

    @model_validator(mode="after")
    def _smtp_after_pop_needs_connmgr(self) -> "MessagingServerConfig":
        if self.ube_relaying.smtp_after_pop and self.connection_manager is None:
            raise ValueError(
                f"messaging server {self.name!r}: ube_relaying.smtp_after_pop needs a"
                " connection_manager; name one, or switch smtp_after_pop off"
            )
        return self


class Installation(Section):
    """A NetMail installation."""

    installation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")] = "netmail"
    """Trust domain of the agents' certificates: spiffe://INSTALLATION/ROLE."""
    state_dir: Path = Path("var")
    """Where `netmail run` keeps everything; `--state` overrides it. Written {state} elsewhere."""
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
    grpc: GrpcConfig = GrpcConfig()
    connection_managers: list[ConnectionManagerConfig] = []
    messaging_servers: list[MessagingServerConfig] = []
    """May be left out where a Connection Manager serves other makers' servers only."""
    sinks: list[SinkConfig] = []

    @model_validator(mode="after")
    def _consistent(self) -> "Installation":
        if not (self.messaging_servers or self.connection_managers):
            raise ValueError("there are no messaging_servers and no connection_managers")
        _unique("connection manager", (c.name for c in self.connection_managers))
        _unique("messaging server", (s.name for s in self.messaging_servers))
        _unique("domain", (d for s in self.messaging_servers for d in s.domains))
        self._contexts_held_once()
        known = {c.name for c in self.connection_managers}
        for server in self.messaging_servers:
            if server.connection_manager is not None and server.connection_manager not in known:
                raise ValueError(
                    f"messaging server {server.name!r}: no connection manager is named"
                    f" {server.connection_manager!r}"
                )
        self._loopback_grants_only_on_loopback()
        self._no_workers_past_the_proxy()
        return self

    def _contexts_held_once(self) -> None:
        holder: dict[str, str] = {}
        for server in self.messaging_servers:
            for context in server.contexts:
                if context.name in holder:
                    raise ValueError(
                        f"context {context.name!r} is held twice: by messaging server"
                        f" {holder[context.name]!r} and by {server.name!r}"
                    )
                holder[context.name] = server.name

    def _loopback_grants_only_on_loopback(self) -> None:
        if not any(c.loopback_grants for c in self.connection_managers):
            return
        for address in self.all_listen_addresses():
            host = parse_host_port(address).host
            try:
                loopback = ipaddress.ip_address(host).is_loopback
            except ValueError:
                loopback = host == "localhost"
            if not loopback:
                raise ValueError(f"loopback_grants is refused with a listener on {address}")

    def _no_workers_past_the_proxy(self) -> None:
        if self.grpc.security == "mesh" and any(
            c.front_end_workers for c in self.connection_managers
        ):
            raise ValueError(
                "front_end_workers call their Connection Manager directly, past the mesh's proxy:"
                " with grpc.security: mesh they must be 0"
            )

    def all_listen_addresses(self) -> Iterator[str]:
        """Every address that any agent of the installation listens on."""
        for manager in self.connection_managers:
            yield from manager.listen
            yield from manager.legacy_udp.listen
            yield from manager.postfix_policy.listen
            yield from manager.dovecot_policy.listen
            yield from manager.whoson.listen
            yield from manager.dns_list.listen
        for server in self.messaging_servers:
            yield from server.nmap.listen
            for smtp_listener in server.smtp.listeners:
                yield from smtp_listener.listen
            for mail_listener in server.pop_imap.listeners:
                yield from mail_listener.listen
        for sink in self.sinks:
            yield from sink.listen

    @property
    def certificates(self) -> Path:
        """Folder of the agents' gRPC certificates."""
        return self.grpc.certificates or self.state_dir / "tls"

    def store_url(self, server: str) -> str:
        """URL of the mail store of a Messaging Server's NMAP agent."""
        url = self.messaging_server(server).nmap.store.url
        return url.replace("{state}", str(self.state_dir)).replace("{server}", server)

    def messaging_server(self, name: str) -> MessagingServerConfig:
        """Raises: KeyError."""
        for server in self.messaging_servers:
            if server.name == name:
                return server
        raise KeyError(name)

    def connection_manager(self, name: str) -> ConnectionManagerConfig:
        """Raises: KeyError."""
        for manager in self.connection_managers:
            if manager.name == name:
                return manager
        raise KeyError(name)

    def reachable_servers(self, name: str) -> list[MessagingServerConfig]:
        """The Messaging Servers whose contexts NAME knows, its own first; standalone: only it."""
        own = self.messaging_server(name)
        if own.standalone:
            return [own]
        return [own, *(s for s in self.messaging_servers if s.name != name)]


def _unique(what: str, names: Iterator[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} {name!r} is there {count} times")
