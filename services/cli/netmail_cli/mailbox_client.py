"""A user's mailboxes, as an administrator reads and fills them."""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from netmail.nmap.v1 import mailbox_pb2 as pb
from netmail.nmap.v1 import mailbox_pb2_grpc

from netmail_cli.mailfiles.message import FileMessage

__all__ = ["MailboxClient", "OpenMailbox", "Present", "StoredMessage"]

_SMALL = 256 * 1024
_UIDS = 500
_APPEND_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in a mailbox, without its octets."""

    uid: int
    flags: tuple[str, ...]
    size: int
    date: int
    """Internal date, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class OpenMailbox:
    """What a mailbox holds."""

    id: int
    uid_validity: int
    messages: tuple[StoredMessage, ...]


class MailboxClient:
    """Mailboxes of one user."""

    def __init__(self, stub: "mailbox_pb2_grpc.MailboxServiceAsyncStub", user_id: int) -> None:
        self._stub = stub
        self._user = user_id

    async def names(self) -> list[str]:
        """Mailboxes that can hold messages."""
        return [mailbox.name for mailbox in await self._list() if mailbox.selectable]

    async def subscriptions(self) -> list[str]:
        """Names that the user has subscribed to."""
        return [mailbox.name for mailbox in await self._list() if mailbox.subscribed]

    async def create(self, name: str) -> None:
        """Makes a mailbox."""
        await self._stub.CreateMailbox(pb.CreateMailboxRequest(user_id=self._user, name=name))

    async def subscribe(self, name: str) -> None:
        """Subscribes to a name."""
        await self._stub.SetSubscribed(
            pb.SetSubscribedRequest(user_id=self._user, name=name, subscribed=True)
        )

    async def open(self, name: str) -> OpenMailbox:
        """Looks at a mailbox and changes nothing in it."""
        request = pb.OpenMailboxRequest(
            user_id=self._user, name=name, read_only=True, with_sizes=True
        )
        state = pb.MailboxState()
        rows: list[tuple[int, str, int]] = []
        async for response in self._stub.OpenMailbox(request):
            if response.HasField("state"):
                state = response.state
            columns = response.messages
            flags = [columns.flag_sets[index] for index in columns.flag_set]
            rows += zip(columns.uids, flags, columns.sizes, strict=True)
        dates = await self._dates(state.mailbox_id, [uid for uid, _, _ in rows])
        return OpenMailbox(
            state.mailbox_id,
            state.uid_validity,
            tuple(
                StoredMessage(uid, tuple(flags.split()), size, dates[uid])
                for uid, flags, size in rows
                if uid in dates
            ),
        )

    async def bodies(
        self, mailbox_id: int, uids: Sequence[int]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """UID and octets of messages; those that went meanwhile are left out."""
        for some in _batches(uids):
            request = pb.FetchMessagesRequest(
                user_id=self._user, mailbox_id=mailbox_id, uids=some, body=True
            )
            data = bytearray()
            async for response in self._stub.FetchMessages(request):
                for part in response.messages:
                    data += part.body
                    if not part.more:
                        yield part.uid, bytes(data)
                        data.clear()

    async def append(self, message: FileMessage, mailbox: str, flags: Sequence[str]) -> None:
        """Puts a message into a mailbox, durably."""
        start = pb.AppendStart(
            user_id=self._user, mailbox=mailbox, flags=flags, size=len(message.data)
        )
        if message.date is not None:
            start.internal_date = message.date
        if len(message.data) <= _SMALL:
            request = pb.AppendSmallMessageRequest(start=start, data=message.data)
            await self._stub.AppendSmallMessage(request)
            return

        def requests() -> Iterator[pb.AppendMessageRequest]:
            yield pb.AppendMessageRequest(start=start)
            for position in range(0, len(message.data), _SMALL):
                yield pb.AppendMessageRequest(data=message.data[position : position + _SMALL])
            yield pb.AppendMessageRequest(end=pb.AppendEnd())

        await self._stub.AppendMessage(requests(), timeout=_APPEND_TIMEOUT)

    async def _list(self) -> Sequence[pb.Mailbox]:
        answer = await self._stub.ListMailboxes(pb.ListMailboxesRequest(user_id=self._user))
        return answer.mailboxes

    async def _dates(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, int]:
        found = {}
        for some in _batches(uids):
            request = pb.FetchMessagesRequest(
                user_id=self._user, mailbox_id=mailbox_id, uids=some, internal_date=True
            )
            async for response in self._stub.FetchMessages(request):
                found.update({part.uid: part.internal_date for part in response.messages})
        return found


class Present:
    """Which messages a mailbox has already; each stands for one message of a file at most."""

    def __init__(self, client: MailboxClient, opened: OpenMailbox) -> None:
        self._client = client
        self._id = opened.id
        self._by_size: defaultdict[int, list[StoredMessage]] = defaultdict(list)
        for message in opened.messages:
            self._by_size[message.size].append(message)
        self._digests: dict[int, bytes] = {}

    async def take(self, message: FileMessage) -> bool:
        """Whether the mailbox has a message of these octets and date (if the file knows one)."""
        same_size = self._by_size.get(len(message.data), [])
        wanted = hashlib.sha256(message.data).digest()
        for stored in same_size:
            if message.date in (None, stored.date) and await self._digest(stored.uid) == wanted:
                same_size.remove(stored)
                return True
        return False

    async def _digest(self, uid: int) -> bytes:
        if uid not in self._digests:
            self._digests[uid] = b""
            async for _, data in self._client.bodies(self._id, [uid]):
                self._digests[uid] = hashlib.sha256(data).digest()
        return self._digests[uid]


def _batches(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(uids), _UIDS):
        yield uids[start : start + _UIDS]
