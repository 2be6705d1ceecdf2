"""Behind a service mesh's proxy: who calls, as the proxy says, and that the proxy is there."""

import http.client
import re
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote

from netmail_common.config import ConfigError, MeshConfig
from netmail_common.config._base import parse_host_port
from netmail_common.listening import peer_address
from netmail_common.own_addresses import own_addresses
from netmail_common.roles import Role

__all__ = ["MeshIdentity", "require_proxy"]

START_TIMEOUT = 30.0
"""Seconds that an agent waits for its proxy before it gives up."""

_POLL_INTERVAL = 0.5
_READY: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"istio": ("127.0.0.1:15021", "/healthz/ready"), "linkerd": ("127.0.0.1:4191", "/ready")}
)
_HEADERS: Mapping[str, str] = MappingProxyType(
    {"istio": "x-forwarded-client-cert", "linkerd": "l5d-client-id"}
)

# What Envoy writes of the client's certificate, once: By, Hash, Subject, URI, DNS names. Whatever a
# client sent of the kind itself would stand before it, so more than this is nobody's.
_FORWARDED_CERTIFICATE = re.compile(
    r'By=[^,;"=]+;Hash=[0-9a-f]+;Subject="(?:[^"\\]|\\.)*";URI=([^,;"=\s]+)(?:;DNS=[^,;"=\s]+)*'
)

# Where Istio's proxy connects to its own pod from.
_ISTIO_INBOUND: frozenset[IPv4Address | IPv6Address] = frozenset({ip_address("::6")})

_KNOWN_HEADERS = 1024


class MeshIdentity:
    """Our role, and how to learn a caller's, where the mesh does the authenticating.

    The proxy's word counts only on connections that come from the proxy itself: who reaches the
    port past it is nobody.
    """

    def __init__(self, role: Role, config: MeshConfig) -> None:
        self.role = role
        self.generation = 1
        """Never grows: there are no certificates of ours to change."""
        self._proxy: Literal["istio", "linkerd"] = config.proxy
        self._header = _HEADERS[config.proxy]
        self._names = {Role(role): frozenset(names) for role, names in config.identities.items()}
        self._parsed: dict[str, tuple[bytes, ...]] = {}

    def names_of(self, role: Role) -> frozenset[bytes]:
        """What the mesh calls the holders of ROLE."""
        return frozenset(name.encode() for name in self._names.get(role, ()))

    def callers(
        self, peer: str, metadata: Iterable[tuple[str, str | bytes]] | None
    ) -> tuple[bytes, ...]:
        """Whom the proxy says a call comes from; nobody if it did not come through the proxy.

        Args:
            peer: as gRPC gives it, for instance `ipv4:127.0.0.6:41234`.
            metadata: of the call.
        """
        if not self._is_proxy(peer):
            return ()
        values = [value for key, value in metadata or () if key == self._header]
        if len(values) != 1 or not isinstance(values[0], str):
            return ()
        return self._read(values[0])

    def _is_proxy(self, peer: str) -> bool:
        address = _address(peer)
        if address is None:
            return False
        if address.is_loopback:
            return True
        if self._proxy == "istio":
            return address in _ISTIO_INBOUND
        return address in own_addresses()

    def _read(self, value: str) -> tuple[bytes, ...]:
        known = self._parsed.get(value)
        if known is None:
            known = _identity(self._proxy, value)
            if len(self._parsed) < _KNOWN_HEADERS:
                self._parsed[value] = known
        return known


def _identity(proxy: str, value: str) -> tuple[bytes, ...]:
    if proxy == "linkerd":
        return (value.encode(),)
    found = _FORWARDED_CERTIFICATE.fullmatch(value)
    return () if found is None else (found[1].encode(),)


def _address(peer: str) -> IPv4Address | IPv6Address | None:
    """The address in gRPC's name of a peer; an IPv4 one that is mapped into IPv6 as itself."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0].removeprefix("[").removesuffix("]")
    if kind not in {"ipv4", "ipv6"}:
        return None
    try:
        return peer_address(host)
    except ValueError:
        return None


def require_proxy(
    config: MeshConfig,
    *,
    timeout: float = START_TIMEOUT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until the mesh's proxy in this pod says that it is ready.

    Blocks: it is the first thing that an agent does.

    Raises: ConfigError when it is not there within TIMEOUT seconds.
    """
    default, path = _READY[config.proxy]
    host, port = parse_host_port(config.proxy_address or default)
    end = clock() + timeout
    while not _ready(host, port, path):
        if clock() >= end:
            raise ConfigError(
                f"grpc.security is mesh, but no proxy of {config.proxy} is ready at {host}:{port}:"
                " without it anybody could call and be called; is the pod injected?"
            )
        sleep(_POLL_INTERVAL)


def _ready(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
