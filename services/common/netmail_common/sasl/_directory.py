"""What the SASL layer asks of whoever knows the users."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class AuthenticatedUser:
    """A user whose password was verified.

    Attributes:
        user_id: unique within the NMAP agent of `server`.
        name: the bare name.
        context: the context that has the user as a member.
        server: the Messaging Server whose NMAP agent holds the user.
        addresses: his mail addresses, local@domain (A-labels, local part unquoted); the first is
            the primary one. A local part may be followed by `+tag`.
        domains: of the Messaging Server that holds him.
        credential_epoch: counter that each change of the credentials raises.
    """

    user_id: int
    name: str
    context: str
    server: str
    addresses: tuple[str, ...]
    domains: tuple[str, ...]
    credential_epoch: int

    def __str__(self) -> str:
        """Gives `name@context`, as traces and queue entries name him."""
        return f"{self.name}@{self.context}"


@dataclass(frozen=True, slots=True)
class ScramOutcome:
    """A SCRAM exchange that went well, and the server-final-message that proves us."""

    user: AuthenticatedUser
    server_final: bytes


class ScramVerification(Protocol):
    """A SCRAM exchange under way."""

    @property
    def server_first(self) -> bytes:
        """The server-first-message."""

    async def finish(self, client_final: bytes) -> ScramOutcome:
        """Checks the client's proof.

        Raises: AuthFailed, AuthMalformed, AuthUnavailable.
        """

    def cancel(self) -> None:
        """Forgets it; does nothing after `finish`."""


class Directory(Protocol):
    """Verifies users."""

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        """Verifies a password. `username` is a bare name or one of the user's mail addresses.

        Raises: AuthFailed, AuthUnavailable.
        """

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> ScramVerification:
        """Begins a SCRAM-SHA-256 exchange.

        Raises: AuthMalformed, AuthFailed, AuthUnavailable.
        """
