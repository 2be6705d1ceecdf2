"""The parts of the gRPC service that are about failed logins and rates."""
# ruff: noqa: ARG002 - the API names methods and parameters

from collections.abc import Awaitable
from typing import TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.grpc_errors import RpcError

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.event_desk import EventDesk
from netmail_connmgr.domain.counters import CountersUnavailable

__all__ = ["EventMethods"]

_MAX_ITEMS = 1000
T = TypeVar("T")


class EventMethods(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    """ReportEvent and ForgetFailures.

    Attributes:
        events: takes them; None: nobody does, and every report is accepted.
    """

    events: EventDesk | None = None

    async def ReportEvent(
        self, request: pb.ReportEventRequest, context: object
    ) -> pb.ReportEventResponse:
        """Counts logins that failed, and mail that is to be relayed."""
        if len(request.items) > _MAX_ITEMS:
            raise _invalid("TOO_MANY_ITEMS", f"at most {_MAX_ITEMS} items in one call")
        if self.events is None:
            results = [pb.EventResult(accepted=True) for _ in request.items]
        else:
            results = await _ask(self.events.report(request.items))
        return pb.ReportEventResponse(results=results)

    async def ForgetFailures(
        self, request: pb.ForgetFailuresRequest, context: object
    ) -> pb.ForgetFailuresResponse:
        """Forgets failed logins."""
        if not request.user.name and not request.client_address:
            raise _invalid("NOTHING_TO_FORGET", "give a user, an address, or both")
        if self.events is None:
            return pb.ForgetFailuresResponse()
        forgotten = await _ask(self.events.forget(request.user, request.client_address))
        return pb.ForgetFailuresResponse(forgotten=forgotten)


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await call
    except ValueError:
        raise _invalid("BAD_ADDRESS", "an address has 4 or 16 octets") from None
    except CountersUnavailable:
        metrics.COUNTERS_UNAVAILABLE.inc()
        raise RpcError(
            grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the counters do not answer"
        ) from None


def _invalid(reason: str, message: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, reason, message)
