"""What happens around every call: the caller's role, errors, metrics."""

from __future__ import annotations  # grpc's classes are generic only in its stubs

import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from netmail_common.grpc_errors import RpcError, error_trailers
from netmail_common.grpc_security import Security
from netmail_common.logging import get_logger
from netmail_common.metrics import counter, duration
from netmail_common.roles import METHOD_ROLES, Role

__all__ = ["PolicyInterceptor", "peer_role"]

log = get_logger(__name__)

_CALLS = counter("rpc_calls", "Calls served, by method and outcome", ["method", "outcome"])
_DURATION = duration("rpc", "Time to serve a call", ["method"])

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
Context = Any


_caller: ContextVar[Role] = ContextVar("caller")


def peer_role() -> Role:
    """The role of whose call is being served."""
    return _caller.get()


class PolicyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # same
    """Checks the caller's role, turns errors into statuses, counts.

    Each method's handler is wrapped once and kept: nothing is looked up per call but the caller's
    names.
    """

    def __init__(self, security: Security) -> None:
        self._security = security
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Finds the wrapped handler."""
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # type: ignore[return-value] # gRPC answers UNIMPLEMENTED
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        around = _Around(method, self._security, self._allowed(method))
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(around.unary(handler.unary_unary), **codec)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(around.unary(handler.stream_unary), **codec)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                around.stream(handler.unary_stream), **codec
            )
        return grpc.stream_stream_rpc_method_handler(around.stream(handler.stream_stream), **codec)

    def _allowed(self, method: str) -> dict[bytes, Role]:
        roles = METHOD_ROLES.get(method, frozenset())
        return {name: role for role in roles for name in self._security.names_of(role)}


class _Around:
    """Wraps the handlers of one method."""

    def __init__(self, method: str, security: Security, allowed: Mapping[bytes, Role]) -> None:
        self._method = method
        self._security = security
        self._allowed = allowed
        self._ok = _CALLS.labels(method, "OK")
        self._duration = _DURATION.labels(method)

    def unary(self, behavior: Callable[..., Awaitable[Any]]) -> Any:
        """Around a handler that returns one response."""

        async def call(request: Any, context: Context) -> Any:
            await self._check_role(context)
            start = time.perf_counter()
            try:
                response = await behavior(request, context)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._fail(context, error)
            self._ok.inc()
            self._duration.observe(time.perf_counter() - start)
            return response

        return call

    def stream(self, behavior: Callable[..., Any]) -> Any:
        """Around a handler that yields responses, or writes them to the context."""
        if not inspect.isasyncgenfunction(behavior):
            return self.unary(behavior)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            await self._check_role(context)
            try:
                async with contextlib.aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._fail(context, error)
            self._ok.inc()

        return call

    async def _check_role(self, context: Context) -> None:
        callers = self._security.callers(context)
        for name in callers:
            role = self._allowed.get(name)
            if role is not None:
                _caller.set(role)
                return
        names = [name.decode("utf-8", "replace") for name in callers]
        log.warning("call refused", method=self._method, peer=context.peer(), caller=names)
        await self._abort(
            context,
            RpcError(
                grpc.StatusCode.PERMISSION_DENIED,
                "ROLE_NOT_ALLOWED",
                "this role may not call this method",
            ),
        )

    async def _fail(self, context: Context, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            _CALLS.labels(self._method, "ABORTED").inc()
            raise error
        if isinstance(error, RpcError):
            await self._abort(context, error)
        log.error("call failed", method=self._method, exc_info=error)
        await self._abort(context, RpcError(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error"))

    async def _abort(self, context: Context, error: RpcError) -> NoReturn:
        _CALLS.labels(self._method, error.status.name).inc()
        await context.abort(error.status, error.message, error_trailers(error))
        raise AssertionError("abort raises")
