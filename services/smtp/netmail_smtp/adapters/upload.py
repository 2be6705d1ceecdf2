"""Sends the content of a large message on while it comes in."""

import asyncio
from collections.abc import AsyncIterator

from netmail.nmap.v1 import queue_pb2
from netmail_common.nmap import Accepted, QueueClient

_QUEUED_CHUNKS = 2


class Upload:
    """One SubmitStream call. At most a few chunks wait; `send` then waits with the client."""

    def __init__(self, queue: QueueClient, envelope: queue_pb2.Envelope) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_CHUNKS)
        self._call = asyncio.ensure_future(queue.submit_stream(envelope, self._iterate()))

    async def send(self, chunk: bytes) -> None:
        """Hands a chunk on. Once the call has failed, chunks are dropped: `finish` says why."""
        await self._put(chunk)

    async def finish(self) -> Accepted:
        """Everything was sent: waits for the durable commit.

        Raises: QueueError.
        """
        await self._put(None)
        return await self._call

    def abandon(self) -> None:
        """Stores nothing."""
        self._call.cancel()
        # Its failure, if any, interests nobody now.
        self._call.add_done_callback(lambda call: call.cancelled() or call.exception())

    async def _put(self, chunk: bytes | None) -> None:
        if self._call.done():
            return
        put = asyncio.ensure_future(self._chunks.put(chunk))
        try:
            await asyncio.wait({put, self._call}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()

    async def _iterate(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
