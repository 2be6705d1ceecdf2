"""CheckConnection: may a client connect, and may it try to log in?"""
# ruff: noqa: ARG002 - the API names methods and parameters

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.grpc_errors import RpcError
from netmail_common.grpc_interceptor import peer_role
from netmail_common.roles import Role

from netmail_connmgr.adapters import convert
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
    Verdict,
)

__all__ = ["ConnectionMethods", "require_admin"]

MAX_ITEMS = 1000
MAX_EXPLAINED = 10
_VERDICTS = {
    Verdict.ALLOWED: pb.CONNECTION_VERDICT_ALLOWED,
    Verdict.DENY_TEMPORARY: pb.CONNECTION_VERDICT_DENY_TEMPORARY,
    Verdict.DENY_PERMANENT: pb.CONNECTION_VERDICT_DENY_PERMANENT,
}


class ConnectionMethods(connmgr_pb2_grpc.ConnectionManagerServiceServicer, ABC):
    """The part of the service that judges connections.

    Attributes:
        desk: that is asked.
    """

    desk: LocalDesk

    @property
    @abstractmethod
    def instance_id(self) -> str:
        """Of the login table."""

    async def CheckConnection(
        self, request: pb.CheckConnectionRequest, context: Any
    ) -> pb.CheckConnectionResponse:
        """Says whether a client may connect or try to log in."""
        limit = MAX_EXPLAINED if request.explain else MAX_ITEMS
        if len(request.items) > limit:
            raise RpcError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "TOO_MANY_ITEMS",
                f"at most {limit} items in one call",
            )
        questions = [_question(item) for item in request.items]
        if request.explain:
            require_admin()
            results = [await self._explained_connection(question) for question in questions]
        else:
            verdicts = await self.desk.check_connections(questions)
            results = [_decision(verdict) for verdict in verdicts]
        return pb.CheckConnectionResponse(results=results, instance_id=self.instance_id)

    async def _explained_connection(self, question: ConnectionQuestion) -> pb.ConnectionDecision:
        verdict, lines = await self.desk.explain_connection(question)
        return _decision(verdict, lines)


def require_admin() -> None:
    """Raises: RpcError, PERMISSION_DENIED, if the caller is no administrator."""
    if peer_role() is not Role.ADMIN:
        raise RpcError(
            grpc.StatusCode.PERMISSION_DENIED, "EXPLAIN_NOT_ALLOWED", "explain is for role admin"
        )


def _question(item: pb.ConnectionCheck) -> ConnectionQuestion:
    if len(item.client_address) not in {4, 16}:
        raise RpcError(
            grpc.StatusCode.INVALID_ARGUMENT, "BAD_ADDRESS", "an address has 4 or 16 octets"
        )
    return convert.connection_question(item)


def _decision(verdict: ConnectionVerdict, explanation: Sequence[str] = ()) -> pb.ConnectionDecision:
    return pb.ConnectionDecision(
        verdict=_VERDICTS[verdict.verdict],
        comment=verdict.comment,
        require_auth=verdict.require_auth,
        delay_ms=round(verdict.delay * 1000),
        deny_seconds=round(verdict.deny_for),
        rule=verdict.rule,
        explanation=explanation,
    )
