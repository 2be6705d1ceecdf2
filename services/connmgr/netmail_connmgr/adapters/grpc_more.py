"""The parts of the gRPC service that are not about the login table."""
# ruff: noqa: ARG002 - the API names methods and parameters

from collections.abc import AsyncIterator

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.grpc_errors import RpcError

__all__ = ["OtherMethods"]


class OtherMethods(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    """What this Connection Manager does not do yet."""

    async def QueryAudit(
        self, request: pb.QueryAuditRequest, context: object
    ) -> AsyncIterator[pb.QueryAuditResponse]:
        """Streams what the audit log says."""
        raise _unimplemented()
        yield  # type: ignore[unreachable] # makes it a generator


def _unimplemented() -> RpcError:
    return RpcError(grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED", "not in this version")
