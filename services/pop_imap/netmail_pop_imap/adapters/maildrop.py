"""The mailbox behind a POP3 session: its lock, its messages, and the changes at QUIT."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser, MailboxClients

from netmail_pop_imap.domain.maildrop import Maildrop, MaildropMessage, NoSuchMessage
from netmail_pop_imap.protocol.errors import MailboxInUse, ReplyError, Unavailable

log = get_logger(__name__)

INBOX = "INBOX"
_OPEN_TIMEOUT = 30.0
_UPDATE_TIMEOUT = 60.0
_TOP_FIRST = 16 * 1024
"""Octets asked for first by TOP, besides 100 for each line."""


class NotAllRemoved(ReplyError):
    """QUIT could not do its work; the messages are still there (RFC 1939 6)."""

    pop3_code = b"SYS/TEMP"
    default_text = "some deleted messages were not removed"


class _Lock:
    """The exclusive lock: held while its stream lives."""

    def __init__(self, call: Any, lost: Callable[[], None]) -> None:
        self._call = call
        self._lost: Callable[[], None] | None = lost
        call.add_done_callback(self._done)

    async def acquire(self, user_id: int) -> None:
        """Raises: MailboxInUse, grpc.aio.AioRpcError."""
        await self._call.write(mailbox_pb2.LockMailboxRequest(user_id=user_id, name=INBOX))
        answer = await self._call.read()
        if not isinstance(answer, mailbox_pb2.LockMailboxResponse) or not answer.held:
            self.abandon()
            raise MailboxInUse

    async def release(self) -> None:
        """Gives it back; when this returns the next session can have it."""
        self._lost = None
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._call.done_writing()
            await self._call.read()

    def abandon(self) -> None:
        """Gives it back without waiting."""
        self._lost = None
        self._call.cancel()

    def _done(self, _call: Any) -> None:
        if self._lost is not None:
            self._lost()


class OpenMaildrop:
    """A locked mailbox and what a POP3 session does with it."""

    def __init__(
        self, clients: MailboxClients, user: AuthenticatedUser, lock: _Lock, content: Maildrop
    ) -> None:
        self.content = content
        self._clients = clients
        self._user = user
        self._lock = lock

    async def octets(
        self, message: MaildropMessage, *, offset: int = 0, length: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The message in pieces, from an offset on; `length` octets, 0: to its end.

        Raises: NoSuchMessage, Unavailable before the first piece; ConnectionResetError after it,
        since then only the end of the connection tells the client.
        """
        call = self._stub().FetchMessages(
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
            if begun:
                raise ConnectionResetError from None
            raise Unavailable from None
        finally:
            call.cancel()
        if not begun:
            raise NoSuchMessage  # an IMAP session has expunged it

    async def top(self, message: MaildropMessage, lines: int) -> AsyncGenerator[bytes, None]:
        """As many octets as TOP probably needs, then the rest. Raises: as `octets`."""
        probable = min(_TOP_FIRST + 100 * lines, message.size)
        async with aclosing(self.octets(message, length=probable)) as pieces:
            async for piece in pieces:
                yield piece
        if probable < message.size:
            async with aclosing(self.octets(message, offset=probable)) as pieces:
                async for piece in pieces:
                    yield piece

    async def update(self) -> None:
        """Removes what is marked as deleted, durably, and gives the lock back.

        Raises: NotAllRemoved.
        """
        remove, seen = self.content.to_remove(), self.content.to_flag_seen()
        try:
            if remove:
                await self._stub().ExpungeMessages(
                    mailbox_pb2.ExpungeMessagesRequest(
                        user_id=self._user.user_id,
                        mailbox_id=self.content.mailbox_id,
                        uids=remove,
                    ),
                    timeout=_UPDATE_TIMEOUT,
                )
            if seen:
                await self._flag_seen(seen)
        except grpc.aio.AioRpcError as error:
            log.warning(
                "messages not removed",
                user=str(self._user),
                messages=len(remove),
                code=error.code().name,
            )
            self.abandon()
            raise NotAllRemoved from None
        await self.release()

    async def _flag_seen(self, uids: list[int]) -> None:
        call = self._stub().StoreFlags(
            mailbox_pb2.StoreFlagsRequest(
                user_id=self._user.user_id,
                mailbox_id=self.content.mailbox_id,
                uids=uids,
                mode=mailbox_pb2.STORE_MODE_ADD,
                flags=["\\Seen"],
            ),
            timeout=_UPDATE_TIMEOUT,
        )
        async for _ in call:
            pass

    async def release(self) -> None:
        """Gives the lock back and waits for it."""
        await self._lock.release()

    def abandon(self) -> None:
        """Gives the lock back without waiting; nothing is removed."""
        self._lock.abandon()

    def _stub(self) -> Any:
        return self._clients.for_server(self._user.server)


async def open_maildrop(
    clients: MailboxClients, user: AuthenticatedUser, *, lock_lost: Callable[[], None]
) -> OpenMaildrop:
    """Locks a user's INBOX and reads the list of its messages.

    Args:
        clients: of the NMAP agents.
        user: whose INBOX; his Messaging Server's agent holds it.
        lock_lost: called if the lock goes away without our doing.

    Raises: MailboxInUse, Unavailable.
    """
    stub: Any = clients.for_server(user.server)
    lock = _Lock(stub.LockMailbox(), lock_lost)
    try:
        async with asyncio.timeout(_OPEN_TIMEOUT):
            await lock.acquire(user.user_id)
            content = await _read_content(stub, user)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        lock.abandon()
        log.warning("mailbox not opened", user=str(user), error=type(error).__name__)
        raise Unavailable from None
    except BaseException:
        lock.abandon()
        raise
    return OpenMaildrop(clients, user, lock, content)


async def _read_content(stub: Any, user: AuthenticatedUser) -> Maildrop:
    mailbox_id = 0
    uids, sizes = array("I"), array("Q")
    unique_ids: list[str] = []
    seen: set[int] = set()
    call = stub.OpenMailbox(
        mailbox_pb2.OpenMailboxRequest(
            user_id=user.user_id, name=INBOX, read_only=True, with_sizes=True, with_object_ids=True
        )
    )
    async for response in call:
        if response.HasField("state"):
            mailbox_id = response.state.mailbox_id
        columns = response.messages
        uids.extend(columns.uids)
        sizes.extend(columns.sizes)
        unique_ids.extend(columns.object_ids)
        sets = {at for at, flags in enumerate(columns.flag_sets) if "\\Seen" in flags.split(" ")}
        seen.update(
            uid for uid, at in zip(columns.uids, columns.flag_set, strict=True) if at in sets
        )
    return Maildrop(mailbox_id, uids, sizes, unique_ids, frozenset(seen))
