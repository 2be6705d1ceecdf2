"""POP3 connections (RFC 1939): verbs, states, and what they ask of the mailbox."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import ClassVar, cast

from netmail_common.acceptor import ClientInfo
from netmail_common.connmgr.clients_seen import PROBE
from netmail_common.logging import get_logger
from netmail_common.lost_peer import PeerWatch
from netmail_common.nmap import AuthenticatedUser

from netmail_pop_imap.adapters.authentication import (
    authenticate_password,
    authenticate_sasl,
    offered_mechanisms,
    plaintext_allowed,
)
from netmail_pop_imap.adapters.connection import Connection
from netmail_pop_imap.adapters.context import ListenerContext
from netmail_pop_imap.adapters.maildrop import OpenMaildrop, open_maildrop
from netmail_pop_imap.adapters.metrics import COMMANDS, LOGINS
from netmail_pop_imap.domain.login_book import Login
from netmail_pop_imap.domain.maildrop import MaildropMessage
from netmail_pop_imap.domain.session import Ending
from netmail_pop_imap.protocol import pop3
from netmail_pop_imap.protocol.errors import (
    BadCommand,
    LoginRevoked,
    NotWelcome,
    PlaintextRefused,
    ReplyError,
)
from netmail_pop_imap.protocol.pop3 import Command, LineReader, ok

log = get_logger(__name__)

Handler = Callable[["Pop3Connection", Command], None]

_PIECE = 64 * 1024
"""Octets of a message handed to the transport at once."""


class Pop3Connection(Connection):
    """One POP3 client."""

    __slots__ = ("_lines", "_login", "_maildrop", "_user", "_username", "_watch")

    protocol_name = "pop3"

    def __init__(self, client: ClientInfo, context: ListenerContext) -> None:
        super().__init__(client, context)
        self._lines = LineReader()
        self._username: str | None = None
        self._user: AuthenticatedUser | None = None
        self._maildrop: OpenMaildrop | None = None
        self._login: Login | None = None
        self._watch: PeerWatch | None = None

    # What the base class asks for.

    def greeting(self) -> bytes:
        """The banner."""
        return ok(f"{self.context.server.host_name} POP3 ready")

    def turned_away(self, error: NotWelcome) -> bytes:
        """The -ERR line."""
        return error.pop3_reply()

    def feed(self, data: bytes) -> None:
        """To the line reader."""
        self._lines.feed(data)

    def backlog(self) -> int:
        """Octets of lines not executed."""
        return len(self._lines)

    def step(self) -> bool:
        """Executes the next command line."""
        line = self._lines.next_line()
        if line is None:
            return False
        command = pop3.parse_command(line)
        verb = command.verb
        handlers = self._AUTHORIZATION if self._maildrop is None else self._TRANSACTION
        handler = handlers.get(verb)
        if handler is None:
            if verb in self._AUTHORIZATION or verb in self._TRANSACTION:
                raise BadCommand(f"{verb} is not for this state")
            COMMANDS.labels("pop3", "unknown").inc()
            raise BadCommand("unknown command")
        self._COUNTERS[verb].inc()
        handler(self, command)
        return True

    def reply_error(self, error: ReplyError) -> bytes:
        """The -ERR line."""
        return error.pop3_reply()

    def farewell(self, ending: Ending) -> bytes:
        """A line where a reply could be due; else it just closes (RFC 1939 3)."""
        if ending in (Ending.TOO_MANY_ERRORS, Ending.INJECTION):
            return f"-ERR [SYS/PERM] {ending.value}\r\n".encode()
        return b""

    def finished(self) -> None:
        """Nothing is removed without QUIT; the lock goes."""
        if self._watch is not None:
            self._watch.stop()
        self.context.logins.end(self._login)
        self._login = None
        if self._maildrop is not None:
            self._maildrop.abandon()
        if self._user is not None and self.context.server.connection_manager is None:
            self.context.mailbox_hub.leave(self._user, self)

    def user_ended(self) -> None:
        """The NMAP agent says that the user is disabled, or has another password."""
        self.end(Ending.REVOKED)

    def tls_started(self) -> None:
        """What came in the clear is forgotten (RFC 2595 4)."""
        self._username = None
        self._lines = LineReader()

    # AUTHORIZATION

    def _capa(self, command: Command) -> None:
        command.no_argument()
        before = self._maildrop is None
        stls = before and not self.secure and self.context.listener.tls == "starttls"
        self.write(
            pop3.capabilities(
                mechanisms=offered_mechanisms(self),
                user=plaintext_allowed(self),
                stls=stls,
                implementation=None if before else "NetMail",
            )
        )

    def _stls(self, command: Command) -> None:
        command.no_argument()
        if self.secure or self.context.tls is None or self.context.listener.tls != "starttls":
            raise BadCommand("TLS is on already" if self.secure else "TLS is not offered")
        self.upgrade_tls(ok("begin TLS"))

    def _utf8(self, command: Command) -> None:
        command.no_argument()
        self.write(ok("UTF8 enabled"))

    def _xdoctor(self, command: Command) -> None:
        self.start(self._probe(command.text()), "XDOCTOR")

    async def _probe(self, token: str) -> None:
        address = await self.probed(f"{PROBE} {token}")
        if address is None:
            raise BadCommand("unknown command")
        self.write(ok(f"{PROBE} {address}"))

    def _name_user(self, command: Command) -> None:
        username = command.text()
        if not plaintext_allowed(self):
            raise PlaintextRefused  # here already, so that the password is never sent
        self._username = username
        self.write(ok("send PASS"))

    def _pass(self, command: Command) -> None:
        password = command.text()
        username, self._username = self._username, None
        if username is None:
            raise BadCommand("USER first")
        self.start(self._log_in_with_password(username, password), "PASS")

    async def _log_in_with_password(self, username: str, password: str) -> None:
        await self._log_in(await authenticate_password(self, username, password), "USER")

    def _auth(self, command: Command) -> None:
        words = [] if command.rest is None else command.rest.split(b" ")
        if not words:
            self.write(pop3.listing("mechanisms follow", offered_mechanisms(self)))
            return
        if len(words) > 2:
            raise BadCommand("AUTH needs a mechanism and at most an initial response")
        initial = words[1] if len(words) == 2 else None
        mechanism = words[0].decode("ascii", "replace")
        self.start(self._log_in_with_sasl(mechanism, initial), "AUTH")

    async def _log_in_with_sasl(self, mechanism: str, initial: bytes | None) -> None:
        user = await authenticate_sasl(self, mechanism, initial, self._challenge)
        await self._log_in(user, mechanism.upper())

    async def _challenge(self, encoded: bytes) -> bytes | None:
        self.write(pop3.continuation(encoded))
        return await self.next_input(self._lines.next_line)

    async def _log_in(self, user: AuthenticatedUser, mechanism: str) -> None:
        """Lock, mailbox, registration; only then +OK."""
        context = self.context
        maildrop = await open_maildrop(
            context.maildrops, context.mailboxes, user, lock_lost=self._lock_lost
        )
        try:
            self._login = await context.logins.register(self, user, self.client)
        except BaseException as error:
            if isinstance(error, LoginRevoked):
                LOGINS.labels("pop3", "revoked").inc()
            maildrop.abandon()
            raise
        self._user = user
        self._maildrop = maildrop
        if context.server.connection_manager is None:  # else a revocation comes from there
            context.mailbox_hub.enter(user, self)
        self.logged_in()
        self._watch = PeerWatch(self.transport, context.limits.gone_after, self._client_lost)
        LOGINS.labels("pop3", "ok").inc()
        messages, octets = maildrop.content.statistics()
        log.info(
            "logged in",
            protocol="pop3",
            user=str(user),
            address=str(self.client.address),
            mechanism=mechanism,
            tls=self.secure,
            messages=messages,
        )
        self.write(ok(f"{messages} messages ({octets} octets)"))

    def _lock_lost(self) -> None:
        """The NMAP agent went away, and with it the lock: nobody knows what is in the mailbox."""
        self.end(Ending.MAILBOX_LOST)

    def _client_lost(self) -> None:
        """Its host is away, and would keep the mailbox locked for a quarter of an hour."""
        log.info("client is gone", protocol="pop3", address=str(self.client.address))
        self.cut()

    # TRANSACTION

    @property
    def _opened(self) -> OpenMaildrop:
        return cast("OpenMaildrop", self._maildrop)

    def _stat(self, command: Command) -> None:
        command.no_argument()
        messages, octets = self._opened.content.statistics()
        self.write(b"+OK %d %d\r\n" % (messages, octets))

    def _list(self, command: Command) -> None:
        content = self._opened.content
        number = command.optional_number()
        if number is not None:
            self.write(b"+OK %d %d\r\n" % (number, content.message(number).size))
            return
        messages, octets = content.statistics()
        text = f"{messages} messages ({octets} octets)"
        self.write(pop3.listing(text, pop3.numbered(content.sizes())))

    def _uidl(self, command: Command) -> None:
        content = self._opened.content
        number = command.optional_number()
        if number is not None:
            self.write(ok(f"{number} {content.message(number).unique_id}"))
            return
        self.write(pop3.listing("unique ids follow", pop3.numbered(content.unique_ids())))

    def _retr(self, command: Command) -> None:
        message = self._opened.content.message(command.number())
        self.start(self._send_message(message), "RETR")

    def _top(self, command: Command) -> None:
        number, lines = command.numbers(2)
        message = self._opened.content.message(number)
        self.start(self._send_top(message, lines), "TOP")

    async def _send_message(self, message: MaildropMessage) -> None:
        stuffer = pop3.DotStuffer()
        head: bytes | None = ok(f"{message.size} octets")
        async with aclosing(self._opened.octets(message)) as pieces:
            async for piece in pieces:
                if head is not None:
                    self.write(head)
                    head = None
                self.write(stuffer.feed(piece))
                if self.unsent > _PIECE:
                    await self.drained()
        self.write((head or b"") + stuffer.finish())
        self._opened.content.retrieved(message)

    async def _send_top(self, message: MaildropMessage, lines: int) -> None:
        stuffer = pop3.DotStuffer()
        cutter = pop3.TopCutter(lines)
        head: bytes | None = ok("top of message follows")
        async with aclosing(self._opened.top(message, lines)) as pieces:
            async for piece in pieces:
                if head is not None:
                    self.write(head)
                    head = None
                self.write(stuffer.feed(cutter.feed(piece)))
                if self.unsent > _PIECE:
                    await self.drained()
                if cutter.done:
                    break
        self.write((head or b"") + stuffer.finish())

    def _dele(self, command: Command) -> None:
        number = command.number()
        self._opened.content.delete(number)
        self.write(ok(f"message {number} deleted"))

    def _noop(self, command: Command) -> None:
        command.no_argument()
        self.write(ok())

    def _rset(self, command: Command) -> None:
        command.no_argument()
        content = self._opened.content
        content.reset()
        messages, octets = content.statistics()
        self.write(ok(f"{messages} messages ({octets} octets)"))

    # UPDATE

    def _quit(self, command: Command) -> None:
        command.no_argument()
        if self._maildrop is None:
            self._bye()
        else:
            self.start(self._update(self._maildrop), "QUIT")

    async def _update(self, maildrop: OpenMaildrop) -> None:
        """Removes what is marked; the client going away meanwhile does not stop it."""
        task = asyncio.ensure_future(maildrop.update())
        self.context.sessions.finish(task)
        try:
            await asyncio.shield(task)
        except ReplyError as error:
            self.write(error.pop3_reply())
            self.close()
        else:
            self._bye()

    def _bye(self) -> None:
        self.write(ok("bye"))
        self.close()

    _AUTHORIZATION: ClassVar[dict[str, Handler]] = {
        "CAPA": _capa,
        "STLS": _stls,
        "UTF8": _utf8,
        "XDOCTOR": _xdoctor,
        "USER": _name_user,
        "PASS": _pass,
        "AUTH": _auth,
        "QUIT": _quit,
    }
    _TRANSACTION: ClassVar[dict[str, Handler]] = {
        "CAPA": _capa,
        "STAT": _stat,
        "LIST": _list,
        "UIDL": _uidl,
        "RETR": _retr,
        "TOP": _top,
        "DELE": _dele,
        "NOOP": _noop,
        "RSET": _rset,
        "QUIT": _quit,
    }
    _COUNTERS: ClassVar = {
        verb: COMMANDS.labels("pop3", verb) for verb in (*_AUTHORIZATION, *_TRANSACTION)
    }
