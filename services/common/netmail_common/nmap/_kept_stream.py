"""A stream that carries one request and its response at a time."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import grpc

Req = TypeVar("Req")
Res = TypeVar("Res")

_MAX_AGE = 4.0
"""Seconds after which another stream is opened. An agent that ends connections of some age gives
the calls on them a little longer than this: no request is lost to that, and the load finds its way
to other agents."""


class KeptStream(Generic[Req, Res]):
    """Asks by a stream that stays open, since a call for each request would cost twice as much.

    One request at a time. Belongs to one event loop.

    Args:
        open_stream: makes the call.
        clock: seconds, monotonic.
    """

    def __init__(
        self, open_stream: Callable[[], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_stream = open_stream
        self._clock = clock
        self._call: Any = None
        self._opened_at = 0.0

    async def ask(self, request: Req) -> Res | None:
        """Sends the request and gives its response.

        None: the stream broke, and whether the request was heard nobody knows.

        Raises: grpc.aio.AioRpcError, with which the stream ended.
        """
        call = self._take()
        try:
            with contextlib.suppress(asyncio.InvalidStateError):  # it has ended: read says why
                await call.write(request)
            response = await call.read()
        except grpc.aio.AioRpcError:
            raise
        except BaseException:
            call.cancel()
            raise
        if response is grpc.aio.EOF:  # type: ignore[attr-defined] # stubs lack it
            return None
        self._call = call
        return cast("Res", response)

    def _take(self) -> Any:
        """The stream, which is nobody's until the response is there.

        Who is cancelled in between leaves none on which the next one would read it.
        """
        call, self._call = self._call, None
        if call is not None and not call.done():
            if self._clock() - self._opened_at < _MAX_AGE:
                return call
            call.cancel()
        self._opened_at = self._clock()
        return self._open_stream()
