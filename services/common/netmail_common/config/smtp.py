"""Configuration of the SMTP Agent, receiving and sending."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from netmail_common.config._base import (
    RELOADED,
    Address,
    Domain,
    Duration,
    NetworkRange,
    Octets,
    Section,
)
from netmail_common.config.common import HttpConfig, ListenerConfig


class SenderBinding(StrEnum):
    """Which senders a known client may use."""

    STRICT = "strict"
    DOMAIN = "domain"
    ANY = "any"


class SenderBindingConfig(Section):
    """Sender identity, by the way the client was recognised."""

    after_auth: SenderBinding = SenderBinding.STRICT
    after_login: SenderBinding = SenderBinding.DOMAIN


class UbeRelayingConfig(Section):
    """NetMail's UBE Relaying page: what a client without SMTP AUTH needs to relay."""

    remote_sending_authenticated_only: bool = True
    smtp_after_pop: bool = True


class SmtpListenerConfig(ListenerConfig):
    """One SMTP listener."""

    name: str
    role: Literal["mx", "submission"] = "mx"
    """mx: mail to local users needs no authentication. submission: every recipient does."""
    auth: Annotated[bool, RELOADED] = True
    """Offer AUTH (where TLS or plaintext_auth allows)."""
    auth_mechanisms: Annotated[list[Literal["PLAIN", "LOGIN", "SCRAM-SHA-256"]], RELOADED] = [
        "SCRAM-SHA-256",
        "PLAIN",
        "LOGIN",
    ]
    extensions: Annotated[
        list[Literal["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "SIZE", "LIMITS"]],
        RELOADED,
    ] = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "SIZE", "LIMITS"]
    smtp_after_pop: Annotated[bool, RELOADED] = True
    """False: a POP3 or IMAP login grants nothing here, whatever ube_relaying says."""
    allowed_networks: Annotated[bool, RELOADED] = True
    """False: smtp.allowed_networks grant nothing here."""
    greeting_delay: Annotated[float, Field(ge=0, le=60), RELOADED] = 0.0
    """Seconds before the greeting; who talks before it ends is an early talker."""
    early_talkers: Annotated[Literal["accept", "refuse"], RELOADED] = "accept"
    require_full_helo: Annotated[bool, RELOADED] = False
    """Refuse recipients to strangers whose EHLO name is neither a full domain name nor an address
    literal. Known senders may call themselves anything."""


class SmtpLimits(Section):
    """What a stranger meets."""

    message_size: Octets = 50 * 1024 * 1024
    """Octets; twice as much ends the connection."""
    recipients: Annotated[int, Field(ge=100)] = 1000
    command_line: Annotated[int, Field(ge=512)] = 4096
    header_size: Octets = 256 * 1024
    header_line: Octets = 64 * 1024
    received_hops: Annotated[int, Field(ge=1)] = 100
    errors: Annotated[int, Field(ge=1)] = 20
    """Rejected or unknown commands in one session, then 421."""
    relay_refusals: Annotated[int, Field(ge=1)] = 10
    """Relay refusals in one session, then 421."""
    commands: Annotated[int, Field(ge=10)] = 10_000
    """Commands without a delivered message between them, then 421."""
    command_timeout: Annotated[Duration, Field(ge=1)] = 300
    data_block_timeout: Annotated[Duration, Field(ge=1)] = 180
    data_timeout: Annotated[Duration, Field(ge=1)] = 3600
    session_timeout: Annotated[Duration, Field(ge=1)] = 14_400


class SmtpConfig(Section):
    """The receiving side: `smtp serve`."""

    listeners: list[SmtpListenerConfig] = []
    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes; 0: as many as cores."""
    http: HttpConfig = HttpConfig()
    limits: Annotated[SmtpLimits, RELOADED] = SmtpLimits()
    relay_domains: Annotated[list[Domain], RELOADED] = []
    """Domains relayed for anybody, besides the local ones (a backup MX)."""
    allowed_networks: Annotated[list[NetworkRange], RELOADED] = []
    """Clients that relay without AUTH or login. May not overlap a shared network."""
    recipient_cache: Annotated[float, Field(ge=0, le=10), RELOADED] = 0.25
    """Seconds for which a local recipient that was found is not looked up again; 0: always."""
    max_staleness: Annotated[Duration, Field(ge=1, le=60)] = 10
    """Seconds for which a worker's replica of the login table answers without a sign of life from
    the Connection Manager."""
    replica_max_logins: Annotated[int, Field(ge=0)] = 1_000_000
    """A worker's replica holds the whole table up to this; beyond it what the worker has asked
    for. 0: no replica, every decision is asked for."""
    connmgr_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds to wait for a relay decision; then 451 4.4.3."""
    drain_timeout: Annotated[Duration, Field(ge=1)] = 30


class RouteConfig(Section):
    """Where mail for a domain goes instead of to its MX."""

    domain: str
    """A domain, `.domain` for what is below it, or `*` (the smarthost)."""
    hosts: list[Address] = Field(min_length=1)
    """Next hops, tried in order: host:port."""
    mx: bool = False
    """Look up MX records of the host instead of its addresses."""
    tls: Literal["opportunistic", "required", "implicit", "none"] = "opportunistic"
    username: str | None = None
    password_file: Path | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    """Trusted CAs (PEM) instead of the system's, where the certificate is verified: tls required or
    implicit, or tls_verify."""

    @model_validator(mode="after")
    def _password_goes_with_username(self) -> "RouteConfig":
        given = (self.password is not None) + (self.password_file is not None)
        if given != (self.username is not None):
            raise ValueError("username comes with either password or password_file")
        return self


class DeliverConfig(Section):
    """The sending side: `smtp deliver`."""

    http: HttpConfig = HttpConfig()
    routes: Annotated[list[RouteConfig], RELOADED] = []
    helo_name: Domain | None = None
    """Default: the Messaging Server's host_name."""
    dns_servers: list[Address] = []
    """Resolvers to ask instead of the system's."""
    concurrency: Annotated[int, Field(ge=1)] = 500
    """Deliveries under way at once."""
    concurrency_per_destination: Annotated[int, Field(ge=1)] = 20
    messages_per_connection: Annotated[int, Field(ge=1)] = 1000
    connection_idle: Annotated[Duration, Field(ge=0)] = 2
    """How long an unused connection is kept for the next message."""
    connect_timeout: Annotated[Duration, Field(ge=1)] = 30
    command_timeout: Annotated[Duration, Field(ge=1)] = 300
    host_backoff: Annotated[Duration, Field(ge=0)] = 60
    """How long a host that gave no session is left alone, doubled each time; its mail is deferred
    meanwhile."""
    host_backoff_max: Annotated[Duration, Field(ge=0)] = 1800
    lease: Annotated[Duration, Field(ge=10)] = 900
    """How long an item is one worker's; must exceed the time of one delivery."""
    ipv6: bool = True
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    tls_verify: bool = False
    """Opportunistic TLS does not verify (RFC 7435) unless this is set."""
    drain_timeout: Annotated[Duration, Field(ge=1)] = 30

    @model_validator(mode="after")
    def _one_route_each(self) -> "DeliverConfig":
        seen: set[str] = set()
        for route in self.routes:
            if route.domain in seen:
                raise ValueError(f"two routes for {route.domain!r}")
            seen.add(route.domain)
        return self
