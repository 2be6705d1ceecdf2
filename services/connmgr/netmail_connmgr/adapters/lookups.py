"""Answers by key that are kept for a while, asked for once at a time, and not too many at once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["LookupBusy", "Lookups"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LookupBusy(Exception):
    """Too many questions are under way; this one was not asked."""


class Lookups(Generic[K, V]):
    """A bounded cache before a bounded number of questions.

    Belongs to one event loop. A question goes on when whoever asked it has no more patience: its
    answer serves the next one.

    Args:
        ask: finds the answer; must end by itself. What it raises goes to everybody who waits, and
            is not kept.
        keep: seconds that an answer counts.
        max_kept: answers; the one that was used longest ago goes first.
        max_under_way: questions.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[V]],
        keep: Callable[[V], float],
        *,
        max_kept: int,
        max_under_way: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._keep = keep
        self._max_kept = max_kept
        self._max_under_way = max_under_way
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._under_way: dict[K, asyncio.Task[V]] = {}

    def kept(self, key: K) -> V | None:
        """The answer, if it is kept."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        end, value = entry
        if end <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return value

    async def get(self, key: K) -> V:
        """The answer, kept or new.

        Raises: LookupBusy; what `ask` raises.
        """
        value = self.kept(key)
        if value is not None:
            return value
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= self._max_under_way:
                raise LookupBusy
            task = asyncio.get_running_loop().create_task(self._find(key))
            self._under_way[key] = task
            task.add_done_callback(_take_error)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ends the questions that are under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, key: K) -> V:
        try:
            value = await self._ask(key)
        finally:
            del self._under_way[key]
        seconds = self._keep(value)
        if seconds > 0:
            self._kept[key] = (self._clock() + seconds, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        return value


def _take_error(task: "asyncio.Task[V]") -> None:
    """Whoever waited may be gone: the error was seen all the same."""
    if not task.cancelled():
        task.exception()
