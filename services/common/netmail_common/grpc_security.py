"""How agents prove their roles to each other: by their own certificates, or by a mesh's word."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc

from netmail_common.certificates import Identity, PemPair, server_name
from netmail_common.config import ConfigError, Installation
from netmail_common.config._base import parse_host_port
from netmail_common.mesh import MeshIdentity, require_proxy
from netmail_common.roles import Role, role_uri

__all__ = ["AgentIdentity", "Security", "agent_identity", "authority_options", "security_of"]

AgentIdentity = Identity | MeshIdentity
"""What an agent is, and how it can show it."""

_XDS = "xds:///"
_XDS_BOOTSTRAP = ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG")

Option = tuple[str, str | int]


def agent_identity(installation: Installation, role: Role) -> AgentIdentity:
    """What an agent needs to call and to be called, by `grpc.security`.

    Raises: ConfigError without a certificate, or without the mesh's proxy.
    """
    _require_bootstrap(installation)
    if installation.grpc.mesh is not None:
        require_proxy(installation.grpc.mesh)
        return MeshIdentity(role, installation.grpc.mesh)
    return Identity.from_folder(installation.certificates, role)


def _require_bootstrap(installation: Installation) -> None:
    agents = (*installation.connection_managers, *(s.nmap for s in installation.messaging_servers))
    wanted = [agent.target for agent in agents if agent.target.startswith(_XDS)]
    if wanted and not any(os.environ.get(name) for name in _XDS_BOOTSTRAP):
        raise ConfigError(f"{wanted[0]} needs gRPC's bootstrap file: set {_XDS_BOOTSTRAP[0]}")


class Security(Protocol):
    """What a channel and a server of gRPC need to know of it."""

    @property
    def generation(self) -> int:
        """Grows when channels have to be made anew."""

    def channel(
        self, target: str, expected_role: Role, options: Sequence[Option]
    ) -> grpc.aio.Channel:
        """A channel to an agent of EXPECTED_ROLE."""

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Lets SERVER listen; gives the port. Raises: RuntimeError when it cannot."""

    def callers(self, context: Any) -> Iterable[bytes]:
        """The proven names of who calls."""

    def names_of(self, role: Role) -> frozenset[bytes]:
        """The names that stand for ROLE."""


def security_of(identity: AgentIdentity, installation: str) -> Security:
    """The security of an identity; INSTALLATION is the trust domain of certificates."""
    if isinstance(identity, MeshIdentity):
        return _Mesh(identity)
    return _MutualTls(identity, installation)


def authority_options(target: str) -> Sequence[Option]:
    """What calls are addressed to, where it must not be the name that the certificate has.

    xDS looks up the routes of that name (gRFC A27). gRPC compares it without its port.
    """
    if not target.startswith(_XDS):
        return []
    return [("grpc.default_authority", parse_host_port(target.removeprefix(_XDS)).host)]


class _MutualTls:
    """Certificates of our own, which name the role."""

    def __init__(self, identity: Identity, installation: str) -> None:
        self._identity = identity
        self._installation = installation

    @property
    def generation(self) -> int:
        self._identity.current()
        return self._identity.generation

    def channel(
        self, target: str, expected_role: Role, options: Sequence[Option]
    ) -> grpc.aio.Channel:
        pair = self._identity.current()
        name = server_name(expected_role, self._installation)
        return grpc.aio.secure_channel(
            target,
            grpc.ssl_channel_credentials(pair.ca, pair.key, pair.certificate),
            options=[*options, ("grpc.ssl_target_name_override", name), *authority_options(target)],
        )

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        # Credentials of its own for each: their first certificate is taken by one port only.
        return server.add_secure_port(address, _server_credentials(self._identity))

    def callers(self, context: Any) -> Iterable[bytes]:
        return context.peer_identities() or ()

    def names_of(self, role: Role) -> frozenset[bytes]:
        return frozenset({role_uri(self._installation, role).encode()})


class _Mesh:
    """Plain text between us and the proxy beside us, which does the rest."""

    def __init__(self, identity: MeshIdentity) -> None:
        self._identity = identity

    @property
    def generation(self) -> int:
        return self._identity.generation

    def channel(
        self,
        target: str,
        expected_role: Role,  # noqa: ARG002 - the mesh checks it
        options: Sequence[Option],
    ) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(target, options=list(options))

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        return server.add_insecure_port(address)

    def callers(self, context: Any) -> Iterable[bytes]:
        return self._identity.callers(context.peer(), context.invocation_metadata())

    def names_of(self, role: Role) -> frozenset[bytes]:
        return self._identity.names_of(role)


def _server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Credentials that follow the files: gRPC asks before each handshake."""
    known = identity.generation

    def configuration(pair: PemPair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(pair.key, pair.certificate)], root_certificates=pair.ca
        )

    def fetch() -> Any:
        nonlocal known
        pair = identity.current()
        if identity.generation == known:
            return None
        known = identity.generation
        return configuration(pair)

    return grpc.dynamic_ssl_server_credentials(
        configuration(identity.current()), fetch, require_client_authentication=True
    )
