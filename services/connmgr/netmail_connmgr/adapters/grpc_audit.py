"""The part of the gRPC service that reads the audit log."""
# ruff: noqa: ARG002 - the API names methods and parameters

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.grpc_errors import RpcError
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import convert
from netmail_connmgr.adapters.audit_log import AuditPage
from netmail_connmgr.adapters.audit_trail import AuditTrail

__all__ = ["AuditMethods"]

log = get_logger(__name__)

_AT_ONCE = 2
"""Questions at once: each reads files from end to end."""
_MAX_LIMIT = 100_000
_MESSAGE = 256 * 1024
"""Characters of lines that go into one message, about."""


class AuditMethods(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    """QueryAudit.

    Attributes:
        audit: the audit log; None: there is none.
    """

    audit: AuditTrail | None = None
    _reading: asyncio.Semaphore | None = None

    async def QueryAudit(
        self, request: pb.QueryAuditRequest, context: object
    ) -> AsyncIterator[pb.QueryAuditResponse]:
        """Streams what the audit log says about a user or an address, oldest first."""
        user = convert.named_user(request.user)
        if user is None and not request.client_address:
            raise _invalid("NOTHING_TO_FIND", "give a user, an address, or both")
        if len(request.client_address) not in {0, 4, 16}:
            raise _invalid("BAD_ADDRESS", "an address has 4 or 16 octets")
        if request.limit > _MAX_LIMIT:
            raise _invalid("LIMIT_TOO_LARGE", f"at most {_MAX_LIMIT} records; 0: all")
        if self.audit is None:
            raise RpcError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "NO_AUDIT_LOG",
                "this Connection Manager keeps no audit log: audit.directory is not set",
            )
        self._reading = self._reading or asyncio.Semaphore(_AT_ONCE)
        async with self._reading:
            pages = self.audit.query(
                user,
                request.client_address or None,
                within=request.within_seconds,
                limit=request.limit,
            )
            try:
                async with contextlib.aclosing(pages):
                    async for page in pages:
                        for response in _responses(page):
                            yield response
            except OSError as error:
                log.error("audit log not read", error=error.strerror)  # noqa: TRY400 - no traceback
                raise RpcError(
                    grpc.StatusCode.UNAVAILABLE, "AUDIT_LOG_UNREADABLE", "the files cannot be read"
                ) from None


def _responses(page: AuditPage) -> Iterator[pb.QueryAuditResponse]:
    """A page in messages of bounded size."""
    response, size = pb.QueryAuditResponse(), 0
    for record, line in page:
        response.records.add(
            time=str(record.get("time", "")), kind=str(record.get("kind", "")), json=line
        )
        size += len(line)
        if size >= _MESSAGE:
            yield response
            response, size = pb.QueryAuditResponse(), 0
    if response.records:
        yield response


def _invalid(reason: str, message: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, reason, message)
