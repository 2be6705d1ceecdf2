"""MailboxService: POP3 and IMAP's access to mail."""
# ruff: noqa: ARG002 - gRPC hands every method a context

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from netmail.nmap.v1 import mailbox_pb2 as pb
from netmail.nmap.v1 import mailbox_pb2_grpc

from netmail_nmap.adapters.grpc_convert import columns_to, mailbox_to, search_key_from, state_to
from netmail_nmap.adapters.grpc_maildrops import MaildropStream
from netmail_nmap.adapters.grpc_streams import answer_in_turn
from netmail_nmap.adapters.grpc_uploads import abandoned_unless_done, receive
from netmail_nmap.domain.delivery import MAX_INLINE_BODY
from netmail_nmap.domain.ended_users import EndedUsers
from netmail_nmap.domain.errors import InvalidRequest, MessageTooBig, NmapError
from netmail_nmap.domain.mail import (
    AppendTarget,
    FetchedMessage,
    FetchRequest,
    MailboxView,
    MessageColumns,
    OpenRequest,
    StoreMode,
    StoreRequest,
)
from netmail_nmap.domain.store import MailStore, Watch

_ROWS = 50_000
"""Messages in one response of a listing."""
_UIDS = 100_000
_MODES = {
    pb.STORE_MODE_REPLACE: StoreMode.REPLACE,
    pb.STORE_MODE_ADD: StoreMode.ADD,
    pb.STORE_MODE_REMOVE: StoreMode.REMOVE,
}

T = TypeVar("T")


class _Store(Protocol):
    @property
    def mail(self) -> MailStore: ...

    @property
    def ended_users(self) -> EndedUsers: ...


