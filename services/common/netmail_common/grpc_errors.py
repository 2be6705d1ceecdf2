"""Errors of gRPC calls: a status and a reason that programs can read (google.rpc.ErrorInfo)."""

from collections.abc import Iterable
from typing import Any, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

__all__ = ["DOMAIN", "RpcError", "error_reason", "error_trailers"]

DOMAIN = "netmail"
_DETAILS_KEY = "grpc-status-details-bin"


class RpcError(Exception):
    """A handler's answer to a call that it refuses.

    Args:
        status: the gRPC status.
        reason: UPPER_SNAKE_CASE, the ErrorInfo's reason; programs decide by it.
        message: for people; it reaches the caller.
    """

    def __init__(self, status: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def error_trailers(error: RpcError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the error's ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    code = cast("tuple[int, str]", error.status.value)[0]
    status = status_pb2.Status(code=code, message=error.message, details=[detail])
    return ((_DETAILS_KEY, status.SerializeToString()),)


def error_reason(error: grpc.aio.AioRpcError) -> str | None:
    """The ErrorInfo reason of a failed call; None if it carries none of ours."""
    trailers = cast("Iterable[tuple[str, Any]]", error.trailing_metadata() or ())
    for key, value in trailers:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return str(info.reason)
    return None
