"""Gathers what waits into one call: a lone item waits for nothing, a crowd shares the cost."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Req = TypeVar("Req")
Res = TypeVar("Res")


class Gatherer(Generic[Req, Res]):
    """Turns calls with one item each into calls with many.

    An item goes at once when fewer than `in_flight` calls are under way; what arrives meanwhile
    goes together with the next. Belongs to one event loop.

    Args:
        call: takes the items, gives one result for each, in the same order.
        max_items: of one call.
        max_bytes: of one call, by `size_of`; an item that is larger goes alone.
        size_of: octets of an item.
        in_flight: calls under way at once.
        linger: seconds that items wait for more of them where the last call had several: in a crowd
            somebody always comes. A lone item never waits, but the first after a crowd.
    """

    def __init__(
        self,
        call: Callable[[list[Req]], Awaitable[list[Res]]],
        max_items: int,
        max_bytes: int,
        size_of: Callable[[Req], int],
        in_flight: int = 1,
        *,
        linger: float = 0.0,
    ) -> None:
        self._call = call
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._idle = in_flight
        self._linger = linger
        self._crowd = False
        """The last call had several items."""
        self._waiting: deque[tuple[Req, asyncio.Future[Res]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False
        # Kept: asking for the running loop is a system call (getpid), and this is a hot path.
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, item: Req) -> Res:
        """Sends the item with its neighbours and gives its own result.

        Cancelling takes back an item that was not sent yet; one that was sent is lost sight of.

        Raises: what `call` raises, for every item of that call.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        loop = self._loop
        future: asyncio.Future[Res] = loop.create_future()
        self._waiting.append((item, future))
        if self._idle and not self._scheduled:
            self._schedule(loop)
        return await future

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Not at once: whatever else this turn of the loop brings goes along."""
        self._scheduled = True
        if self._crowd and self._linger:
            loop.call_later(self._linger, self._start_calls)
        else:
            loop.call_soon(self._start_calls)

    def _start_calls(self) -> None:
        self._scheduled = False
        while self._loop is not None and self._idle and (batch := self._take()):
            self._idle -= 1
            self._crowd = len(batch) > 1
            task = self._loop.create_task(self._run(batch))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    def _take(self) -> list[tuple[Req, asyncio.Future[Res]]]:
        batch: list[tuple[Req, asyncio.Future[Res]]] = []
        size = 0
        while self._waiting and len(batch) < self._max_items:
            item, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            size += self._size_of(item)
            if batch and size > self._max_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[tuple[Req, asyncio.Future[Res]]]) -> None:
        try:
            results = await self._call([item for item, _ in batch])
            outcomes = list(zip(batch, results, strict=True))
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in outcomes:
                if not future.done():
                    future.set_result(result)
        finally:
            self._idle += 1
            if self._waiting and not self._scheduled and self._loop is not None:
                self._schedule(self._loop)
