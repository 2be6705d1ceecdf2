"""One public connection, POP3 or IMAP: whole-buffer reads, bounded writes, TLS upgrade, time-outs.

There is no task and no reader object behind an idle connection: bytes go to the subclass's
sans-IO parser as they come, commands that need no RPC are answered inside the read callback, and
a task lives only as long as a command that waits for something.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from netmail_common.acceptor import ClientInfo
from netmail_common.logging import get_logger
from netmail_common.reset import reset
from netmail_common.tls import ServerTls

from netmail_pop_imap.adapters.admission import check_welcome, is_asked_about, visitor_of
from netmail_pop_imap.adapters.context import ListenerContext
from netmail_pop_imap.adapters.metrics import command_seconds
from netmail_pop_imap.domain.session import Ending
from netmail_pop_imap.protocol.errors import InternalError, NotWelcome, ReplyError

log = get_logger(__name__)

T = TypeVar("T")

_BATCH = 64 * 1024
"""Octets of replies gathered before they are handed to the transport."""

_LINGER = 5.0
"""Seconds a client gets to take the farewell of a session that the server ends."""


class Connection(asyncio.Protocol, ABC):
    """Base class of the public connections.

    A subclass implements `greeting`, `turned_away`, `feed`, `step`, `backlog`, `reply_error`,
    `farewell` and `finished`, and calls `write`, `start`, `close`, `upgrade_tls` and `logged_in`.

    Life: greeting -> feed(bytes) -> step() until it returns False -> ... -> finished().
    """

    __slots__ = (
        "__dict__",  # the acceptor wraps connection_lost of the instance
        "_arrival",
        "_at_end",
        "_closing",
        "_deadline",
        "_eof",
        "_out",
        "_out_size",
        "_stall_timer",
        "_stalled",
        "_task",
        "_timer",
        "_unread",
        "_upgrading",
        "authenticated",
        "awaits_client",
        "client",
        "context",
        "errors",
        "login_failures",
        "loop",
        "secure",
        "transport",
    )

    protocol_name: str
    """pop3 or imap: for logs, metrics and the login's protocol."""

    write_high_water: int = 256 * 1024
    """Octets that wait in the transport before the session stops producing more."""

    def __init__(self, client: ClientInfo, context: ListenerContext) -> None:
        self.client = client
        self.context = context
        self.loop = context.loop
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self.secure = context.listener.tls == "implicit"
        self.authenticated = False
        self.awaits_client = False
        """A task waits for the client (SASL, literal): the idle time-out applies to it."""
        self.errors = 0
        self.login_failures = 0
        self._task: asyncio.Task[None] | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._at_end: Ending | None = None
        self._closing = False
        self._eof = False
        self._upgrading = False
        self._out: list[bytes] = []
        self._out_size = 0
        self._stalled: asyncio.Future[None] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # What a subclass implements.

    @abstractmethod
    def greeting(self) -> bytes:
        """The first line to the client."""

    @abstractmethod
    def turned_away(self, error: NotWelcome) -> bytes:
        """What a client is told instead of the greeting."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Gives octets from the client to the parser; executes nothing."""

    @abstractmethod
    def step(self) -> bool:
        """Executes the next complete command; False if there is none.

        Either answers it by `write`, or calls `start` with a coroutine that does.

        Raises: ReplyError, answered by `reply_error`.
        """

    @abstractmethod
    def backlog(self) -> int:
        """Octets that the parser holds and no command has consumed."""

    @abstractmethod
    def reply_error(self, error: ReplyError) -> bytes:
        """The reply to the command under way."""

    @abstractmethod
    def farewell(self, ending: Ending) -> bytes:
        """What the client is told when the server ends the session; may be empty."""

    @abstractmethod
    def finished(self) -> None:
        """The connection is gone: release what the session holds."""

    # What a subclass calls.

    @property
    def busy(self) -> bool:
        """A command's task is under way."""
        return self._task is not None

    @property
    def closing(self) -> bool:
        """No further command is executed."""
        return self._closing

    @property
    def stalled(self) -> bool:
        """The client leaves what was written unread."""
        return self._stalled is not None

    def write(self, data: bytes) -> None:
        """Gathers a reply; it leaves with the batch, or by `flush`."""
        self._out.append(data)
        self._out_size += len(data)

    def flush(self) -> None:
        """Hands what was gathered to the transport, in one write."""
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drained(self) -> None:
        """Flushes, then waits until the client has read enough for more.

        A task that streams calls it after each piece.

        Raises: ConnectionResetError if the connection is gone.
        """
        self.flush()
        if self._stalled is not None:
            await asyncio.shield(self._stalled)
        if self.transport.is_closing():
            raise ConnectionResetError

    @property
    def unsent(self) -> int:
        """Octets written since the last `flush`."""
        return self._out_size

    def start(self, work: Coroutine[Any, Any, None], verb: str) -> None:
        """Runs a command that waits; the next one is executed when it has ended.

        Args:
            work: answers by `write`, or raises ReplyError.
            verb: one of the protocol's, for the metric.
        """
        self._task = self.loop.create_task(self._run(work, verb))

    async def next_input(self, take: Callable[[], T | None]) -> T:
        """Flushes, then waits until the client has sent what `take` gives.

        For a task that needs more from the client: a SASL response, a literal, DONE.
        """
        self.flush()
        self.awaits_client = True
        try:
            while (item := take()) is None:
                self._regulate()
                self._arrival = self.loop.create_future()
                await self._arrival
        finally:
            self._arrival = None
            self.awaits_client = False
        return item

    def close(self) -> None:
        """Ends the session once everything written has reached the client."""
        if self._closing:
            return
        self._closing = True
        self.flush()
        self.transport.close()
        self._arm(self.context.limits.write_timeout)

    def end(self, ending: Ending) -> None:
        """Ends the session from the server's side: now, or after the command under way."""
        if self._closing or self._at_end is not None:
            return
        self._at_end = ending
        if self._task is None or self.awaits_client:
            self._say_farewell()
        elif ending is Ending.REVOKED:
            # Whoever it is must not go on for as long as he leaves an answer unread.
            self._arm(_LINGER)

    def cut(self) -> None:
        """Ends the session at once, without a farewell."""
        reset(self.transport)

    def push(self, data: bytes) -> None:
        """Writes at once: for what the client did not ask for (IDLE)."""
        self.write(data)
        self.flush()

    def logged_in(self) -> None:
        """From now on the idle time-out applies, not the login's."""
        self.authenticated = True
        self.touch()
        self._arm(self.context.listener.idle_timeout)

    def touch(self) -> None:
        """The client is there: idle time counts anew."""
        if self.authenticated:
            self._deadline = self.loop.time() + self.context.listener.idle_timeout

    def upgrade_tls(self, reply: bytes) -> None:
        """Sends the go-ahead of STARTTLS or STLS and begins TLS.

        Octets that came with the command end the session (they were sent in the clear and would
        be taken for what comes under TLS).
        """
        if self.backlog():
            log.warning(
                "plaintext after the TLS upgrade", address=str(self.client.address), ending="closed"
            )
            self.end(Ending.INJECTION)
            return
        self.write(reply)
        self.flush()
        self._upgrading = True
        self.transport.pause_reading()
        self.start(self._handshake(), "STARTTLS")

    def tls_started(self) -> None:
        """TLS is on: the subclass forgets what it knew before. Default: nothing."""

    async def probed(self, text: str) -> str | None:
        """The address that arrived, for a person who asks by a token; None: nobody asks so."""
        visitor = visitor_of(self.client, self.context.listener)
        return await self.context.gate.probe(visitor, text)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets the client."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self.write_high_water)
        self.context.sessions.add(self)
        self._deadline = self.loop.time() + self.context.limits.login_timeout
        self._arm(self.context.limits.login_timeout)
        self.context.gate.seen(visitor_of(self.client, self.context.listener))
        if is_asked_about(self.client, self.context):
            self.start(self._admit(), "CONNECT")
        else:
            self.write(self.greeting())
            self.flush()

    def data_received(self, data: bytes) -> None:
        """Takes a whole buffer and executes what is complete."""
        if self._closing:
            return
        if self._upgrading:
            self.end(Ending.INJECTION)
            return
        self.touch()
        self.feed(data)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        self.pump()

    def eof_received(self) -> bool:
        """The client sends no more; what it has sent is still answered."""
        self._eof = True
        self.pump()
        return not self.secure and not self._closing

    def pause_writing(self) -> None:
        """The client does not read: stop producing, and cut it after write_timeout."""
        self._stalled = self.loop.create_future()
        self._unread = self.transport.get_write_buffer_size()
        self._watch_stall()

    def resume_writing(self) -> None:
        """The client has read: go on."""
        self._unstall()
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why is of no use
        """Ends the session's task and releases what it holds."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unstall()
        if self._task is not None:
            self._task.cancel()
        self._out.clear()
        self.context.sessions.discard(self)
        self.finished()

    # Inside.

    def pump(self) -> None:
        """Executes commands until one waits, none is complete, or the client does not read."""
        try:
            while self._may_step():
                try:
                    if not self.step():
                        break
                except ReplyError as error:
                    self._answer(error)
                if self._out_size > _BATCH:
                    self.flush()
        except Exception:
            log.exception("command failed", protocol=self.protocol_name)
            self._answer(InternalError())
        self.flush()
        self._regulate()
        if self._eof and self._task is None and self._stalled is None:
            self.close()

    def _may_step(self) -> bool:
        return self._task is None and self._stalled is None and not self._closing

    def _regulate(self) -> None:
        """Stops reading while more than one command line waits behind the one under way."""
        if self.transport.is_closing() or self._upgrading:
            return
        may_step = self._may_step() or self.awaits_client
        if self.backlog() > self.context.limits.command_line and not may_step:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _answer(self, error: ReplyError) -> None:
        self.write(self.reply_error(error))
        if error.counts:
            self.errors += 1
        if error.ends:
            self.close()
        elif self.errors > self.context.limits.errors:
            self.end(Ending.TOO_MANY_ERRORS)

    async def _run(self, work: Coroutine[Any, Any, None], verb: str) -> None:
        begin = self.loop.time()
        try:
            await work
        except ReplyError as error:
            self._answer(error)
        except ConnectionResetError:
            self.close()
        except Exception:
            log.exception("command failed", protocol=self.protocol_name)
            self._answer(InternalError())
        finally:
            self._task = None
            command_seconds(self.protocol_name, verb).observe(self.loop.time() - begin)
        self.touch()
        self.flush()
        if self._at_end is not None:
            self._say_farewell()
        self.pump()

    async def _admit(self) -> None:
        try:
            await check_welcome(self.client, self.context)
        except NotWelcome as error:
            self.write(self.turned_away(error))
            self.close()
        else:
            self.write(self.greeting())

    async def _handshake(self) -> None:
        tls = cast("ServerTls", self.context.tls)
        try:
            transport = await self.loop.start_tls(
                self.transport, self, tls.context, server_side=True
            )
        except (OSError, ssl.SSLError):
            reset(self.transport)
            return
        finally:
            self._upgrading = False
        if transport is None:  # the connection went while it shook hands
            return
        transport.set_write_buffer_limits(high=self.write_high_water)
        self.transport = transport
        self.secure = True
        self.errors = 0
        self.tls_started()

    def _say_farewell(self) -> None:
        if self._closing:
            return
        if self._at_end is not None:
            log.info(
                "session ended by the server",
                protocol=self.protocol_name,
                address=str(self.client.address),
                reason=self._at_end.value,
            )
            self.write(self.farewell(self._at_end))
        self.close()
        self._arm(_LINGER)

    def _arm(self, seconds: float) -> None:
        """Sets the one timer of the connection; `_deadline` says whether it is due for real."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._closing or self._at_end is not None:
            reset(self.transport)
            return
        left = self._deadline - self.loop.time()
        if left <= 0 and self.authenticated and self._task is not None and not self.awaits_client:
            self.touch()
            left = self.context.listener.idle_timeout
        if left > 0:
            self._arm(left)
            return
        if self._upgrading:
            reset(self.transport)
            return
        self._at_end = Ending.IDLE if self.authenticated else Ending.LOGIN_TIMEOUT
        self._say_farewell()
        if self._task is not None:
            self._task.cancel()

    def _watch_stall(self) -> None:
        self._stall_timer = self.loop.call_later(
            self.context.limits.write_timeout, self._check_stall
        )

    def _check_stall(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread < self._unread:
            self._unread = unread
            self._watch_stall()
            return
        log.info("client reads nothing", address=str(self.client.address), unread=unread)
        reset(self.transport)

    def _unstall(self) -> None:
        stalled, self._stalled = self._stalled, None
        if stalled is not None and not stalled.done():
            stalled.set_result(None)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


ConnectionFactory = Callable[[ClientInfo, ListenerContext], Connection]
"""Makes the protocol object of one accepted connection."""
