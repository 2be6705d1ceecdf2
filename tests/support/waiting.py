"""Waiting for what other processes or tasks do: by polling, never longer than it takes."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 60.0, pause: float = 0.02) -> T:
    """The first true value of CONDITION. Raises: AssertionError when it stays false.

    Args:
        pause: seconds between two looks; more where a look costs something.
    """
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
    return value


async def until(condition: Callable[[], Any], within: float = 20.0) -> None:
    """The same in an event loop; CONDITION may be a coroutine function. Raises: TimeoutError."""
    async with asyncio.timeout(within):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.01)
