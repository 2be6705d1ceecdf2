"""Two processes and the network between them, on a clock of the test's own.

Each process is an event loop that runs only when the test lets it: a stopped one finds everything
in its sockets when it goes on. Streams can be held up and torn. What runs in the processes is real.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb

T = TypeVar("T")


class Process(asyncio.SelectorEventLoop):
    """An event loop on a clock that does not pass by itself.

    Attributes:
        running: False: it is stopped (SIGSTOP).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self.running = True

    def time(self) -> float:
        """Seconds."""
        return self._clock()

    def settle(self) -> None:
        """Does everything that can be done now."""
        for _ in range(10_000):
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready and not self._is_due():  # type: ignore[attr-defined]
                return
        raise AssertionError("the process never comes to rest")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine that has nothing to wait for."""
        task = self.create_task(work)
        self.settle()
        return task.result()

    def next_timer(self) -> float:
        """When it next has something to do by itself."""
        timers = [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        return min(timers, default=float("inf"))

    def end(self) -> None:
        """Cancels what runs and closes."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.settle()
        self.close()

    def _is_due(self) -> bool:
        return self.next_timer() <= self.time()


class Stream:
    """A WatchLogins call from the watcher's process to the server's.

    Args:
        between: called whenever the watcher has dealt with one message and wants the next.
    """

    def __init__(self, between: Callable[[], None]) -> None:
        self._between = between
        self.to_server: deque[pb.WatchLoginsRequest] = deque()
        self.to_watcher: deque[pb.WatchLoginsResponse] = deque()
        self.server_has: deque[pb.WatchLoginsRequest] = deque()
        self.watcher_has: deque[pb.WatchLoginsResponse] = deque()
        self.torn = False
        self.ended: grpc.StatusCode | None = None
        """How the server ended it; told to the watcher after what was sent before."""
        self._server_wakes = asyncio.Event()
        self._watcher_wakes = asyncio.Event()

    def flow(self) -> bool:
        """Moves what is under way; whether anything did."""
        moved = bool(self.to_server or self.to_watcher)
        self.server_has.extend(self.to_server)
        self.watcher_has.extend(self.to_watcher)
        self.to_server.clear()
        self.to_watcher.clear()
        if moved:
            self._wake()
        return moved

    def tear(self) -> None:
        """The connection is reset: what was under way or unread is lost."""
        self.torn = True
        for queue in (self.to_server, self.to_watcher, self.server_has, self.watcher_has):
            queue.clear()
        self._wake()

    def end(self, code: grpc.StatusCode) -> None:
        """The server ends it."""
        self.ended = code
        self._wake()

    def _wake(self) -> None:
        self._server_wakes.set()
        self._watcher_wakes.set()

    # What the watcher sees: grpc.aio.StreamStreamCall.

    async def read(self) -> Any:
        """The next message, or EOF. Raises: AioRpcError."""
        self._between()
        while not self.watcher_has:
            if self.torn:
                raise _error(grpc.StatusCode.UNAVAILABLE)
            if self.ended is not None and not self.to_watcher:
                if self.ended is grpc.StatusCode.OK:
                    return grpc.aio.EOF  # type: ignore[attr-defined]
                raise _error(self.ended)
            self._watcher_wakes.clear()
            await self._watcher_wakes.wait()
        return self.watcher_has.popleft()

    async def write(self, message: pb.WatchLoginsRequest) -> None:
        """Raises: InvalidStateError, as gRPC does once the call is over."""
        if self.torn or self.ended is not None:
            raise asyncio.InvalidStateError
        self.to_server.append(message)

    def cancel(self) -> None:
        """The watcher goes."""
        self.tear()

    # What the server sees: requests, and a context to write to.

    async def requests(self) -> AsyncIterator[pb.WatchLoginsRequest]:
        """What the watcher says."""
        while not self.torn:
            while self.server_has:
                yield self.server_has.popleft()
            self._server_wakes.clear()
            await self._server_wakes.wait()


class Context:
    """The server's end of a stream: grpc.aio.ServicerContext."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, message: pb.WatchLoginsResponse) -> None:
        """Sends."""
        if not self._stream.torn:
            self._stream.to_watcher.append(message)


def _error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "", "")
