"""Hands messages over to the NMAP agents that hold the recipients (QueueService.Deliver)."""

from collections.abc import AsyncIterable

import grpc
from netmail.nmap.v1 import queue_pb2
from netmail_common.grpc_client import error_reason
from netmail_common.nmap import QueueClients

from netmail_smtp.domain.deliver_outcome import (
    Attempt,
    Delivered,
    DeliveryFailure,
    Outcome,
    temporary,
)

_CHUNK = 256 * 1024
_TIMEOUT = 300.0


class HandOver:
    """Delivers into mailboxes of other NMAP agents of the installation."""

    def __init__(self, clients: QueueClients, host_names: dict[str, str]) -> None:
        """Makes a client.

        Args:
            clients: stubs by Messaging Server.
            host_names: of the Messaging Servers, for reports.
        """
        self._clients = clients
        self._host_names = host_names

    async def deliver(
        self,
        server: str,
        envelope: queue_pb2.Envelope,
        pieces: AsyncIterable[bytes],
        attempt: Attempt,
    ) -> None:
        """Delivers to every undecided recipient of ATTEMPT; idempotent by message and recipient.

        Raises: what `pieces` raises; nothing is delivered then.
        """
        asked = queue_pb2.Envelope()
        asked.CopyFrom(envelope)
        undecided = set(attempt.undecided)
        del asked.recipients[:]
        asked.recipients.extend(r for r in envelope.recipients if r.address in undecided)
        host = self._host_names[server]
        attempt.host, attempt.tls, attempt.started = host, "gRPC", True
        call = self._clients.for_server(server).Deliver(  # type: ignore[call-arg] # optional
            timeout=_TIMEOUT
        )
        try:
            await call.write(queue_pb2.DeliverRequest(envelope=asked))
            async for piece in pieces:
                for start in range(0, len(piece), _CHUNK):
                    part = piece[start : start + _CHUNK]
                    await call.write(queue_pb2.DeliverRequest(data=part))
            await call.write(queue_pb2.DeliverRequest(end=queue_pb2.SubmitEnd()))
            await call.done_writing()
            response = await call
        except grpc.aio.AioRpcError as error:
            attempt.decide_rest(_failure(error, host))
            return
        except grpc.aio.UsageError:
            # The call ended under our hands; its status says why.
            try:
                await call
            except grpc.aio.AioRpcError as error:
                attempt.decide_rest(_failure(error, host))
            return
        finally:
            call.cancel()
        attempt.decide(
            {r.address: _outcome(r, host) for r in response.results if r.address in undecided}
        )
        attempt.decide_rest(temporary("4.3.0", "the NMAP agent named no outcome", host))


def _outcome(result: queue_pb2.DeliverResult, host: str) -> Outcome:
    if result.outcome == queue_pb2.DELIVERY_OUTCOME_DELIVERED:
        return Delivered(result.status or "2.0.0", result.diagnostic, host, final=True)
    if result.outcome == queue_pb2.DELIVERY_OUTCOME_FAILED:
        return DeliveryFailure(False, result.status or "5.0.0", result.diagnostic, host)
    return DeliveryFailure(True, result.status or "4.0.0", result.diagnostic, host)


def _failure(error: grpc.aio.AioRpcError, host: str) -> DeliveryFailure:
    """Nothing that goes wrong between our own agents returns mail to its sender."""
    words = f"the NMAP agent of {host} answers {error_reason(error) or error.code().name}"
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return temporary("4.3.1", words, host)
    return temporary("4.4.1", words, host)
