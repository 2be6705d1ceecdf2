"""WatchLogins: the streams of those who watch the login table."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import RpcError

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.watch_requests import WatchRequests
from netmail_connmgr.adapters.watch_stream import WatchStream, WatchTerms, too_slow
from netmail_connmgr.domain.store import LoginStore, Position, StoreUnavailable

__all__ = ["WatchContext", "Watchers"]

MAX_WATCHERS = 1000
SNAPSHOTS_AT_ONCE = 2
WRITE_TIMEOUT = 20.0
"""Seconds that a watcher may leave a message unread."""
_PAUSE_EACH = 0.0004
_LONGEST_PAUSE = 0.02
"""Seconds for changes to gather, for each stream, and at most: however many streams there are, they
are sent some thousands of messages a second."""
_MODES = {
    pb.WATCH_MODE_FULL: "full",
    pb.WATCH_MODE_REVOCATIONS: "revocations",
    pb.WATCH_MODE_HELD: "held",
}

WatchContext = grpc.aio.ServicerContext[pb.WatchLoginsRequest, pb.WatchLoginsResponse]


class Watchers:
    """Serves the streams, and ends them all when it must.

    Args:
        store: of the table.
        terms: asked when a stream begins.
    """

    def __init__(self, store: LoginStore, terms: Callable[[], WatchTerms]) -> None:
        self._store = store
        self._terms = terms
        self._count = 0
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._ending = asyncio.Event()

    def end_all(self) -> None:
        """Ends every stream, for good."""
        self._ending.set()

    def begin_anew(self) -> None:
        """Ends every stream that there is; the watchers come back to other terms."""
        self._ending.set()
        self._ending = asyncio.Event()

    async def serve(
        self, requests: AsyncIterator[pb.WatchLoginsRequest], context: WatchContext
    ) -> None:
        """One stream, until its watcher goes.

        Raises: RpcError.
        """
        start = await _read_start(requests)
        if self._count >= MAX_WATCHERS:
            raise RpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "try again later"
            )
        gauge = metrics.WATCHERS.labels(_MODES[start.mode])
        self._count += 1
        gauge.inc()
        try:
            await self._watch(start, requests, context)
        except StoreUnavailable:
            raise RpcError(
                grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the login store does not answer"
            ) from None
        finally:
            self._count -= 1
            gauge.dec()

    async def _watch(
        self,
        start: pb.WatchStart,
        requests: AsyncIterator[pb.WatchLoginsRequest],
        context: WatchContext,
    ) -> None:
        wake = asyncio.Event()
        alone = start.mode == pb.WATCH_MODE_REVOCATIONS
        position = self._position(start)
        async with self._store.watch(position, revocations_only=alone, wake=wake) as feed:
            stream = WatchStream(
                self._store,
                feed,
                mode=start.mode,
                snapshots=self._snapshots,
                terms=self._terms(),
                pause=lambda: min(_LONGEST_PAUSE, _PAUSE_EACH * self._count),
            )
            reader = WatchRequests(requests, wake)
            helpers = [
                asyncio.create_task(reader.run()),
                asyncio.create_task(_end_with(self._ending, reader)),
            ]
            try:
                async with contextlib.aclosing(stream.messages(reader, wake)) as messages:
                    async for message in messages:
                        async with asyncio.timeout(WRITE_TIMEOUT):
                            await context.write(message)
            except TimeoutError:
                raise too_slow("messages were not read") from None
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)

    def _position(self, start: pb.WatchStart) -> Position:
        """Where the watcher resumes; nowhere, if what it has may not be added to."""
        has_times = start.mode != pb.WATCH_MODE_REVOCATIONS
        if start.mode == pb.WATCH_MODE_HELD or (
            has_times and start.clock_id != self._store.clock_id
        ):
            return Position()
        return Position(start.instance_id, start.revision)


async def _end_with(ending: asyncio.Event, reader: WatchRequests) -> None:
    await ending.wait()
    reader.end()


async def _read_start(requests: AsyncIterator[pb.WatchLoginsRequest]) -> pb.WatchStart:
    async for request in requests:
        if request.WhichOneof("request") != "start" or request.start.mode not in _MODES:
            break
        return request.start
    raise RpcError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "NO_START",
        "a watcher's first message is start, with a mode",
    )
