"""What every IMAP session does, whatever the command: literals, replies, news of the mailbox."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

import grpc
from netmail_common.acceptor import ClientInfo
from netmail_common.nmap import AuthenticatedUser
from prometheus_client import Counter

from netmail_pop_imap.adapters.connection import Connection
from netmail_pop_imap.adapters.context import ListenerContext
from netmail_pop_imap.adapters.imap_append import append
from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.adapters.imap_hub import MailboxHub, Selected
from netmail_pop_imap.adapters.imap_rows import flag_names, flag_update
from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.domain.imap_states import State
from netmail_pop_imap.domain.login_book import Login
from netmail_pop_imap.domain.session import Ending
from netmail_pop_imap.protocol.errors import ReplyError
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap import reader as r
from netmail_pop_imap.protocol.imap.errors import BadCommand, Refused, UnexpectedEnd
from netmail_pop_imap.protocol.imap.parser import NO_TAG, parse_append, parse_command, tag_of

_MAX_LITERAL = 0xFFFFFFFF
"""Octets; who announces more cannot be followed (RFC 3501: number is 32 bit)."""
_LITERAL_MINUS = 4096
"""Octets of a non-synchronizing literal with LITERAL- (RFC 7888 section 5)."""

Handler = Callable[[Any, Any], Awaitable[None] | None]
"""Executes a command: at once, or by giving what waits for another agent."""


class ImapSession(Connection):
    """One IMAP client; a subclass brings the handlers of the commands."""

    __slots__ = (
        "_idling",
        "_login",
        "_reader",
        "_refusal",
        "_selected",
        "_tag",
        "_user",
        "condstore",
        "hub",
    )

    protocol_name = "imap"

    HANDLERS: ClassVar[dict[str, tuple[frozenset[State], Handler]]]
    """By verb: the states in which it is allowed, and what executes it."""
    COUNTERS: ClassVar[dict[str, Counter]]

    def __init__(self, client: ClientInfo, context: ListenerContext) -> None:
        super().__init__(client, context)
        self.hub: MailboxHub = context.mailbox_hub
        self.condstore = False
        self._reader = r.CommandReader(context.limits.command_line)
        self._tag = NO_TAG
        self._user: AuthenticatedUser | None = None
        self._login: Login | None = None
        self._selected: Selected | None = None
        self._idling = False
        self._refusal: ReplyError | None = None

    # What the base class asks for.

    def feed(self, data: bytes) -> None:
        """To the command reader."""
        self._reader.feed(data)

    def backlog(self) -> int:
        """Octets of commands not executed."""
        return self._reader.backlog

    def step(self) -> bool:
        """Executes the next command, or the next part of one."""
        event = self._reader.next_event()
        match event:
            case None:
                return False
            case r.CommandLine(octets):
                self._execute(octets)
            case r.LiteralAnnounced():
                self._announced(event)
            case r.Line(octets):
                self._end_idle(octets)
            case r.Discarded():
                refusal, self._refusal = self._refusal, None
                raise refusal or BadCommand("Command refused")
            case r.Overlong(octets):
                self._tag = tag_of(octets)
                raise BadCommand("Command line is too long", "TOOBIG")
            case r.Endless(octets):
                self._tag = tag_of(octets)
                raise UnexpectedEnd("Line without end")
            case r.LiteralData():
                raise UnexpectedEnd("Literal out of place")
        return True

    def reply_error(self, error: ReplyError) -> bytes:
        """The tagged NO or BAD."""
        code = b"" if error.imap_code is None else b"[%b] " % error.imap_code
        text = error.text.encode("ascii", "replace")
        tag = self._tag.encode("ascii")
        reply = b"%b %b %b%b\r\n" % (tag, error.imap_status.value, code, text)
        return reply + b"* BYE Closing connection\r\n" if error.ends else reply

    def farewell(self, ending: Ending) -> bytes:
        """BYE."""
        code = "[UNAVAILABLE] " if ending is Ending.SHUTDOWN else ""
        return f"* BYE {code}{ending.value}\r\n".encode("ascii")

    def finished(self) -> None:
        """The session lets go of everything."""
        self.leave_mailbox()
        self.context.logins.end(self._login)
        self._login = None
        if self._user is not None:
            self.hub.leave(self._user, self)
            self._user = None

    def tls_started(self) -> None:
        """What came in the clear is forgotten (RFC 3501 6.2.1)."""
        self._reader = r.CommandReader(self.context.limits.command_line)

    # What the commands need.

    @property
    def user(self) -> AuthenticatedUser:
        """Who logged in."""
        return cast("AuthenticatedUser", self._user)

    @property
    def stub(self) -> Any:
        """The MailboxService that holds the user."""
        return self.hub.stub(self.user.server)

    @property
    def in_mailbox(self) -> bool:
        """A mailbox is selected."""
        return self._selected is not None

    @property
    def selected(self) -> Selected:
        """The selected mailbox."""
        return cast("Selected", self._selected)

    @property
    def view(self) -> View:
        """What this session knows of it."""
        return self.selected.view

    @property
    def tag(self) -> str:
        """Of the command under way."""
        return self._tag

    @property
    def reader(self) -> r.CommandReader:
        """Cuts what the client sends."""
        return self._reader

    def complete(self, text: str, code: str = "", *, expunge: bool = True) -> None:
        """Tells what changed, then answers the command with OK.

        Args:
            text: for people.
            code: response code without brackets.
            expunge: EXPUNGE may be told (RFC 3501 7.4.1: not during FETCH, STORE, SEARCH).
        """
        self.tell_updates(expunge=expunge)
        code = f"[{code}] " if code else ""
        self.write(f"{self._tag} OK {code}{text}\r\n".encode("ascii", "replace"))

    def tell_updates(self, *, expunge: bool) -> None:
        """Writes what the session has not been told of its mailbox."""
        if self._selected is None or not self.view.has_updates:
            return
        view = self.view
        updates = view.take_updates(expunge=expunge)
        out = [b"* %d EXPUNGE\r\n" % number for number in updates.expunged]
        if updates.exists is not None:
            out.append(b"* %d EXISTS\r\n* %d RECENT\r\n" % (updates.exists, view.recent_count()))
        if updates.keywords:
            out.append(self.flags_line(view))
        out += [
            flag_update(view, number, uid, modseq=self.condstore) for number, uid in updates.flags
        ]
        self.write(b"".join(out))

    def enable_condstore(self) -> None:
        """From now on modseqs are told (RFC 7162 3.1)."""
        if self.condstore:
            return
        self.condstore = True
        if self._selected is not None:
            modseq = self.view.mailbox.modseq
            self.write(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % modseq)

    async def sync(self) -> None:
        """Brings what this session itself changed in its mailbox by another way."""
        try:
            await self.hub.sync(self.selected.opened)
        except grpc.aio.AioRpcError as error:
            raise reply_for(error) from None

    def leave_mailbox(self) -> None:
        """Back to the authenticated state."""
        selected, self._selected = self._selected, None
        if selected is not None:
            self.hub.release(selected)

    def user_ended(self) -> None:
        """The user was disabled, or has another password."""
        self.end(Ending.REVOKED)

    # Commands and literals.

    @property
    def state(self) -> State:
        """Which commands make sense now."""
        if self._selected is not None:
            return State.SELECTED
        return State.AUTHENTICATED if self._user is not None else State.NOT_AUTHENTICATED

    def _execute(self, octets: bytes) -> None:
        self._tag = tag_of(octets)
        command = parse_command(octets)
        states, handler = self.HANDLERS[command.name]
        self.COUNTERS[command.name].inc()
        if self.state not in states:
            raise BadCommand(f"{command.name} is not allowed now")
        result = handler(self, command)
        if result is not None:
            self.start(cast("Any", result), command.name)

    def _announced(self, event: r.LiteralAnnounced) -> None:
        self._tag = tag_of(event.prefix)
        limits = self.context.limits
        try:
            if event.size > _MAX_LITERAL:
                raise UnexpectedEnd("Literal is too long")
            command = parse_append(event.prefix)
            if command is not None:
                self._begin_append(command, event)
                return
            limit = limits.command_line if self.authenticated else limits.literal_before_login
            if len(event.prefix) + event.size > limit:
                raise BadCommand("Literal is too long", "TOOBIG")
            self._check_literal(event)
        except ReplyError as error:
            self._refuse(event, error)
            return
        if event.synchronizing:
            self.write(b"+ OK\r\n")
        self._reader.collect()

    def _check_literal(self, event: r.LiteralAnnounced) -> None:
        if event.binary:
            raise BadCommand("Binary literals are not supported")
        minus = self.context.limits.non_sync_literals == "LITERAL-"
        if minus and not event.synchronizing and event.size > _LITERAL_MINUS:
            raise BadCommand("Non-synchronizing literal is too long", "TOOBIG")

    def _refuse(self, event: r.LiteralAnnounced, error: ReplyError) -> None:
        """The reply comes when what the client sends anyway has been passed over."""
        coming = not event.synchronizing and not error.ends
        self._reader.refuse(coming=coming)
        if not coming:
            raise error
        self._refusal = error

    def _begin_append(self, command: c.Append, event: r.LiteralAnnounced) -> None:
        self.COUNTERS["APPEND"].inc()
        if self._user is None:
            raise BadCommand("APPEND is not allowed now")
        self._check_literal(event)
        if event.size > self.context.limits.literal:
            raise Refused("Message is too big", "TOOBIG")
        self.start(append(self, command, event), "APPEND")

    # News.

    @staticmethod
    def flags_line(view: View) -> bytes:
        """FLAGS: what the mailbox knows."""
        return b"* FLAGS (%b)\r\n" % b" ".join(flag_names(view))

    def changed(self) -> None:
        """Something waits to be told; in IDLE it is told at once."""
        if self._selected is None or self.closing:
            return
        if self._selected.opened.gone:
            self.end(Ending.MAILBOX_DELETED)
        elif self._idling:
            self.loop.call_soon(self._tell_idle)

    def _tell_idle(self) -> None:
        if self._idling and not self.closing and not self.stalled:
            self.tell_updates(expunge=True)
            self.flush()

    def resume_writing(self) -> None:
        """The client reads again: what it missed in IDLE is told now."""
        super().resume_writing()
        self._tell_idle()

    def idle(self, _command: c.Command) -> None:
        """IDLE (RFC 2177): news leave at once, until DONE."""
        self._idling = True
        self._reader.expect_line()
        self.write(b"+ idling\r\n")
        self.tell_updates(expunge=True)

    def _end_idle(self, line: bytes) -> None:
        self._idling = False
        if line.upper() != b"DONE":
            raise BadCommand("Expected DONE")
        self.complete("IDLE completed")
