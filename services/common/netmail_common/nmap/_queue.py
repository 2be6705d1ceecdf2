"""Submitting messages durably, and the queue stubs for those who work it off."""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import ClassVar

import grpc
from netmail.nmap.v1 import queue_pb2, queue_pb2_grpc

from netmail_common.gather import Gatherer
from netmail_common.grpc_errors import error_reason
from netmail_common.nmap._channels import NmapChannels
from netmail_common.nmap._kept_stream import KeptStream

MAX_UNARY_BYTES = 1024 * 1024
"""Larger messages go by `submit_stream`."""
_CHUNK = 256 * 1024
_ENVELOPE_OCTETS = 512
_LINGER = 0.001
"""Seconds that messages wait for others when several went together before: a commit for more of
them costs each less."""
_TIMEOUT = 30.0
_RETRY_PAUSE = 0.05

_StreamCall = grpc.aio.StreamUnaryCall[
    queue_pb2.SubmitStreamRequest, queue_pb2.SubmitStreamResponse
]


class QueueError(Exception):
    """A message was not taken; `smtp` is the reply: code, enhanced code, text."""

    smtp: ClassVar[tuple[int, str, str]]


class QueueUnavailable(QueueError):
    """The NMAP agent does not answer or cannot store now. The message may or may not be stored."""

    smtp = (451, "4.3.0", "Temporary failure, try again later")


class QueueInsufficientStorage(QueueError):
    """The disk is full."""

    smtp = (452, "4.3.1", "Insufficient system storage")


class QueueRefused(QueueError):
    """The NMAP agent finds the submission invalid: our fault, not the client's."""

    smtp = (554, "5.3.0", "Message cannot be stored")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message is stored durably.

    Attributes:
        delivered: recipients in whose mailboxes it is already.
        queued: recipients that wait in the queue.
    """

    delivered: int
    queued: int


class QueueClients:
    """Queue stubs by Messaging Server: Lease, Report, Deliver, administration."""

    def __init__(self, channels: NmapChannels) -> None:
        self._channels = channels
        self._stubs: dict[str, queue_pb2_grpc.QueueServiceAsyncStub] = {}

    def for_server(self, name: str) -> "queue_pb2_grpc.QueueServiceAsyncStub":
        """The stub over the channel to that Messaging Server's NMAP agent; it stays good.

        Raises: KeyError when the installation has no such server.
        """
        stub = self._stubs.get(name)
        if stub is None:
            stub = queue_pb2_grpc.QueueServiceStub(self._channels.for_server(name).raw)
            self._stubs[name] = stub
        return stub


class QueueClient:
    """Submits to the queue of the own Messaging Server."""

    def __init__(self, channels: NmapChannels) -> None:
        self._clients = QueueClients(channels)
        self._server = channels.server
        self._gatherer: Gatherer[queue_pb2.Submission, queue_pb2.SubmitResult] = Gatherer(
            self._submit_all,
            max_items=256,
            max_bytes=2 * MAX_UNARY_BYTES,
            size_of=_size_of,
            linger=_LINGER,
        )
        # wait_for_ready: an agent that restarts makes a message wait, not fail.
        self._stream = KeptStream[queue_pb2.SubmitRequest, queue_pb2.SubmitResponse](
            lambda: self._clients.for_server(self._server).Submit(wait_for_ready=True)  # type: ignore[call-arg] # optional
        )

    async def submit(self, envelope: queue_pb2.Envelope, data: bytes) -> Accepted:
        """Stores one message of at most MAX_UNARY_BYTES; returns after the durable commit.

        What waits meanwhile shares one call and one commit.

        Raises: QueueUnavailable, QueueInsufficientStorage, QueueRefused.
        """
        return _accepted(await self._gatherer(queue_pb2.Submission(envelope=envelope, data=data)))

    async def submit_stream(
        self, envelope: queue_pb2.Envelope, chunks: AsyncIterable[bytes]
    ) -> Accepted:
        """Stores one message of any size; returns after the durable commit.

        When `chunks` raises, nothing is stored and the exception goes on.

        Raises: QueueUnavailable, QueueInsufficientStorage, QueueRefused.
        """
        call = self._clients.for_server(self._server).SubmitStream(  # type: ignore[call-arg] # optional
            timeout=20 * _TIMEOUT
        )
        try:
            await call.write(queue_pb2.SubmitStreamRequest(envelope=envelope))
            async for chunk in chunks:
                for start in range(0, len(chunk), _CHUNK):
                    part = chunk[start : start + _CHUNK]
                    await call.write(queue_pb2.SubmitStreamRequest(data=part))
            await call.write(queue_pb2.SubmitStreamRequest(end=queue_pb2.SubmitEnd()))
            await call.done_writing()
            response = await call
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except grpc.aio.UsageError as error:
            # The call ended under our hands: its status says why.
            raise await _why_ended(call) from error
        finally:
            call.cancel()
        return _accepted(response.result)

    async def _submit_all(self, items: list[queue_pb2.Submission]) -> list[queue_pb2.SubmitResult]:
        request = queue_pb2.SubmitRequest(items=items)
        try:
            async with asyncio.timeout(_TIMEOUT):
                while True:
                    # Submitting twice is safe: a message id that was taken is not taken again.
                    response = await self._exchange(request)
                    if response is not None:
                        return list(response.results)
                    await asyncio.sleep(_RETRY_PAUSE)
        except TimeoutError:
            raise QueueUnavailable from None

    async def _exchange(self, request: queue_pb2.SubmitRequest) -> queue_pb2.SubmitResponse | None:
        """One request and its response; None: the stream broke, and the next try opens another.

        Raises: QueueError.
        """
        try:
            return await self._stream.ask(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or _is_answer(error):
                raise _failure(error) from error
            return None


def _is_answer(error: grpc.aio.AioRpcError) -> bool:
    """Whether the agent itself said so, and not the connection to it."""
    return error_reason(error) is not None


def _size_of(item: queue_pb2.Submission) -> int:
    return len(item.data) + _ENVELOPE_OCTETS * (1 + len(item.envelope.recipients))


def _accepted(result: queue_pb2.SubmitResult) -> Accepted:
    match result.outcome:
        case queue_pb2.SUBMIT_OUTCOME_ACCEPTED:
            return Accepted(result.delivered, result.queued)
        case queue_pb2.SUBMIT_OUTCOME_INSUFFICIENT_STORAGE:
            raise QueueInsufficientStorage
        case queue_pb2.SUBMIT_OUTCOME_INVALID:
            raise QueueRefused
        case _:
            raise QueueUnavailable


def _failure(error: grpc.aio.AioRpcError) -> QueueError:
    match error.code():
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return QueueInsufficientStorage()
        case grpc.StatusCode.INVALID_ARGUMENT:
            return QueueRefused()
        case _:
            return QueueUnavailable()


async def _why_ended(call: _StreamCall) -> QueueError:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return _failure(error)
    return QueueUnavailable()