class MailboxService(mailbox_pb2_grpc.MailboxServiceServicer):
    """Serves the mailboxes of one store. Roles are checked before it.

    Args:
        store: mailboxes and the users whose sessions end.
        max_message_size: octets of an appended message.
    """

    def __init__(self, store: _Store, *, max_message_size: int) -> None:
        self._mail = store.mail
        self._ended_users = store.ended_users
        self._max_message_size = max_message_size
        self._stop = asyncio.Event()

    def limit(self, max_message_size: int) -> None:
        """Takes messages of so many octets from now on."""
        self._max_message_size = max_message_size

    def drain(self) -> None:
        """Ends the streams that would not end by themselves: watches, locks, maildrops."""
        self._stop.set()

    # -- mailboxes -----------------------------------------------------------------------------

    async def ListMailboxes(
        self, request: pb.ListMailboxesRequest, context: Any
    ) -> pb.ListMailboxesResponse:
        """LIST, LSUB, STATUS."""
        infos = await self._mail.list_mailboxes(
            request.user_id, name=request.name, with_status=request.with_status
        )
        return pb.ListMailboxesResponse(mailboxes=[mailbox_to(info) for info in infos])

    async def CreateMailbox(
        self, request: pb.CreateMailboxRequest, context: Any
    ) -> pb.CreateMailboxResponse:
        """CREATE."""
        info = await self._mail.create_mailbox(request.user_id, request.name, request.special_use)
        return pb.CreateMailboxResponse(mailbox=mailbox_to(info))

    async def DeleteMailbox(
        self, request: pb.DeleteMailboxRequest, context: Any
    ) -> pb.DeleteMailboxResponse:
        """DELETE."""
        await self._mail.delete_mailbox(request.user_id, request.name)
        return pb.DeleteMailboxResponse()

    async def RenameMailbox(
        self, request: pb.RenameMailboxRequest, context: Any
    ) -> pb.RenameMailboxResponse:
        """RENAME."""
        await self._mail.rename_mailbox(request.user_id, request.from_name, request.to_name)
        return pb.RenameMailboxResponse()

    async def SetSubscribed(
        self, request: pb.SetSubscribedRequest, context: Any
    ) -> pb.SetSubscribedResponse:
        """SUBSCRIBE, UNSUBSCRIBE."""
        await self._mail.set_subscribed(
            request.user_id, request.name, subscribed=request.subscribed
        )
        return pb.SetSubscribedResponse()

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Any) -> pb.GetQuotaResponse:
        """What the user's mail occupies, and may."""
        quota = await self._mail.quota(request.user_id)
        return pb.GetQuotaResponse(used_bytes=quota.used_bytes, limit_bytes=quota.limit_bytes)

    # -- sessions ------------------------------------------------------------------------------

    async def OpenMailbox(
        self, request: pb.OpenMailboxRequest, context: Any
    ) -> AsyncIterator[pb.OpenMailboxResponse]:
        """SELECT: state and messages, or what changed since the caller last saw them."""
        view = await self._mail.open_mailbox(_open_request(request))
        expunged = _parts(view.expunged_uids)
        yield pb.OpenMailboxResponse(
            state=state_to(view.state), delta=view.delta, expunged_uids=next(expunged, ())
        )
        for uids in expunged:
            yield pb.OpenMailboxResponse(delta=view.delta, expunged_uids=uids)
        for columns in _pages(view.messages):
            yield pb.OpenMailboxResponse(messages=columns, delta=view.delta)

    async def OpenMailboxes(
        self, request: pb.OpenMailboxesRequest, context: Any
    ) -> pb.OpenMailboxesResponse:
        """Several of these in one call."""
        views = await self._mail.open_mailboxes([_open_request(r) for r in request.requests])
        return pb.OpenMailboxesResponse(
            results=[_opened_to(view, request.max_messages) for view in views]
        )

    async def SyncMailbox(
        self, request: pb.SyncMailboxRequest, context: Any
    ) -> AsyncIterator[pb.SyncMailboxResponse]:
        """What changed since a modseq."""
        view = await self._mail.sync_mailbox(
            request.user_id,
            request.mailbox_id,
            request.since_modseq,
            claim_recent=request.claim_recent,
        )
        expunged, pages = _parts(view.expunged_uids), _pages(view.messages)
        yield pb.SyncMailboxResponse(
            state=state_to(view.state),
            expunged_uids=next(expunged, ()),
            changed=next(pages, None),
        )
        for uids in expunged:
            yield pb.SyncMailboxResponse(expunged_uids=uids)
        for columns in pages:
            yield pb.SyncMailboxResponse(changed=columns)

    async def WatchMailboxes(
        self, request_iterator: AsyncIterable[pb.WatchMailboxesRequest], context: Any
    ) -> AsyncIterator[pb.WatchMailboxesResponse]:
        """Tells of changes as they are committed, until the client ends or the agent drains."""
        users: set[int] = set()
        ended: asyncio.Queue[int] = asyncio.Queue()

        def hear(user_id: int) -> None:
            if user_id in users:
                ended.put_nowait(user_id)

        async with self._mail.watch() as watch:
            with self._ended_users.listening(hear):
                reader = asyncio.create_task(_follow(request_iterator, watch, users))
                async for response in self._watched(watch, ended, reader):
                    yield response

    async def _watched(
        self, watch: Watch, ended: asyncio.Queue[int], reader: asyncio.Task[None]
    ) -> AsyncIterator[pb.WatchMailboxesResponse]:
        stopped = asyncio.create_task(self._stop.wait())
        changes = asyncio.create_task(_awaited(watch.changes()))
        users = asyncio.create_task(ended.get())
        try:
            while True:
                await asyncio.wait(
                    (stopped, reader, changes, users), return_when=asyncio.FIRST_COMPLETED
                )
                response = pb.WatchMailboxesResponse()
                if changes.done():
                    for change in changes.result():
                        response.changes.add(
                            mailbox_id=change.mailbox_id,
                            highest_modseq=change.highest_modseq,
                            gone=change.gone,
                        )
                    changes = asyncio.create_task(_awaited(watch.changes()))
                if users.done():
                    response.ended_user_ids.append(users.result())
                    users = asyncio.create_task(ended.get())
                if response.changes or response.ended_user_ids:
                    yield response
                if reader.done():
                    reader.result()
                    return
                if stopped.done():
                    return
        finally:
            for task in (stopped, changes, users, reader):
                task.cancel()
            await asyncio.gather(stopped, changes, users, reader, return_exceptions=True)

    async def UseMaildrops(  # type: ignore[override] # writes instead of yielding
        self, request_iterator: AsyncIterable[pb.UseMaildropsRequest], context: Any
    ) -> None:
        """Carries the POP3 sessions of a client process."""
        stream = MaildropStream(self._mail, context.write)
        await stream.run(request_iterator, self._stop)

    # -- messages ------------------------------------------------------------------------------

    async def FetchMessages(
        self, request: pb.FetchMessagesRequest, context: Any
    ) -> AsyncIterator[pb.FetchMessagesResponse]:
        """FETCH."""
        wanted = FetchRequest(
            request.user_id,
            request.mailbox_id,
            sorted(set(request.uids)),
            header=request.header,
            body=request.body,
            flags=request.flags,
            size=request.size,
            internal_date=request.internal_date,
            modseq=request.modseq,
            object_id=request.object_id,
            save_date=request.save_date,
            changed_since=request.changed_since,
            body_offset=request.body_offset,
            body_length=request.body_length,
            set_seen=request.set_seen,
        )
        make = _fetched_to(wanted)
        async for batch in self._mail.fetch(wanted):
            yield pb.FetchMessagesResponse(messages=[make(message) for message in batch])

    async def SearchMessages(
        self, request: pb.SearchMessagesRequest, context: Any
    ) -> AsyncIterator[pb.SearchMessagesResponse]:
        """SEARCH."""
        found = await self._mail.search(
            request.user_id,
            request.mailbox_id,
            search_key_from(request.key),
            tuple(request.uids),
        )
        parts = _parts(found.uids)
        yield pb.SearchMessagesResponse(uids=next(parts, ()), highest_modseq=found.highest_modseq)
        for uids in parts:
            yield pb.SearchMessagesResponse(uids=uids)

    async def StoreFlags(
        self, request: pb.StoreFlagsRequest, context: Any
    ) -> AsyncIterator[pb.StoreFlagsResponse]:
        """STORE."""
        mode = _MODES.get(request.mode)
        if mode is None:
            raise InvalidRequest("flags are stored in no known way")
        stored = await self._mail.store_flags(
            StoreRequest(
                request.user_id,
                request.mailbox_id,
                tuple(request.uids),
                mode,
                tuple(request.flags),
                request.unchanged_since if request.HasField("unchanged_since") else None,
            )
        )
        modified, pages = _parts(stored.modified_uids), _pages(stored.changed)
        yield pb.StoreFlagsResponse(
            changed=next(pages, None),
            modified_uids=next(modified, ()),
            highest_modseq=stored.highest_modseq,
            previous_modseq=stored.previous_modseq,
        )
        for uids in modified:
            yield pb.StoreFlagsResponse(modified_uids=uids)
        for columns in pages:
            yield pb.StoreFlagsResponse(changed=columns)

    async def CopyMessages(
        self, request: pb.CopyMessagesRequest, context: Any
    ) -> pb.CopyMessagesResponse:
        """COPY."""
        copied = await self._mail.copy(
            request.user_id, request.mailbox_id, tuple(request.uids), request.to_name
        )
        return pb.CopyMessagesResponse(
            uid_validity=copied.uid_validity,
            source_uids=copied.source_uids,
            target_uids=copied.target_uids,
        )

    async def MoveMessages(
        self, request: pb.MoveMessagesRequest, context: Any
    ) -> pb.MoveMessagesResponse:
        """MOVE."""
        moved = await self._mail.move(
            request.user_id, request.mailbox_id, tuple(request.uids), request.to_name
        )
        return pb.MoveMessagesResponse(
            uid_validity=moved.uid_validity,
            source_uids=moved.source_uids,
            target_uids=moved.target_uids,
            highest_modseq=moved.highest_modseq,
            previous_modseq=moved.previous_modseq,
        )

    async def ExpungeMessages(
        self, request: pb.ExpungeMessagesRequest, context: Any
    ) -> pb.ExpungeMessagesResponse:
        """EXPUNGE, UID EXPUNGE, POP3's QUIT."""
        expunged = await self._mail.expunge(
            request.user_id,
            request.mailbox_id,
            None if request.all_deleted else tuple(request.uids),
            only_deleted=request.only_deleted or request.all_deleted,
        )
        return pb.ExpungeMessagesResponse(
            expunged_uids=expunged.uids,
            highest_modseq=expunged.highest_modseq,
            previous_modseq=expunged.previous_modseq,
        )

    async def AppendMessage(
        self, request_iterator: AsyncIterable[pb.AppendMessageRequest], context: Any
    ) -> pb.AppendMessageResponse:
        """APPEND; a stream that ends without `end` stores nothing."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "start":
            raise InvalidRequest("the stream does not begin with a start")
        start = first.start
        upload = self._mail.upload(limit=self._max_message_size)
        async with abandoned_unless_done(upload):
            await receive(upload, requests)
            appended = await self._mail.append(_target(start), await upload.finish())
        return pb.AppendMessageResponse(uid_validity=appended.uid_validity, uid=appended.uid)

    async def AppendSmallMessage(
        self, request: pb.AppendSmallMessageRequest, context: Any
    ) -> pb.AppendSmallMessageResponse:
        """APPEND of what fits into one request."""
        upload = self._mail.upload(limit=self._max_message_size)
        async with abandoned_unless_done(upload):
            await upload.write(request.data)
            appended = await self._mail.append(_target(request.start), await upload.finish())
        return pb.AppendSmallMessageResponse(uid_validity=appended.uid_validity, uid=appended.uid)

    async def AppendSmallMessages(  # type: ignore[override] # writes instead of yielding
        self, request_iterator: AsyncIterable[pb.AppendSmallMessagesRequest], context: Any
    ) -> None:
        """The same of many sessions: those of a request share a commit; none spoils another."""
        await answer_in_turn(request_iterator, self._append_all, context.write, self._stop)

    async def _append_all(
        self, request: pb.AppendSmallMessagesRequest
    ) -> pb.AppendSmallMessagesResponse:
        if len(request.items) == 1:  # a lone one costs no task
            results = [await self._append_small(request.items[0])]
        else:
            results = await asyncio.gather(*map(self._append_small, request.items))
        return pb.AppendSmallMessagesResponse(results=results)

    async def _append_small(
        self, request: pb.AppendSmallMessageRequest
    ) -> pb.AppendSmallMessageResult:
        try:
            if len(request.data) > min(self._max_message_size, MAX_INLINE_BODY):
                raise MessageTooBig
            appended = await self._mail.append(_target(request.start), request.data)
        except NmapError as error:
            return pb.AppendSmallMessageResult(error_reason=error.reason)
        return pb.AppendSmallMessageResult(uid_validity=appended.uid_validity, uid=appended.uid)


def _target(start: pb.AppendStart) -> AppendTarget:
    return AppendTarget(
        start.user_id,
        start.mailbox,
        tuple(start.flags),
        start.internal_date if start.HasField("internal_date") else None,
    )


def _pages(columns: MessageColumns) -> Iterator[pb.MessageColumns]:
    for start in range(0, len(columns.uids), _ROWS):
        yield columns_to(columns, slice(start, start + _ROWS))


def _open_request(request: pb.OpenMailboxRequest) -> OpenRequest:
    return OpenRequest(
        request.user_id,
        request.name,
        with_sizes=request.with_sizes,
        with_object_ids=request.with_object_ids,
        claim_recent=request.claim_recent and not request.read_only,
        known_mailbox_id=request.known_mailbox_id,
        known_modseq=request.known_modseq,
    )


def _opened_to(view: MailboxView | NmapError, max_messages: int) -> pb.OpenedMailbox:
    if isinstance(view, NmapError):
        return pb.OpenedMailbox(error_reason=view.reason)
    opened = pb.OpenedMailbox(
        state=state_to(view.state), delta=view.delta, expunged_uids=view.expunged_uids
    )
    if len(view.messages.uids) > max_messages:
        opened.too_large = True
    elif view.messages.uids:
        opened.messages.CopyFrom(columns_to(view.messages, slice(0, max_messages)))
    return opened


def _parts(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(uids), _UIDS):
        yield uids[start : start + _UIDS]


def _fetched_to(wanted: FetchRequest) -> Callable[[FetchedMessage], pb.FetchedMessage]:
    """Makes messages of the API; the two that are asked for in thousands the short way."""
    others = (
        wanted.internal_date,
        wanted.modseq,
        wanted.object_id,
        wanted.save_date,
        wanted.size,
        wanted.body,
    )
    if not any(others):
        if not wanted.flags:
            return lambda message: pb.FetchedMessage(uid=message.uid, header=message.header)
        if not wanted.header:
            return lambda message: pb.FetchedMessage(uid=message.uid, flags=message.flags)
    return lambda message: pb.FetchedMessage(**message._asdict())


async def _follow(
    requests: AsyncIterable[pb.WatchMailboxesRequest], watch: Watch, users: set[int]
) -> None:
    async for request in requests:
        watch.remove(tuple(request.remove_mailbox_ids))
        users.difference_update(request.remove_user_ids)
        users.update(request.add_user_ids)
        if request.add_mailbox_ids:
            await watch.add(tuple(request.add_mailbox_ids))


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
