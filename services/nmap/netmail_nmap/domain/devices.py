"""Passwords of single devices: a copier never holds its user's own password.

They are chosen here, not by people, and too long to be guessed: an HMAC keeps them well enough,
where a person's password needs Argon2.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["SERVICES", "Device", "DeviceUse", "NewDevice", "digest", "new_password"]

SERVICES = frozenset({"smtp", "pop3", "imap"})

# What can be told apart on a copier's display; 32 characters, 5 bits each.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 5, 4


@dataclass(frozen=True, slots=True)
class Device:
    """A device password, as far as it takes to judge a login.

    Attributes:
        digest: of the password.
        services: of SERVICES; empty: all.
        networks: where it may come from; empty: anywhere.
        expires_at: seconds since the epoch; None: it has no end.
    """

    id: int
    name: str
    digest: bytes
    services: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    expires_at: int | None = None

    def refusal(self, service: str, client_address: str, now: float) -> str:
        """Why its password does not count there and then; empty: it does."""
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.services and service not in self.services:
            return "other service"
        if self.networks and not _is_within(client_address, self.networks):
            return "other network"
        return ""


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device password to be stored; the fields are those of Device."""

    name: str
    name_key: str
    digest: bytes
    services: Sequence[str]
    networks: Sequence[str]
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A device password with its times, in seconds since the epoch, for people.

    Attributes:
        used_at: the last login with it, to the minute about; None: never.
    """

    device: Device
    created_at: int
    used_at: int | None
    used_from: str


def new_password() -> str:
    """A password of 100 random bits: abcd-efgh-jkmn-pqrs-tuvw."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def digest(key: bytes, password: str) -> bytes:
    """What is kept of a password; hyphens, spaces and case are for the eye."""
    plain = password.translate(_FOR_THE_EYE).lower()
    return hmac.digest(key, plain.encode("utf-8", "replace"), "sha256")


_FOR_THE_EYE = {ord("-"): None, ord(" "): None}


def _is_within(text: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address: IPv4Address | IPv6Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks if network.version == address.version)
