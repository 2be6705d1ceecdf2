"""The gRPC channel of an agent: security, deadlines, reconnecting, new certificates."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc

from netmail_common.grpc_errors import error_reason
from netmail_common.grpc_security import AgentIdentity, security_of
from netmail_common.grpc_server import MESSAGE_SIZE
from netmail_common.roles import Role

__all__ = ["CALL_TIMEOUT", "Channel", "error_reason"]

CALL_TIMEOUT = 30.0
"""Seconds; the deadline of a call that sets none itself."""

STREAM_TIMEOUT = 3600.0
"""Seconds; the same for a call that answers with a stream."""

_OLD_CHANNEL_GRACE = 60.0

# Every replica behind a name gets its share of the calls; a lost connection looks the name up anew.
_ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'

_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", _ROUND_ROBIN),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.max_receive_message_length", MESSAGE_SIZE),
    ("grpc.max_send_message_length", MESSAGE_SIZE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take, TLS on a busy machine included.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class Channel:
    """A channel to one server that reconnects by itself and follows new certificates.

    Stubs are made once from `raw` and stay good. A call without a timeout gets one.

    Args:
        target: host:port, or any gRPC target.
        identity: of this agent.
        installation: the trust domain.
        expected_role: what the server must be.
    """

    def __init__(
        self, target: str, identity: AgentIdentity, *, installation: str, expected_role: Role
    ) -> None:
        self._target = target
        self._security = security_of(identity, installation)
        self._expected_role = expected_role
        self._generation = 0
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._raw = _FollowingChannel(self)

    @property
    def target(self) -> str:
        """The gRPC target."""
        return self._target

    @property
    def raw(self) -> grpc.aio.Channel:
        """What stubs are made of."""
        return cast("grpc.aio.Channel", self._raw)

    @property
    def generation(self) -> int:
        """Grows when the channel underneath was replaced."""
        return self._generation

    def current(self) -> grpc.aio.Channel:
        """The channel underneath, made anew when the certificates have changed."""
        newest = self._security.generation
        if self._channel is not None and self._generation == newest:
            return self._channel
        old, self._generation = self._channel, newest
        self._channel = self._security.channel(self._target, self._expected_role, _OPTIONS)
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.close(_OLD_CHANNEL_GRACE))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._channel

    async def wait_ready(self, timeout: float) -> bool:  # noqa: ASYNC109 - callers want a bool
        """Whether a connection is there within TIMEOUT seconds."""
        try:
            await asyncio.wait_for(self.current().channel_ready(), timeout)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Ends running calls and the connection."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None


class _FollowingChannel:
    """Looks like a grpc.aio.Channel to a generated stub; each call goes to the newest one."""

    def __init__(self, owner: Channel) -> None:
        self._owner = owner

    def unary_unary(self, *args: Any, **kwargs: Any) -> "_Following":
        return _Following(self._owner, "unary_unary", args, kwargs, CALL_TIMEOUT)

    def stream_unary(self, *args: Any, **kwargs: Any) -> "_Following":
        return _Following(self._owner, "stream_unary", args, kwargs, CALL_TIMEOUT)

    def unary_stream(self, *args: Any, **kwargs: Any) -> "_Following":
        return _Following(self._owner, "unary_stream", args, kwargs, STREAM_TIMEOUT)

    def stream_stream(self, *args: Any, **kwargs: Any) -> "_Following":
        return _Following(self._owner, "stream_stream", args, kwargs, None)


class _Following:
    """One method's callable, remade when the channel was."""

    def __init__(
        self, owner: Channel, kind: str, args: Any, kwargs: Any, timeout: float | None
    ) -> None:
        self._owner = owner
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self._timeout = timeout
        self._generation = 0
        self._callable: Callable[..., Any] | None = None

    def __call__(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        channel = self._owner.current()
        if self._callable is None or self._generation != self._owner.generation:
            self._callable = getattr(channel, self._kind)(*self._args, **self._kwargs)
            self._generation = self._owner.generation
        return self._callable(*args, timeout=timeout or self._timeout, **kwargs)
