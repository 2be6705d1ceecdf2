"""Sections that several agents have."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from netmail_common.config._base import (
    RELOADED,
    Address,
    Duration,
    NetworkRange,
    Section,
    Target,
)


class HttpConfig(Section):
    """Health and metrics by HTTP: /healthz/live, /healthz/ready, /metrics."""

    listen: Address | None = None
    """Off when unset. A worker process takes port + its index."""


class AgentConfig(Section):
    """What every agent with a gRPC server has."""

    listen: list[Address] = Field(min_length=1)
    """Where its gRPC server listens."""
    address: Target | None = None
    """Where the others reach it; default: the first of `listen`. host:port, or xds:///host:port to
    learn its replicas from a mesh's control plane (needs gRPC's bootstrap file, which
    GRPC_XDS_BOOTSTRAP names)."""
    http: HttpConfig = HttpConfig()
    max_connection_age: Annotated[Duration, Field(ge=0)] = 0
    """Seconds after which a client's connection is ended, once its calls are, so that it finds
    out about new replicas; streams go on elsewhere. 0: never. Of use with several replicas."""

    @property
    def target(self) -> str:
        """The gRPC target of its clients."""
        return self.address or self.listen[0]


class TlsConfig(Section):
    """Certificate of the public listeners; both files are reloaded when they change."""

    certificate: Path | None = None
    """PEM, chain included. Unset: STATE_DIR/tls/listeners/NAME.pem, which `netmail run` makes for
    host_name."""
    key: Path | None = None
    minimum_version: Literal["1.0", "1.1", "1.2", "1.3"] = "1.2"
    """Below 1.2 only for devices that know nothing newer."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "TlsConfig":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together or not at all")
        return self


class ListenerConfig(Section):
    """What every public listener has."""

    listen: list[Address] = Field(min_length=1)
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    proxy_protocol: bool = False
    """Every connection must begin with a PROXY header (v1 or v2); without this none may."""
    proxy_trusted_networks: list[NetworkRange] = []
    """Who may send that header. Empty: nobody."""
    plaintext_auth: Annotated[bool, RELOADED] = False
    """PLAIN, LOGIN, USER/PASS are accepted without TLS."""
    plaintext_auth_networks: Annotated[list[NetworkRange], RELOADED] = []
    """Clients from here may authenticate without TLS."""
    minimum_tls_version: Literal["1.0", "1.1", "1.2", "1.3"] | None = None
    """Overrides tls.minimum_version for this listener."""
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    max_connections_per_address: Annotated[int, Field(ge=1)] = 100
    max_auth_failures: Annotated[int, Field(ge=1), RELOADED] = 3
    idle_timeout: Annotated[Duration, Field(ge=1), RELOADED] = 300
