"""APPEND: the message goes to the NMAP agent as it comes (RFC 3501 6.3.11, RFC 4315, RFC 7889)."""

import asyncio
from typing import TYPE_CHECKING

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.protocol.imap import reader as r
from netmail_pop_imap.protocol.imap.commands import Append
from netmail_pop_imap.protocol.imap.errors import BadCommand, UnexpectedEnd

if TYPE_CHECKING:
    from netmail_pop_imap.adapters.imap_session import ImapSession

CHUNK = 256 * 1024
"""Octets of one part of the call."""

_TIMEOUT = 3600.0
"""Seconds for a whole upload; the idle time-out ends a client that stops sending."""


async def append(session: "ImapSession", command: Append, literal: r.LiteralAnnounced) -> None:
    """Takes the literal and the end of the command; answers after the durable commit."""
    if literal.synchronizing:
        session.write(b"+ OK\r\n")
    session.reader.stream()
    response = await _Upload(session, command, literal.size).run()
    if session.in_mailbox and session.selected.opened.name == command.mailbox:
        await session.sync()
    session.complete("APPEND completed", f"APPENDUID {response.uid_validity} {response.uid}")


class _Upload:
    """The client's octets on their way to the call. What the call does not want is passed over."""

    def __init__(self, session: "ImapSession", command: Append, size: int) -> None:
        self.session = session
        self.command = command
        self.size = size
        self.call = session.stub.AppendMessage(timeout=_TIMEOUT)
        self.wanted = True
        """The call has not failed yet."""

    async def run(self) -> pb.AppendMessageResponse:
        """Raises: ReplyError."""
        try:
            await self._send(pb.AppendMessageRequest(start=self._start()))
            done = self.size == 0
            while not done:
                event = await self._next()
                if not isinstance(event, r.LiteralData):
                    raise UnexpectedEnd("Literal out of place")
                for begin in range(0, len(event.octets), CHUNK):
                    data = event.octets[begin : begin + CHUNK]
                    await self._send(pb.AppendMessageRequest(data=data))
                done = event.last
            await self._end_of_command()
            await self._send(pb.AppendMessageRequest(end=pb.AppendEnd()))
            if self.wanted:
                await self.call.done_writing()
            return await self._answer()
        finally:
            self.call.cancel()  # without its end nothing is kept

    def _start(self) -> pb.AppendStart:
        return pb.AppendStart(
            user_id=self.session.user.user_id,
            mailbox=self.command.mailbox,
            flags=self.command.flags,
            internal_date=self.command.internal_date,
            size=self.size,
        )

    async def _send(self, part: pb.AppendMessageRequest) -> None:
        if not self.wanted:
            return
        try:
            await self.call.write(part)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.wanted = False  # the answer says why, once the client has sent everything

    async def _answer(self) -> pb.AppendMessageResponse:
        try:
            response: pb.AppendMessageResponse = await self.call
        except grpc.aio.AioRpcError as error:
            raise reply_for(error, try_create=True) from None
        return response

    async def _next(self) -> r.Event:
        return await self.session.next_input(self.session.reader.next_event)

    async def _end_of_command(self) -> None:
        """CRLF must follow the literal."""
        event = await self._next()
        if isinstance(event, r.LiteralData) and not event.octets:  # an empty literal
            event = await self._next()
        if isinstance(event, r.CommandLine) and event.octets in {b"", b" "}:
            return
        if isinstance(event, r.LiteralAnnounced):  # MULTIAPPEND is not announced
            self.session.reader.refuse(coming=not event.synchronizing)
            if not event.synchronizing:
                await self._next()
        raise BadCommand("Unexpected text after the message")
