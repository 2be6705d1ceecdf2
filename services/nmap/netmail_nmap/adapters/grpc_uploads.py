"""Bodies that arrive as a stream of requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from netmail_nmap.domain.errors import InvalidRequest, NmapError, StoreUnavailable
from netmail_nmap.domain.store import Upload


class _Part(Protocol):
    """A message of a stream that carries a body."""

    @property
    def data(self) -> bytes: ...

    def WhichOneof(self, name: Any) -> Any: ...


async def receive(upload: Upload, requests: AsyncIterator[_Part]) -> None:
    """Takes data until `end`.

    Raises: InvalidRequest when it does not come; MessageTooBig; StoreUnavailable.
    """
    async for request in requests:
        match request.WhichOneof("part"):
            case "data":
                async with answered_after_all(requests):
                    await upload.write(request.data)
            case "end":
                return
            case _:
                break
    raise InvalidRequest("the stream ends without an end, or with something else")


@contextlib.asynccontextmanager
async def answered_after_all(requests: AsyncIterator[object]) -> AsyncIterator[None]:
    """When the block refuses the call, the rest of the stream is read before that is said.

    A call that ends while its client still writes fails there with INTERNAL, and the reason is
    lost. The clients are agents, which have limits of their own.
    """
    try:
        yield
    except NmapError:
        async for _ in requests:
            pass
        raise


@contextlib.asynccontextmanager
async def abandoned_unless_done(upload: Upload) -> AsyncIterator[None]:
    """Gives an upload up when the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        await asyncio.shield(give_up(upload))
        raise


async def give_up(upload: Upload) -> None:
    """Gives an upload up; if storage fails now, the next start sweeps it."""
    with contextlib.suppress(StoreUnavailable):
        await upload.abandon()
