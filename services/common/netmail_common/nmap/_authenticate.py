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

Request = directory_pb2.AuthenticateRequest
Response = directory_pb2.AuthenticateResponse
_Call = grpc.aio.StreamStreamCall[Request, Response]


class StreamBroken(Exception):
    """The stream ended before the answer came."""


class _LiveStream:
    """One call: a task writes what exchanges have to say, another reads the answers."""

    def __init__(self, call: _Call, server: str) -> None:
        self._call = call
        self._server = server
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        # At most one request for each exchange: what is cancelled before it was sent never is.
        self._outgoing: dict[int, Request] = {}
        self._something_to_send = asyncio.Event()
        self.broken = False
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._write()), loop.create_task(self._read()))

    async def ask(self, request: Request) -> Response:
        """Raises: StreamBroken."""
        if self.broken:
            raise StreamBroken
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[request.exchange_id] = future
        self._send(request)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(request.exchange_id)
            raise
        finally:
            self._waiting.pop(request.exchange_id, None)

    def cancel(self, exchange_id: int) -> None:
        """Tells the agent that nobody waits any more, if it has heard of the exchange at all."""
        unsent = self._outgoing.pop(exchange_id, None)
        if not self.broken and (unsent is None or unsent.WhichOneof("step") != "start"):
            cancel = directory_pb2.AuthenticateCancel()
            self._send(Request(exchange_id=exchange_id, cancel=cancel))

    async def close(self) -> None:
        """Ends the call; exchanges under way get StreamBroken."""
        self.broken = True
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, request: Request) -> None:
        self._outgoing[request.exchange_id] = request
        self._something_to_send.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._something_to_send.wait()
                self._something_to_send.clear()
                while self._outgoing:
                    request = self._outgoing.pop(next(iter(self._outgoing)))
                    await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return  # the reader hears why
        finally:
            self._break()

    async def _read(self) -> None:
        try:
            async for response in self._call:
                future = self._waiting.get(response.exchange_id)
                if future is not None and not future.done():
                    future.set_result(response)
        except grpc.aio.AioRpcError as error:
            _log.warning("directory stream broke", server=self._server, code=error.code().name)
        finally:
            self._break()

    def _break(self) -> None:
        """One of the tasks has ended: so does all else."""
        self.broken = True
        self._call.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(StreamBroken())


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

    def cancel(self) -> None:
        """Tells the agent that the client gave up."""
        self._stream.cancel(self._id)


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
