"""Small message data that was fetched lately: message octets never change under a UID.

People's programs come back and ask for the same headers and texts; for those no call is made.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netmail.nmap.v1 import mailbox_pb2 as pb

MAX_OCTETS = 16 * 1024 * 1024
"""Of one process."""
MAX_MESSAGE = 64 * 1024
"""Octets of a header or message that is kept."""
MAX_FETCH = 100
"""Messages of one FETCH whose data is kept; more would push out everything else."""
_OVERHEAD = 400
"""Octets of an entry beside its header and body, about."""

_ITEMS = ("header", "body", "size", "internal_date", "object_id", "save_date")


@dataclass(slots=True)
class CachedMessage:
    """What is known of a message; the same names as in the API's FetchedMessage."""

    uid: int
    header: bytes = b""
    body: bytes = b""
    size: int = 0
    internal_date: int = 0
    object_id: str = ""
    save_date: int = 0
    more: bool = False
    known: frozenset[str] = frozenset()

    @property
    def octets(self) -> int:
        """What it occupies, about."""
        return _OVERHEAD + len(self.header) + len(self.body)


MailboxKey = tuple[str, int, int]
"""Messaging Server, mailbox id, UIDVALIDITY."""


class MessageCache:
    """The messages fetched last, of all sessions of a process."""

    def __init__(self, max_octets: int = MAX_OCTETS) -> None:
        self._max_octets = max_octets
        self._octets = 0
        self._messages: OrderedDict[tuple[MailboxKey, int], CachedMessage] = OrderedDict()

    def find(
        self, key: MailboxKey, uids: Sequence[int], request: pb.FetchMessagesRequest
    ) -> list[CachedMessage] | None:
        """The messages, if all that the request asks for is known of each."""
        wanted = _wanted(request)
        if len(uids) > MAX_FETCH or _is_partial(request):
            return None
        found = []
        for uid in uids:
            message = self._messages.get((key, uid))
            if message is None or not wanted <= message.known:
                return None
            found.append(message)
        for uid in uids:
            self._messages.move_to_end((key, uid))
        return found

    def keeper(
        self, key: MailboxKey, uids: Sequence[int], request: pb.FetchMessagesRequest
    ) -> "Keeper | None":
        """Takes what comes of a request; None: it is too much to keep."""
        if len(uids) > MAX_FETCH or _is_partial(request):
            return None
        return Keeper(self, key, _wanted(request))

    def keep(self, key: MailboxKey, data: pb.FetchedMessage, items: Iterable[str]) -> None:
        """Keeps these items of a message beside what is known of it."""
        place = (key, data.uid)
        message = self._messages.pop(place, None)
        if message is None:
            message = CachedMessage(data.uid)
        else:
            self._octets -= message.octets
        for item in items:
            setattr(message, item, getattr(data, item))
        message.known |= frozenset(items)
        self._messages[place] = message
        self._octets += message.octets
        while self._octets > self._max_octets:
            _, oldest = self._messages.popitem(last=False)
            self._octets -= oldest.octets


class Keeper:
    """Keeps what one FETCH brings, but large messages."""

    __slots__ = ("_cache", "_items", "_key")

    def __init__(self, cache: MessageCache, key: MailboxKey, items: frozenset[str]) -> None:
        self._cache = cache
        self._key = key
        self._items = items

    def take(self, data: pb.FetchedMessage) -> None:
        """A message that came whole."""
        if len(data.body) <= MAX_MESSAGE and len(data.header) <= MAX_MESSAGE:
            self._cache.keep(self._key, data, self._items)


def _wanted(request: pb.FetchMessagesRequest) -> frozenset[str]:
    return frozenset(item for item in _ITEMS if getattr(request, item))


def _is_partial(request: pb.FetchMessagesRequest) -> bool:
    return bool(request.body_offset or request.body_length)
