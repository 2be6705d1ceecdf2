"""One client's connection: whole buffers in, one write for many replies, time limits, TLS.

Subclasses aiosmtpd's SMTP, which brings the protocol's shape (session, verbs as `smtp_` methods);
its reader, its timers and its STARTTLS are replaced, because they read line by line, hold a whole
message's lines, forget the client's address at STARTTLS and let a client that reads nothing fill
the memory.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

from aiosmtpd.smtp import SMTP
from aiosmtpd.smtp import Session as AiosmtpdSession
from netmail_common.acceptor import ClientInfo
from netmail_common.reset import reset
from netmail_common.sasl import MAX_LINE
from netmail_common.tls import ServerTls

from netmail_smtp.protocol.framing import InputBuffer
from netmail_smtp.protocol.reply import Reply

_HIGH_WATER = 256 * 1024
"""Octets of input that may wait before the socket is left alone."""
_OUTPUT_BATCH = 64 * 1024
_HANDSHAKE_TIMEOUT = 30.0


class ConnectionEnded(Exception):
    """The client is gone; nothing can be said to it any more."""


class ClientTimeout(Exception):
    """The client was silent, or did not read, for longer than it may."""


@dataclass(frozen=True, slots=True)
class EndRequest:
    """The session is to end although the client did nothing wrong.

    Attributes:
        reply: what it is told.
        in_transaction: True: at once. False: transactions that are under way may finish.
    """

    reply: Reply
    in_transaction: bool = False


class EndRequested(Exception):
    """The session ends with a 421 of its own.

    Attributes:
        reply: the 421.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Connection(SMTP, ABC):
    """The octets of one connection.

    Args:
        client: who connected; kept over STARTTLS.
        line_limit: octets of the longest command line that is kept.
        session_timeout: seconds that the whole session may last.
    """

    def __init__(self, client: ClientInfo, *, line_limit: int, session_timeout: float) -> None:
        # Not super().__init__(): it inspects the class and the handler anew for each connection,
        # makes a StreamReader that nobody reads, and warns about settings that are not used here.
        self.loop = asyncio.get_running_loop()
        self.client = client
        self.address = str(client.address)
        self.session: AiosmtpdSession = AiosmtpdSession(self.loop)
        self.envelope = None
        self.transport: asyncio.Transport | None = None
        self.tls_active = False
        self.input = InputBuffer(max(line_limit, MAX_LINE))
        self.last_code = 0
        self._output: list[bytes] = []
        self._output_size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._fresh = False
        self._eof = False
        self._lost = False
        self._end: EndRequest | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._session_end = self.loop.time() + session_timeout
        self._handler_coroutine: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the session."""
        self.transport = cast("asyncio.Transport", transport)
        self.tls_active = transport.get_extra_info("sslcontext") is not None
        self.session.peer = transport.get_extra_info("peername")
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        """Keeps what came and wakes the session."""
        self.input.feed(data)
        self._fresh = True
        if len(self.input) > _HIGH_WATER and not self._reading_paused and self.transport:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client sends nothing more; what it sent is still answered, but not through TLS."""
        self._eof = True
        self._wake()
        return not self.tls_active

    def connection_lost(self, error: Exception | None) -> None:
        """Ends the session."""
        del error
        self._lost = self._eof = True
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def pause_writing(self) -> None:
        """The client reads too slowly: the session stops until it has read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The client has read."""
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def __del__(self) -> None:
        """Replaces aiosmtpd's, which looks for what its constructor makes."""

    def request_end(self, end: EndRequest) -> None:
        """Ends the session at its next chance."""
        if self._end is None or end.in_transaction:
            self._end = end
        self._wake()

    @abstractmethod
    async def _handle_client(self) -> None:
        """Serves the session until it ends."""

    def reply(self, reply: Reply) -> None:
        """Puts a reply behind the others; `flush` sends them all at once."""
        self.last_code = reply.code
        self.write(reply.encode())

    def write(self, data: bytes) -> None:
        """Puts octets behind the replies."""
        self._output.append(data)
        self._output_size += len(data)

    @property
    def output_is_large(self) -> bool:
        """Whether it is time to flush although more commands wait."""
        return self._output_size > _OUTPUT_BATCH

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 - one timer serves all waits
        """Writes every reply in one write; waits while the client does not read.

        Raises: ConnectionEnded, ClientTimeout.
        """
        if self._output and self.transport is not None:
            data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
            self.transport.write(data)
        self._output.clear()
        self._output_size = 0
        if self._lost:
            raise ConnectionEnded
        if self._writing_paused:
            self._writable = self.loop.create_future()
            self._arm(timeout)
            await self._writable
            if self._lost:
                raise ConnectionEnded

    async def more_input(
        self,
        timeout: float,  # noqa: ASYNC109 - one timer serves all waits
        *,
        drainable: bool = False,
    ) -> None:
        """Waits until the client has sent more than when this returned last.

        Args:
            timeout: seconds.
            drainable: the client is between transactions.

        Raises: ConnectionEnded, ClientTimeout, EndRequested.
        """
        while not self._fresh:
            self.check_end(between=drainable)
            if self._eof:
                raise ConnectionEnded
            if self._reading_paused and self.transport is not None:
                self._reading_paused = False
                self.transport.resume_reading()
            self._waiter = self.loop.create_future()
            self._arm(timeout)
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._fresh = False

    def check_end(self, *, between: bool) -> None:
        """Asks whether the session is to end.

        Args:
            between: no transaction is under way.

        Raises: EndRequested.
        """
        if self._end is not None and (between or self._end.in_transaction):
            raise EndRequested(self._end.reply)

    async def start_tls(self, tls: ServerTls) -> None:
        """Goes on through TLS. The client's address stays, whoever named it.

        Raises: ConnectionEnded when the handshake fails.
        """
        if self.transport is None:
            raise ConnectionEnded
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                tls.context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
            )
        except (OSError, TimeoutError) as error:
            raise ConnectionEnded from error
        if transport is None or self._lost:
            raise ConnectionEnded
        self.transport = transport
        self.tls_active = True

    async def linger(self, seconds: float, octets: int) -> None:
        """Drops what still comes for a while, and up to a point.

        Closing with input unread resets the connection, and the last reply is lost with it.
        """
        end = self.loop.time() + seconds
        if self.transport is not None and not self.tls_active:
            with contextlib.suppress(OSError):  # the client may be gone already
                self.transport.write_eof()
        while self.loop.time() < end and octets > 0:
            octets -= len(self.input)
            self.input.clear()
            await self.more_input(end - self.loop.time())

    def close_connection(self) -> None:
        """Closes when everything written is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort_connection(self) -> None:
        """Closes at once; what waits to be sent is dropped."""
        if self.transport is not None:
            reset(self.transport)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _arm(self, timeout: float) -> None:
        """One timer a connection: it looks at the deadline, which moves, when it goes off."""
        self._deadline = min(self.loop.time() + timeout, self._session_end)
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        waiting = [
            future
            for future in (self._waiter, self._writable)
            if future is not None and not future.done()
        ]
        if not waiting:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._check_deadline)
            return
        for future in waiting:
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_exception(ClientTimeout())
