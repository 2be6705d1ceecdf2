"""The mailbox behind a POP3 session: its lock, its messages, and the changes at QUIT."""

import asyncio
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import grpc
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser, MailboxClients

from netmail_pop_imap.adapters.maildrop_stream import (
    MaildropSession,
    MaildropStreams,
    Result,
    StreamBroken,
)
from netmail_pop_imap.domain.maildrop import Maildrop, MaildropMessage, NoSuchMessage
from netmail_pop_imap.protocol.errors import MailboxInUse, ReplyError, Unavailable

log = get_logger(__name__)

_STEP_TIMEOUT = 30.0
_UPDATE_TIMEOUT = 60.0
_SMALL = 256 * 1024
"""Octets of a message that comes in one piece by the shared stream; a larger one has its own."""
_TOP_FIRST = 16 * 1024
"""Octets asked for first by TOP, besides 100 for each line."""

_LOCK_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.0)
"""Seconds between tries for the lock: another worker's session may just be giving it back."""

_OK = mailbox_pb2.MAILDROP_OUTCOME_OK
_IN_USE = mailbox_pb2.MAILDROP_OUTCOME_IN_USE
_GONE = mailbox_pb2.MAILDROP_OUTCOME_GONE


class NotAllRemoved(ReplyError):
    """QUIT could not do its work; the messages are still there (RFC 1939 6)."""

    pop3_code = b"SYS/TEMP"
    default_text = "some deleted messages were not removed"


class OpenMaildrop:
    """A locked mailbox and what a POP3 session does with it."""

    __slots__ = ("_clients", "_session", "_user", "content")

    def __init__(
        self,
        clients: MailboxClients,
        user: AuthenticatedUser,
        session: MaildropSession,
        content: Maildrop,
    ) -> None:
        self.content = content
        self._clients = clients
        self._user = user
        self._session = session

    async def octets(self, message: MaildropMessage) -> AsyncGenerator[bytes, None]:
        """The message in pieces.

        Raises: NoSuchMessage, Unavailable before the first piece; ConnectionResetError after it,
        since then only the end of the connection tells the client.
        """
        if message.size > _SMALL:
            async with aclosing(self._range(message)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        try:
            async with asyncio.timeout(_STEP_TIMEOUT):
                result = await self._session.retrieve(message.uid)
        except StreamBroken:
            raise Unavailable from None
        except TimeoutError:
            raise ConnectionResetError from None  # a late answer would be taken for the next one
        if result.outcome == _GONE:
            raise NoSuchMessage  # an IMAP session has expunged it
        if result.outcome != _OK:
            raise Unavailable
        yield result.body

    async def top(self, message: MaildropMessage, lines: int) -> AsyncGenerator[bytes, None]:
        """As many octets as TOP probably needs, then the rest. Raises: as `octets`."""
        probable = min(_TOP_FIRST + 100 * lines, message.size)
        async with aclosing(self._range(message, length=probable)) as pieces:
            async for piece in pieces:
                yield piece
        if probable < message.size:
            async with aclosing(self._range(message, offset=probable)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _range(
        self, message: MaildropMessage, *, offset: int = 0, length: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Octets from an offset on; `length` of them, 0: to the end."""
        call = self._clients.for_server(self._user.server).FetchMessages(
            mailbox_pb2.FetchMessagesRequest(
                user_id=self._user.user_id,
                mailbox_id=self.content.mailbox_id,
                uids=[message.uid],
                body=True,
                body_offset=offset,
                body_length=length,
            )
        )
        begun = False
        try:
            async for response in call:
                for part in response.messages:
                    begun = True
                    yield part.body
        except grpc.aio.AioRpcError as error:
            log.warning("message not read", user=str(self._user), code=error.code().name)
            if begun or offset:
                raise ConnectionResetError from None
            raise Unavailable from None
        finally:
            call.cancel()
        if not begun:
            if offset:
                raise ConnectionResetError
            raise NoSuchMessage

    async def update(self) -> None:
        """Removes what is marked as deleted, durably, and gives the lock back.

        Raises: NotAllRemoved.
        """
        remove, seen = self.content.to_remove(), self.content.to_flag_seen()
        if not remove and not seen:
            self._session.abandon()
            return
        try:
            async with asyncio.timeout(_UPDATE_TIMEOUT):
                result = await self._session.close(remove, seen)
            done = result.outcome == _OK
        except (StreamBroken, TimeoutError):
            done = False
        if not done:
            log.warning("messages not removed", user=str(self._user), messages=len(remove))
            if remove:
                raise NotAllRemoved

    def abandon(self) -> None:
        """Gives the lock back without waiting; nothing is removed."""
        self._session.abandon()


async def open_maildrop(
    streams: MaildropStreams,
    clients: MailboxClients,
    user: AuthenticatedUser,
    *,
    lock_lost: Callable[[], None],
) -> OpenMaildrop:
    """Locks a user's INBOX and reads the list of its messages.

    Args:
        streams: to the NMAP agents; his Messaging Server's holds the user.
        clients: of the same, for large messages.
        user: whose INBOX.
        lock_lost: called if the lock goes away without our doing.

    Raises: MailboxInUse, Unavailable.
    """
    for pause in _LOCK_PAUSES:
        session = streams.session(user.server, lock_lost)
        results = await _open(session, user)
        if results[0].outcome == _OK:
            return OpenMaildrop(clients, user, session, _content(results))
        if results[0].outcome != _IN_USE:
            raise Unavailable
        await asyncio.sleep(pause)
    raise MailboxInUse


async def _open(session: MaildropSession, user: AuthenticatedUser) -> list[Result]:
    try:
        async with asyncio.timeout(_STEP_TIMEOUT):
            return await session.open(user.user_id)
    except (StreamBroken, TimeoutError):
        session.abandon()
        log.warning("mailbox not opened", user=str(user), server=user.server)
        raise Unavailable from None
    except BaseException:
        session.abandon()
        raise


def _content(results: Sequence[Result]) -> Maildrop:
    uids, sizes = array("I"), array("Q")
    unique_ids: list[str] = []
    seen: set[int] = set()
    for result in results:
        columns = result.messages
        uids.extend(columns.uids)
        sizes.extend(columns.sizes)
        # A copy within the mailbox has the object id of its original, but a UID of its own.
        unique_ids.extend(
            f"{object_id}.{uid}"
            for object_id, uid in zip(columns.object_ids, columns.uids, strict=True)
        )
        sets = {at for at, flags in enumerate(columns.flag_sets) if "\\Seen" in flags.split(" ")}
        seen.update(
            uid for uid, at in zip(columns.uids, columns.flag_set, strict=True) if at in sets
        )
    return Maildrop(results[0].mailbox_id, uids, sizes, unique_ids, frozenset(seen))
