"""What a watcher of the login table says while it watches."""

import asyncio
from collections.abc import AsyncIterator

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import RpcError

__all__ = ["MAX_HELD_AT_ONCE", "WatchRequests"]

MAX_HELD_AT_ONCE = 1000
"""Networks in one request to hold or to let go."""


class WatchRequests:
    """Keeps the newest nonce and the wishes of a watcher; wakes the stream for them."""

    def __init__(self, requests: AsyncIterator[pb.WatchLoginsRequest], wake: asyncio.Event) -> None:
        self._requests = requests
        self._wake = wake
        self._nonce: int | None = None
        self._holds: list[pb.HoldNetworks] = []
        self._taken = asyncio.Event()
        self._fault: RpcError | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Nothing is to be taken any more, not even a fault."""
        return self._ended and self._fault is None

    async def run(self) -> None:
        """Reads until the watcher has said its last.

        The next request is read when the stream has taken the last wish, so none pile up.
        """
        try:
            async for request in self._requests:
                kind = request.WhichOneof("request")
                if kind == "nonce":
                    self._nonce = request.nonce
                    self._wake.set()
                elif kind == "hold":
                    if max(len(request.hold.add), len(request.hold.remove)) > MAX_HELD_AT_ONCE:
                        self._fault = _too_many()
                        return
                    self._holds.append(request.hold)
                    self._taken.clear()
                    self._wake.set()
                    await self._taken.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Ends the stream after what is due."""
        self._ended = True
        self._wake.set()

    def take(self) -> tuple[int | None, list[pb.HoldNetworks]]:
        """The nonce to return and the wishes to fulfil, each once.

        Raises: RpcError, if the watcher asked for what may not be asked for.
        """
        if self._fault is not None:
            raise self._fault
        nonce, self._nonce = self._nonce, None
        holds, self._holds = self._holds, []
        self._taken.set()
        return nonce, holds


def _too_many() -> RpcError:
    return RpcError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "TOO_MANY_NETWORKS",
        f"at most {MAX_HELD_AT_ONCE} networks in one request",
    )
