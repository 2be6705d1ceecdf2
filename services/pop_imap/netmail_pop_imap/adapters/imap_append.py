"""APPEND: the message goes to the NMAP agent as it comes (RFC 3501 6.3.11, RFC 4315, RFC 7889)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb
from netmail_common.nmap import AppendFailed

from netmail_pop_imap.adapters.imap_errors import reply_for, reply_for_reason
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
    uid_validity, uid = await _Upload(session, command, literal.size).run()
    if session.in_mailbox and session.selected.opened.name == command.mailbox:
        await session.sync()
    session.complete("APPEND completed", f"APPENDUID {uid_validity} {uid}")


class _Upload:
    """The client's octets on their way to the call. What the call does not want is passed over."""

    def __init__(self, session: "ImapSession", command: Append, size: int) -> None:
        self.session = session
        self.command = command
        self.size = size
        self.wanted = True
        """The call has not failed yet."""

    async def run(self) -> tuple[int, int]:
        """Gives UIDVALIDITY and UID. Raises: ReplyError."""
        if self.size <= CHUNK:
            return await self._run_small()
        call = self.session.stub.AppendMessage(timeout=_TIMEOUT)
        try:
            await self._send(call, pb.AppendMessageRequest(start=self._start()))
            async for octets in self._pieces():
                for begin in range(0, len(octets), CHUNK):
                    data = octets[begin : begin + CHUNK]
                    await self._send(call, pb.AppendMessageRequest(data=data))
            await self._end_of_command()
            await self._send(call, pb.AppendMessageRequest(end=pb.AppendEnd()))
            if self.wanted:
                await call.done_writing()
            return await self._answer(call)
        finally:
            call.cancel()  # without its end nothing is kept

    async def _run_small(self) -> tuple[int, int]:
        octets = b"".join([piece async for piece in self._pieces()])
        await self._end_of_command()
        request = pb.AppendSmallMessageRequest(start=self._start(), data=octets)
        session = self.session
        try:
            return await session.context.mailboxes.append_small(session.user.server, request)
        except AppendFailed as error:
            raise reply_for_reason(error.reason, try_create=True) from None

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """The literal as it comes."""
        done = self.size == 0
        while not done:
            event = await self._next()
            if not isinstance(event, r.LiteralData):
                raise UnexpectedEnd("Literal out of place")
            yield event.octets
            done = event.last

    def _start(self) -> pb.AppendStart:
        return pb.AppendStart(
            user_id=self.session.user.user_id,
            mailbox=self.command.mailbox,
            flags=self.command.flags,
            internal_date=self.command.internal_date,
            size=self.size,
        )

    async def _send(self, call: Any, part: pb.AppendMessageRequest) -> None:
        if not self.wanted:
            return
        try:
            await call.write(part)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.wanted = False  # the answer says why, once the client has sent everything

    async def _answer(self, call: Any) -> tuple[int, int]:
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise reply_for(error, try_create=True) from None
        return response.uid_validity, response.uid

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
