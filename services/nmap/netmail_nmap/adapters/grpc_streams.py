"""Streams of requests that are answered one by one."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

__all__ = ["answer_in_turn"]

Req = TypeVar("Req")
Res = TypeVar("Res")


async def answer_in_turn(
    requests: AsyncIterable[Req],
    answer: Callable[[Req], Awaitable[Res]],
    write: Callable[[Res], Awaitable[None]],
    stop: asyncio.Event,
) -> None:
    """Answers each request before it reads the next, until the client ends the stream.

    When STOP is set the request that is being answered is the last.

    Raises: what `answer` raises.
    """
    under_way = asyncio.Lock()

    async def serve() -> None:
        async for request in requests:
            async with under_way:
                await write(await answer(request))

    serving = asyncio.create_task(serve())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            async with under_way:
                serving.cancel()
    finally:
        serving.cancel()
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        outcome = (await asyncio.gather(serving, return_exceptions=True))[0]
    if isinstance(outcome, Exception):
        raise outcome
