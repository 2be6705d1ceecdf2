"""The stream of a watcher: heartbeats, loss, connecting again."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

import grpc
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc

from netmail_common.connmgr.events import (
    Beaten,
    Changed,
    Connected,
    Held,
    Lost,
    SnapshotEnded,
    WatchEvent,
    WatchMode,
    boot_time,
    revoked_event,
    suspected_event,
)
from netmail_common.grpc_errors import error_reason
from netmail_common.logging import get_logger
from netmail_common.networks import NetworkMap

__all__ = ["Watcher"]

log = get_logger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_HELD_AT_ONCE = 1000
"""Networks in one request."""
_READ = 1.0
"""Seconds; what lies in the buffer is read even by a watcher that comes late."""
_HOPELESS = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)

_Call = grpc.aio.StreamStreamCall[connmgr_pb2.WatchLoginsRequest, connmgr_pb2.WatchLoginsResponse]


class Watcher:
    """Follows the login table over losses of the connection.

    Attributes:
        fresh_at: by boot_time(); everything that the table had done then is known here. 0 until
            the first heartbeat after a snapshot.
        table_ahead: seconds; the table's clock shows at most boot_time() and this. Lasts over
            losses of the connection.
    """

    def __init__(
        self,
        stub: "connmgr_pb2_grpc.ConnectionManagerServiceAsyncStub",
        mode: WatchMode,
        *,
        heartbeat: float,
        silence: float,
        networks: NetworkMap | None,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._stub = stub
        self._mode = mode
        self._heartbeat = heartbeat
        self._silence = silence
        self._networks = networks
        self._clock = clock
        self._instance_id = ""
        self._pending = ""
        self._revision = 0
        self._nonce = 0
        self._sent: dict[int, float] = {}
        self._complete = False
        self.fresh_at = 0.0
        self.table_ahead = 0.0
        self._started = 0.0
        self._clock_id = ""
        self._orders: deque[connmgr_pb2.HoldNetworks] = deque()
        self._ordered = asyncio.Event()

    def hold(self, add: Iterable[bytes], remove: Iterable[bytes]) -> None:
        """With HELD: asks for networks, by an address of each, or lets them go.

        What was asked for is forgotten with the stream.
        """
        for let_go in _portions(remove):
            self._orders.append(connmgr_pb2.HoldNetworks(remove=let_go))
        for wanted in _portions(add):
            self._orders.append(connmgr_pb2.HoldNetworks(add=wanted))
        self._ordered.set()

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """Gives events for ever.

        Raises: grpc.aio.AioRpcError, when trying again cannot help.
        """
        pause = _FIRST_PAUSE
        while True:
            connected = False
            try:
                async with contextlib.aclosing(self._stream()) as stream:
                    async for event in stream:
                        connected = connected or isinstance(event, Connected)
                        yield event
            except TimeoutError:
                log.warning("connection manager is silent", seconds=self._silence)
            except grpc.aio.AioRpcError as error:
                if error.code() in _HOPELESS:
                    raise
                reason = error_reason(error) or error.code().name
                log.info("stream of the connection manager ended", reason=reason)
            if connected:
                pause = _FIRST_PAUSE
                yield Lost()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _stream(self) -> AsyncGenerator[WatchEvent, None]:
        """One stream, from hello to its end; TimeoutError when it goes silent."""
        call: _Call = self._stub.WatchLogins()  # type: ignore[call-arg] # requests are written
        beats = asyncio.create_task(self._beat(call))
        self._sent.clear()
        self._orders.clear()
        self._started = self._clock()
        try:
            deadline = self._clock() + self._silence
            while True:
                async with asyncio.timeout(max(_READ, deadline - self._clock())):
                    message = await call.read()
                if message is grpc.aio.EOF:  # type: ignore[attr-defined] # stubs lack it
                    return
                assert isinstance(message, connmgr_pb2.WatchLoginsResponse)  # noqa: S101 - narrows
                kind = message.WhichOneof("event")
                if kind == "heartbeat":
                    self._beaten(message.heartbeat)
                    self._move(message.revision)
                # A long snapshot is a sign of life too; later only heartbeats are.
                if kind == "heartbeat" or not self._complete:
                    deadline = self._clock() + self._silence
                event = self._read(message)
                if event is not None:
                    yield event
        finally:
            beats.cancel()
            call.cancel()
            await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self, call: _Call) -> None:
        start = connmgr_pb2.WatchStart(
            mode=self._mode.value,
            instance_id=self._instance_id,
            revision=self._revision,
            clock_id=self._clock_id,
        )
        time = asyncio.get_running_loop().time
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(connmgr_pb2.WatchLoginsRequest(start=start))
            due = time()
            while True:
                if time() >= due:
                    due = time() + self._heartbeat
                    self._nonce += 1
                    self._sent[self._nonce] = self._clock()
                    await call.write(connmgr_pb2.WatchLoginsRequest(nonce=self._nonce))
                self._ordered.clear()
                while self._orders:
                    order = self._orders.popleft()
                    await call.write(connmgr_pb2.WatchLoginsRequest(hold=order))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time())):
                        await self._ordered.wait()

    def _beaten(self, heartbeat: connmgr_pb2.Heartbeat) -> None:
        sent = self._sent.get(heartbeat.nonce)
        if sent is None:
            return
        for earlier in [n for n in self._sent if n <= heartbeat.nonce]:
            del self._sent[earlier]
        self.table_ahead = heartbeat.table_time - sent
        if self._complete:
            self.fresh_at = sent

    def _move(self, revision: int) -> None:
        """Remembers the position to resume from; not within a snapshot, which has none."""
        if self._complete:
            self._revision = revision

    def _read(self, message: connmgr_pb2.WatchLoginsResponse) -> WatchEvent | None:
        match message.WhichOneof("event"):
            case "hello":
                hello = message.hello
                self._complete = hello.resumed
                if not hello.resumed:
                    self._instance_id, self._revision = "", 0
                    self.fresh_at = 0.0
                self._pending, self._clock_id = hello.instance_id, hello.clock_id
                self.table_ahead = hello.table_time - self._started
                return Connected(
                    instance_id=hello.instance_id,
                    lifetime=hello.login_lifetime_seconds,
                    resumed=hello.resumed,
                    max_users_per_network=hello.max_users_per_network,
                    check_connections=hello.check_connections,
                    logins=hello.logins,
                    own_addresses=tuple(hello.own_addresses),
                    cluster_networks=tuple(hello.cluster_networks),
                )
            case "heartbeat":
                return Beaten(message.heartbeat.logins)
            case "snapshot_end":
                self._complete, self._instance_id = True, self._pending
                self._move(message.revision)
                return SnapshotEnded(message.revision)
            case "revocation":
                self._move(message.revision)
                return revoked_event(message.revocation, self._clock(), self._networks)
            case "changes":
                self._move(message.revision)
                return Changed(message.revision, message.changes)
            case "held":
                return Held(message.held)
            case "suspicions":
                return suspected_event(message.suspicions)
            case _:
                return None


def _portions(addresses: Iterable[bytes]) -> Iterator[list[bytes]]:
    every = list(addresses)
    for first in range(0, len(every), _HELD_AT_ONCE):
        yield every[first : first + _HELD_AT_ONCE]
