"""One outgoing SMTP connection: drives the client's conversations over a socket."""

import asyncio
import contextlib
import os
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self, TypeVar, cast

from netmail_smtp.protocol.client import ClientSession, ConnectionLost, Conversation, Stage, Step
from netmail_smtp.protocol.client_framing import DotStuffer, dot_stuffed
from netmail_smtp.protocol.client_reply import Reply, ReplyError, ReplyParser

T = TypeVar("T")

_MAX_QUEUED_REPLIES = 2048
_TLS_HANDSHAKE = 30.0
_QUIT_TIMEOUT = 5.0


class InjectedPlaintext(Exception):
    """Octets came behind the reply to STARTTLS, outside TLS: somebody sits in between."""


class TlsFailed(Exception):
    """No TLS session came about."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; RFC 5321 4.5.3.2 relative to its five minutes."""

    connect: float
    command: float

    def of(self, stage: Stage) -> float:
        """How long a reply may take."""
        if stage is Stage.FINAL:
            return 2 * self.command
        if stage is Stage.GREETING:
            return min(self.command, 4 * self.connect)
        return self.command


@dataclass(slots=True)
class Body:
    """The message's octets: in memory, or in pieces."""

    data: bytes | None
    pieces: AsyncGenerator[bytes, None] | None = None
    sent: bool = False
    """The final dot is out: a break from now on leaves the message's fate uncertain."""


class _Wire(asyncio.Protocol):
    """Cuts what arrives into replies; tells whoever waits."""

    def __init__(self) -> None:
        self.parser = ReplyParser()
        self.replies: deque[Reply] = deque()
        self.lost: str | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        try:
            self.replies.extend(self.parser.feed(data))
        except ReplyError as error:
            self.lose(str(error))
            return
        if len(self.replies) > _MAX_QUEUED_REPLIES:
            self.lose("the host sends replies that answer nothing")
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.lose("the host closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose("the connection was reset" if exc else "the host closed the connection")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        _wake(self._writer)

    def lose(self, why: str) -> None:
        """No more is read; replies that are complete stay."""
        if self.lost is None:
            self.lost = why
            if self._transport is not None:
                self._transport.abort()
        _wake(self._reader)
        _wake(self._writer)

    async def read(self) -> Reply:
        """The next reply. Raises: ConnectionLost."""
        while not self.replies:
            if self.lost is not None:
                raise ConnectionLost(self.lost)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.replies.popleft()

    async def drained(self) -> None:
        """Waits until more may be written. Raises: ConnectionLost."""
        while self._paused and self.lost is None:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self.lost is not None:
            raise ConnectionLost(self.lost)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class SmtpConnection:
    """A socket, its session, and the conversations over it."""

    def __init__(
        self, transport: asyncio.Transport, wire: _Wire, session: ClientSession, timeouts: Timeouts
    ) -> None:
        self._transport = transport
        self._wire = wire
        self._timeouts = timeouts
        self.session = session
        self.tls = "none"
        """Version and whether the certificate was verified, for people."""
        self.security = "none"
        """none, unverified or verified."""
        self.messages = 0
        """Messages sent so far."""

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        *,
        helo_name: str,
        timeouts: Timeouts,
        implicit_tls: tuple[ssl.SSLContext, str] | None = None,
    ) -> Self:
        """Connects.

        Args:
            address: an IP address.
            port: TCP.
            helo_name: for EHLO.
            timeouts: of everything.
            implicit_tls: context and server name for TLS from the first octet (RFC 8314).

        Raises: ConnectionLost, TlsFailed.
        """
        loop = asyncio.get_running_loop()
        wire = _Wire()
        try:
            async with asyncio.timeout(timeouts.connect):
                transport, _ = await loop.create_connection(lambda: wire, address, port)
        except TimeoutError as error:
            raise ConnectionLost("the connection timed out") from error
        except OSError as error:
            words = os.strerror(error.errno).lower() if error.errno else "no connection"
            raise ConnectionLost(words) from error
        connection = cls(transport, wire, ClientSession(helo_name), timeouts)
        if implicit_tls is not None:
            await connection.start_tls(*implicit_tls)
        return connection

    @property
    def alive(self) -> bool:
        """Nothing speaks against another message: no end, nothing said unasked."""
        return (
            self.session.usable
            and self._wire.lost is None
            and not self._wire.replies
            and not self._wire.parser.pending
            and not self._transport.is_closing()
        )

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Starts TLS now. What the host said before is void (RFC 3207 4.2).

        Raises: InjectedPlaintext, TlsFailed; the connection is of no use after either.
        """
        if self._wire.replies or self._wire.parser.pending:
            self.abort()
            raise InjectedPlaintext
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport,
                self._wire,
                context,
                server_hostname=server_name,
                ssl_handshake_timeout=_TLS_HANDSHAKE,
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            # ValueError: the name cannot be that of a TLS server.
            self.abort()
            raise TlsFailed(_tls_words(error)) from error
        if transport is None:
            raise TlsFailed("the connection was closed during the TLS handshake")
        self._transport = transport
        self._wire.connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.security = "verified" if context.verify_mode else "unverified"
        self.tls = f"{tls.version()}, {self.security}"

    async def run(self, conversation: Conversation[T], body: Body | None = None) -> T:
        """Drives CONVERSATION to its end; BODY is sent where it says so.

        Raises: what the conversation raises.
        """
        try:
            step = next(conversation)
            while True:
                try:
                    reply = await self._exchange(step, body)
                except ConnectionLost as error:
                    self.abort()
                    step = conversation.throw(error)
                else:
                    step = conversation.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)
        except BaseException:
            # Cancelled, refused, or the message could not be read: no half message is completed.
            if self.session.usable:
                self.abort()
            raise

    async def _exchange(self, step: Step, body: Body | None) -> Reply:
        if self._wire.lost is not None and not self._wire.replies:
            raise ConnectionLost(self._wire.lost)
        if step.send:
            self._transport.write(step.send)
        try:
            if step.body and body is not None:
                await self._send_body(body)
            async with asyncio.timeout(self._timeouts.of(step.stage)):
                if step.send or step.body:
                    await self._wire.drained()
                return await self._wire.read()
        except TimeoutError as error:
            raise ConnectionLost(f"no reply to {step.stage} in time") from error
        except ConnectionLost:
            # The host may have said why before it hung up.
            if self._wire.replies:
                return self._wire.replies.popleft()
            raise

    async def _send_body(self, body: Body) -> None:
        if body.data is not None:
            body.sent = True
            self._transport.write(dot_stuffed(body.data))
            return
        stuffer = DotStuffer()
        if body.pieces is not None:
            async for piece in body.pieces:
                self._transport.write(stuffer.feed(piece))
                try:
                    async with asyncio.timeout(self._timeouts.command):
                        await self._wire.drained()
                except TimeoutError as error:
                    raise ConnectionLost("the host does not read") from error
        body.sent = True
        self._transport.write(stuffer.finish())

    async def close(self) -> None:
        """QUIT, then the end, whatever the host makes of it."""
        if self.alive:
            with contextlib.suppress(ConnectionLost, TimeoutError):
                async with asyncio.timeout(_QUIT_TIMEOUT):
                    await self.run(self.session.quit())
        self.abort()

    def abort(self) -> None:
        """Ends it without a word."""
        self.session.usable = False
        self._transport.abort()


def _tls_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate does not verify: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    return "TLS: the handshake failed"
