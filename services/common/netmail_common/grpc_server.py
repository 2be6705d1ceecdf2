"""The gRPC server of an agent: security, roles, errors, health, reflection, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from netmail_common.config import ConfigError
from netmail_common.grpc_errors import RpcError, error_reason
from netmail_common.grpc_interceptor import PolicyInterceptor, peer_role
from netmail_common.grpc_security import AgentIdentity, security_of
from netmail_common.http_server import Health
from netmail_common.roles import Role

__all__ = ["MESSAGE_SIZE", "BoundServer", "RpcError", "error_reason", "grpc_server", "peer_role"]

MESSAGE_SIZE = 16 * 1024 * 1024
"""Octets of one gRPC message, both ways; larger bodies are streamed."""

_HEALTH_INTERVAL = 5.0
_AGE_GRACE = 5.0

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_SIZE),
    ("grpc.max_send_message_length", MESSAGE_SIZE),
    ("grpc.so_reuseport", 0),  # a second server on a taken port fails instead of sharing it
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server that accepts calls."""

    server: grpc.aio.Server
    ports: tuple[int, ...]
    """One for each address that it listens on, in their order."""


@contextlib.asynccontextmanager
async def grpc_server(
    *,
    listen: Sequence[str],
    identity: AgentIdentity,
    role: Role,
    installation: str,
    register: Callable[[grpc.aio.Server], None],
    health: Health,
    service_names: Sequence[str],
    drain_timeout: float,
    max_connection_age: float = 0.0,
) -> AsyncIterator[BoundServer]:
    """Serves until the block ends, then lets running calls end for DRAIN_TIMEOUT seconds.

    Args:
        listen: host:port each; port 0 lets the kernel choose.
        identity: of this agent; its certificate is followed when it changes.
        role: what this agent is; must be the identity's.
        installation: trust domain of the callers' certificates.
        register: adds the servicers.
        health: readiness that grpc.health.v1 reports.
        service_names: full names, for health and reflection.
        drain_timeout: seconds for calls under way when the block ends.
        max_connection_age: seconds; 0: connections stay.

    Raises: ConfigError when an address cannot be had.
    """
    if identity.role is not role:
        raise ConfigError(f"the certificate is for role {identity.role}, not {role}")
    options = [*_OPTIONS, *_age_options(max_connection_age)]
    security = security_of(identity, installation)
    server = grpc.aio.server(interceptors=[PolicyInterceptor(security)], options=options)
    register(server)
    health_service = grpc_health.aio.HealthServicer()  # type: ignore[attr-defined] # stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection(
        [*service_names, grpc_health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    ports = []
    for address in listen:
        try:
            port = security.add_port(server, address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from error
        ports.append(port)
    await server.start()
    reporting = asyncio.ensure_future(_report(health_service, ("", *service_names), health))
    try:
        yield BoundServer(server, tuple(ports))
    finally:
        health.set_ready(False)
        reporting.cancel()
        await health_service.enter_graceful_shutdown()
        await server.stop(drain_timeout)


def _age_options(seconds: float) -> list[tuple[str, int]]:
    if not seconds:
        return []
    # gRPC spreads the age by a tenth; calls get the grace to end, streams are cut after it.
    return [
        ("grpc.max_connection_age_ms", int(seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(_AGE_GRACE * 1000)),
    ]


async def _report(service: Any, names: Sequence[str], health: Health) -> None:
    """Tells grpc.health.v1 what HEALTH says, at once when it is set, within seconds by a check."""
    status = health_pb2.HealthCheckResponse
    changed = asyncio.Event()
    health.watch(lambda _: changed.set())
    while True:
        changed.clear()
        for name in names:
            await service.set(name, status.SERVING if health.ready else status.NOT_SERVING)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), _HEALTH_INTERVAL)
