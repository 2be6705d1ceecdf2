"""One stream to an NMAP agent that says which of the watched mailboxes changed."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.logging import get_logger

log = get_logger(__name__)

_FIRST_DELAY = 0.1
_MAX_DELAY = 2.0


class _Watched:
    """Ids to be watched, and what of them the other side has not been sent.

    An id that is added again is sent again: its answer says what was missed in between.
    """

    def __init__(self) -> None:
        self._all: set[int] = set()
        self._added: set[int] = set()
        self._removed: set[int] = set()

    def add(self, item: int) -> None:
        self._all.add(item)
        self._added.add(item)
        self._removed.discard(item)

    def remove(self, item: int) -> None:
        self._all.discard(item)
        self._added.discard(item)
        self._removed.add(item)

    def start_over(self) -> None:
        self._added = set(self._all)
        self._removed.clear()

    def take(self) -> tuple[set[int], set[int]]:
        added, removed = self._added, self._removed
        self._added, self._removed = set(), set()
        return added, removed


class MailboxWatch:
    """Keeps a WatchMailboxes stream while there is something to watch; comes back when it breaks.

    After each (re)connection everything is added again, and the agent answers each mailbox with its
    modseq, so nothing is missed.

    Args:
        stub: gives the MailboxService stub.
        on_change: called for each change.
        on_user_ended: called with the id of a user whose sessions must end.
    """

    def __init__(
        self,
        stub: Callable[[], Any],
        *,
        on_change: Callable[[mailbox_pb2.MailboxChange], None],
        on_user_ended: Callable[[int], None],
    ) -> None:
        self._stub = stub
        self._on_change = on_change
        self._on_user_ended = on_user_ended
        self._mailboxes = _Watched()
        self._users = _Watched()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add_mailbox(self, mailbox_id: int) -> None:
        """Watches it; it is answered once at once."""
        self._mailboxes.add(mailbox_id)
        self._changed()

    def remove_mailbox(self, mailbox_id: int) -> None:
        """Watches it no more."""
        self._mailboxes.remove(mailbox_id)
        self._changed()

    def add_user(self, user_id: int) -> None:
        """Watches whether the user's sessions must end."""
        self._users.add(user_id)
        self._changed()

    def remove_user(self, user_id: int) -> None:
        """Watches no more."""
        self._users.remove(user_id)
        self._changed()

    async def close(self) -> None:
        """Ends the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _changed(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            call = self._stub().WatchMailboxes()
            self._mailboxes.start_over()
            self._users.start_over()
            self._wake.set()
            writer = asyncio.get_running_loop().create_task(self._write(call))
            try:
                async for response in call:
                    delay = _FIRST_DELAY
                    self._take(response)
                log.warning("mailbox watch ended")
            except grpc.aio.AioRpcError as error:
                log.warning("mailbox watch lost", code=error.code().name)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                call.cancel()
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY)

    def _take(self, response: mailbox_pb2.WatchMailboxesResponse) -> None:
        for change in response.changes:
            self._on_change(change)
        for user_id in response.ended_user_ids:
            self._on_user_ended(user_id)

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            add_mailboxes, remove_mailboxes = self._mailboxes.take()
            add_users, remove_users = self._users.take()
            request = mailbox_pb2.WatchMailboxesRequest(
                add_mailbox_ids=add_mailboxes,
                remove_mailbox_ids=remove_mailboxes,
                add_user_ids=add_users,
                remove_user_ids=remove_users,
            )
            if request.ByteSize():
                await call.write(request)
