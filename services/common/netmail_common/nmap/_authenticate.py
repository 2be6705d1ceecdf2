"""The one long-lived Authenticate stream of a process to an NMAP agent.

Many sessions' exchanges share it, each with an id. A stream that breaks fails the exchanges on it;
the next exchange opens another.
"""

import asyncio
import itertools
from collections.abc import Callable

import grpc
from netmail.nmap.v1 import directory_pb2, directory_pb2_grpc

from netmail_common.logging import get_logger

_log = get_logger(__name__)

_Call = grpc.aio.StreamStreamCall[
    directory_pb2.AuthenticateRequest, directory_pb2.AuthenticateResponse
]


class StreamBroken(Exception):
    """The stream ended before the answer came."""


class _LiveStream:
    """One call; its reader gives each answer to the exchange that waits for it."""

    def __init__(self, call: "_Call", server: str) -> None:
        self._call = call
        self._server = server
        self._waiting: dict[int, asyncio.Future[directory_pb2.AuthenticateResponse]] = {}
        self._write_lock = asyncio.Lock()
        self.broken = False
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def ask(
        self, request: directory_pb2.AuthenticateRequest
    ) -> directory_pb2.AuthenticateResponse:
        """Raises: StreamBroken."""
        if self.broken:
            raise StreamBroken
        future: asyncio.Future[directory_pb2.AuthenticateResponse] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiting[request.exchange_id] = future
        try:
            await self._write(request)
            return await future
        finally:
            self._waiting.pop(request.exchange_id, None)

    async def _write(self, request: directory_pb2.AuthenticateRequest) -> None:
        try:
            # Shielded: cancelling a write would cancel the call of all the others.
            await asyncio.shield(self._locked_write(request))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise StreamBroken from error

    async def _locked_write(self, request: directory_pb2.AuthenticateRequest) -> None:
        async with self._write_lock:
            await self._call.write(request)

    async def cancel_exchange(self, exchange_id: int) -> None:
        """Tells the agent that nobody waits any more; a broken stream needs no telling."""
        request = directory_pb2.AuthenticateRequest(
            exchange_id=exchange_id, cancel=directory_pb2.AuthenticateCancel()
        )
        if not self.broken:
            try:
                await self._write(request)
            except StreamBroken:
                return

    async def _read(self) -> None:
        try:
            async for response in self._call:
                future = self._waiting.pop(response.exchange_id, None)
                if future is not None and not future.done():
                    future.set_result(response)
        except grpc.aio.AioRpcError as error:
            _log.warning("directory stream broke", server=self._server, code=error.code().name)
        finally:
            self.broken = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(StreamBroken())
            self._waiting.clear()

    async def close(self) -> None:
        """Ends the call and waits for its reader."""
        self.broken = True
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class Exchange:
    """One exchange, bound to the stream on which it began."""

    def __init__(self, stream: _LiveStream, exchange_id: int) -> None:
        self._stream = stream
        self._id = exchange_id

    async def start(
        self, start: directory_pb2.AuthenticateStart
    ) -> directory_pb2.AuthenticateResponse:
        """Raises: StreamBroken."""
        return await self._stream.ask(
            directory_pb2.AuthenticateRequest(exchange_id=self._id, start=start)
        )

    async def respond(self, response: bytes) -> directory_pb2.AuthenticateResponse:
        """Raises: StreamBroken."""
        return await self._stream.ask(
            directory_pb2.AuthenticateRequest(exchange_id=self._id, response=response)
        )

    async def cancel(self) -> None:
        """Tells the agent that the client gave up."""
        await self._stream.cancel_exchange(self._id)


class AuthenticateStream:
    """Keeps one stream to an NMAP agent open, from the first exchange on."""

    def __init__(
        self, stub: "Callable[[], directory_pb2_grpc.DirectoryServiceAsyncStub]", server: str
    ) -> None:
        self._stub = stub
        self._server = server
        self._ids = itertools.count(1)
        self._live: _LiveStream | None = None

    def exchange(self) -> Exchange:
        """A new exchange on the live stream; its deadline is the caller's business."""
        if self._live is None or self._live.broken:
            # wait_for_ready: an agent that restarts makes a login wait, not fail.
            call = self._stub().Authenticate(wait_for_ready=True)  # type: ignore[call-arg] # optional
            self._live = _LiveStream(call, self._server)
        return Exchange(self._live, next(self._ids))

    async def close(self) -> None:
        """Ends the stream; exchanges under way fail."""
        live, self._live = self._live, None
        if live is not None:
            await live.close()
