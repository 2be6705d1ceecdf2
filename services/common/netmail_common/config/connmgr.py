"""Configuration of the Connection Manager."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from netmail_common.config._base import Address, Duration, NetworkRange, Section
from netmail_common.config.common import AgentConfig


class LegacyUdpConfig(Section):
    """NetMail's own UDP port 689 protocols. Off while `listen` is empty."""

    listen: list[Address] = []
    """Leave it empty: there is no UDP front end yet, and nothing starts with one asked for."""
    allowed_sources: list[NetworkRange] = []
    plain: bool = False
    credential_file: Path | None = None
    tree: str | None = None
    access_hash_file: Path | None = None
    tree_without_backslash: bool = False
    default_context: str | None = None


class ConnectionManagerConfig(AgentConfig):
    """One Connection Manager; Messaging Servers that name it share its logins."""

    name: str
    """Unique in the installation."""
    store: Literal["memory"] = "memory"
    login_lifetime: Annotated[Duration, Field(ge=300, le=86400)] = 900
    """How long a login vouches for its address, seconds, 5 to 1440 minutes."""
    max_networks_per_user: Annotated[int, Field(ge=1, le=4096)] = 64
    """The oldest login goes when a user logs in from one more network."""
    max_users_per_network: Annotated[int, Field(ge=1, le=4096)] = 8
    """With more users than this a network's sender binding becomes strict."""
    max_logins: Annotated[int, Field(ge=1)] = 2_000_000
    """The table's bound; beyond it new logins are refused (REGISTER_OUTCOME_TABLE_FULL) until
    others expire."""
    ipv6_prefix: Annotated[int, Field(ge=32, le=128)] = 64
    """IPv6 clients are known by this prefix."""
    nat64_prefixes: list[NetworkRange] = []
    """NAT64 prefixes (RFC 6052) besides 64:ff9b::/96 and 64:ff9b:1::/48."""
    shared_networks: list[NetworkRange] = []
    """Networks that never grant, besides loopback, link-local, 100.64.0.0/10, the listeners'
    proxies and the Connection Manager's own addresses."""
    granting_networks: list[NetworkRange] = []
    """Private ranges that may grant where private ranges are shared."""
    private_ranges_shared: bool = False
    """RFC 1918 and ULA ranges never grant unless in granting_networks. On Kubernetes always."""
    loopback_grants: bool = False
    """Loopback addresses may grant. Only for a demonstration: refused with any listener that is
    not on loopback."""
    legacy_udp: LegacyUdpConfig = LegacyUdpConfig()

    @field_validator("nat64_prefixes")
    @classmethod
    def _lengths_of_rfc_6052(cls, prefixes: list[str]) -> list[str]:
        for text in prefixes:
            prefix = ipaddress.ip_network(text)
            if prefix.version != 6 or prefix.prefixlen not in {32, 40, 48, 56, 64, 96}:
                raise ValueError(
                    f"{text}: a NAT64 prefix is IPv6, of 32, 40, 48, 56, 64 or 96 bits"
                    " (RFC 6052 2.2)"
                )
        return prefixes
