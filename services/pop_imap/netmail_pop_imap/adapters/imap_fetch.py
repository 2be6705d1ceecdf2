"""FETCH: one streamed call for the messages, answered as they come.

Nothing is collected: rows leave as soon as the client takes them, and the call waits when it does
not. Only a message whose inside is asked for (BODYSTRUCTURE, BODY[2]) is held whole, one at a time;
BODY[] goes through in pieces.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from netmail_pop_imap.adapters.imap_cache import CachedMessage, MailboxKey, MessageCache
from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.adapters.imap_rows import flags_of
from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.protocol.imap.commands import Metadata, Section, SectionText
from netmail_pop_imap.protocol.imap.dates import format_date_time
from netmail_pop_imap.protocol.mime import SectionReader, body_structure, envelope, field_selector

PIECE = 64 * 1024
"""Octets written before the client must have taken some."""

Item = Metadata | Section


class Writer(Protocol):
    """Where the rows go."""

    @property
    def unsent(self) -> int:
        """Octets written and not handed over yet."""

    def write(self, data: bytes) -> None:
        """Takes octets."""

    async def drained(self) -> None:
        """Waits until the client takes more. Raises: ConnectionResetError."""


@dataclass(slots=True)
class Message:
    """What has come of one message."""

    number: int
    uid: int
    data: "Data"
    body: bytes
    _reader: SectionReader | None = None

    @property
    def reader(self) -> SectionReader:
        """Its inside, parsed once."""
        if self._reader is None:
            self._reader = SectionReader(self.body)
        return self._reader

    def header(self) -> bytes:
        """Its header, from whichever part came."""
        if self.data.header:
            return self.data.header
        root = self.reader.root
        return self.body[root.start : root.body]


Data = pb.FetchedMessage | CachedMessage

Renderer = Callable[[Message], bytes]


@dataclass(frozen=True, slots=True)
class Cached:
    """Where small data is kept, and under which mailbox."""

    cache: MessageCache
    key: MailboxKey


@dataclass(frozen=True, slots=True)
class Plan:
    """How a FETCH is answered.

    Attributes:
        request: the call, without UIDs.
        renderers: of the items, in their order, but `streamed`.
        streamed: a whole message that goes through in pieces, as the row's last item.
        label: of `streamed` in the response.
    """

    request: pb.FetchMessagesRequest
    renderers: Sequence[Renderer]
    streamed: Section | None


def plan_fetch(user_id: int, view: View, items: Sequence[Item]) -> Plan:
    """Decides what must be asked for."""
    request = pb.FetchMessagesRequest(user_id=user_id, mailbox_id=view.mailbox.id)
    bodies = [item for item in items if _needs_body(item)]
    streamed = None
    if len(bodies) == 1 and isinstance(bodies[0], Section) and _is_whole(bodies[0]):
        streamed = bodies[0]
        request.size = True
        if streamed.partial is not None:
            request.body_offset, request.body_length = streamed.partial
    request.body = bool(bodies)
    needs_header = any(_needs_header(item) for item in items)
    request.header = needs_header and (not bodies or streamed is not None)
    for item in items:
        if item is Metadata.SIZE:
            request.size = True
        elif item is Metadata.INTERNALDATE:
            request.internal_date = True
        elif item is Metadata.EMAIL_ID:
            request.object_id = True
        elif item is Metadata.SAVE_DATE:
            request.save_date = True
    renderers = [_renderer(item, view) for item in items if item is not streamed]
    return Plan(request, renderers, streamed)


def _needs_header(item: Item) -> bool:
    return item is Metadata.ENVELOPE or (isinstance(item, Section) and item.header_only)


def _needs_body(item: Item) -> bool:
    if isinstance(item, Section):
        return not item.header_only
    return item in {Metadata.BODY, Metadata.BODYSTRUCTURE}


def _is_whole(section: Section) -> bool:
    return not section.part and section.text is SectionText.ALL


async def run_fetch(
    stub: Any, plan: Plan, view: View, uids: Sequence[int], out: Writer, cached: Cached
) -> int:
    """Asks and answers; gives the number of messages that were there.

    Raises: ReplyError before or between rows; ConnectionResetError when a row was begun and
    cannot be ended, since then only the end of the connection tells the client.
    """
    request = plan.request
    state = _Rows(plan, _numbers(view, uids), out)
    known = cached.cache.find(cached.key, uids, request)
    if known is not None:
        for message in known:
            state.take(message)
            if out.unsent > PIECE:
                await out.drained()
        return state.count
    keeper = cached.cache.keeper(cached.key, uids, request)
    request.uids.extend(uids)
    call = stub.FetchMessages(request)
    try:
        async with aclosing(_responses(call)) as responses:
            async for response in responses:
                for data in response.messages:
                    state.take(data)
                    if keeper is not None and not data.more and not state.in_parts:
                        keeper.take(data)
                    if out.unsent > PIECE:
                        await out.drained()
    except grpc.aio.AioRpcError as error:
        if state.in_row:
            raise ConnectionResetError from None
        raise reply_for(error) from None
    finally:
        call.cancel()
    return state.count


async def _responses(call: Any) -> AsyncGenerator[pb.FetchMessagesResponse, None]:
    async for response in call:
        yield response


def _numbers(view: View, uids: Sequence[int]) -> Callable[[int], int]:
    """A function from UID to sequence number, for UIDs that come in the order of `uids`."""
    expected: Iterator[int] = iter(uids)
    first = next(expected, 0)
    number = view.number(first)
    if number + len(uids) - 1 == view.number(uids[-1]):  # neighbours, the usual case
        upcoming = {"uid": first, "number": number}

        def next_number(uid: int) -> int:
            if uid != upcoming["uid"]:
                upcoming["number"] = view.number(uid)
            found = upcoming["number"]
            upcoming["number"] = found + 1
            upcoming["uid"] = view.uids[found] if found < view.count else 0
            return found

        return next_number
    return view.number


class _Rows:
    """Turns fetched parts into response lines."""

    def __init__(self, plan: Plan, numbers: Callable[[int], int], out: Writer) -> None:
        self.plan = plan
        self.out = out
        self.numbers = numbers
        self.count = 0
        self.in_row = False
        self.in_parts = False
        """The message taken last had begun before: it came in several parts."""
        self._left = 0
        self._first: Data | None = None
        self._pieces: list[bytes] = []

    def take(self, data: Data) -> None:
        self.in_parts = self.in_row or self._first is not None
        if self.plan.streamed is not None:
            self._stream(self.plan.streamed, data)
        elif data.more or self._first is not None:
            self._collect(data)
        else:
            self._row(data, data.body)

    def _collect(self, data: Data) -> None:
        if self._first is None:
            self._first = data
        self._pieces.append(data.body)
        if data.more:
            return
        first, self._first = self._first, None
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._row(first, body)

    def _row(self, data: Data, body: bytes) -> None:
        number = self.numbers(data.uid)
        if not number:
            return
        message = Message(number, data.uid, data, body)
        items = b" ".join([render(message) for render in self.plan.renderers])
        self.out.write(b"* %d FETCH (%b)\r\n" % (number, items))
        self.count += 1

    def _stream(self, section: Section, data: Data) -> None:
        if not self.in_row:
            self._begin(section, data)
        self.out.write(data.body)
        self._left -= len(data.body)
        if not data.more:
            if self._left:  # fewer or more octets than announced: the stream is out of step
                raise ConnectionResetError
            self.out.write(b")\r\n")
            self.in_row = False

    def _begin(self, section: Section, data: Data) -> None:
        number = self.numbers(data.uid)
        size = data.size
        if section.partial is not None:
            offset, length = section.partial
            size = max(0, min(length, size - offset))
        message = Message(number, data.uid, data, b"")
        items = [render(message) for render in self.plan.renderers]
        items.append(b"%b {%d}\r\n" % (section.label, size))
        self.out.write(b"* %d FETCH (%b" % (number, b" ".join(items)))
        self._left = size
        self.in_row = True
        self.count += 1


def _renderer(item: Item, view: View) -> Renderer:
    if isinstance(item, Section):
        return _section(item)
    if item is Metadata.FLAGS:
        return lambda m: _flags(view, m.uid)
    if item is Metadata.MODSEQ:
        return lambda m: b"MODSEQ (%d)" % _modseq(view, m.uid)
    return _RENDERERS[item]


def _flags(view: View, uid: int) -> bytes:
    view.told((uid,))  # as they are now: what changes after this line is news again
    return b"FLAGS (%b)" % (flags_of(view, uid) or b"")


def _modseq(view: View, uid: int) -> int:
    at = view.mailbox.index(uid)
    return view.mailbox.modseqs[at] if at >= 0 else view.mailbox.modseq


_RENDERERS: dict[Metadata, Renderer] = {
    Metadata.UID: lambda m: b"UID %d" % m.uid,
    Metadata.SIZE: lambda m: b"RFC822.SIZE %d" % m.data.size,
    Metadata.INTERNALDATE: lambda m: b'INTERNALDATE "%b"' % format_date_time(m.data.internal_date),
    Metadata.ENVELOPE: lambda m: b"ENVELOPE " + envelope(m.header()),
    Metadata.BODY: lambda m: b"BODY " + body_structure(m.body, m.reader.root, extended=False),
    Metadata.BODYSTRUCTURE: lambda m: (
        b"BODYSTRUCTURE " + body_structure(m.body, m.reader.root, extended=True)
    ),
    Metadata.EMAIL_ID: lambda m: b"EMAILID (%b)" % m.data.object_id.encode("ascii"),
    Metadata.THREAD_ID: lambda _: b"THREADID NIL",
    Metadata.SAVE_DATE: lambda m: b'SAVEDATE "%b"' % format_date_time(m.data.save_date),
}


def _section(section: Section) -> Renderer:
    label = section.label
    if section.header_only:
        select = _header_selector(section)
        return lambda m: _literal(label, _cut(section, select(m.header())))

    def render(message: Message) -> bytes:
        octets = message.reader.read(section)
        if octets is None:
            return label + b" NIL"
        return _literal(label, _cut(section, octets))

    return render


def _header_selector(section: Section) -> Callable[[bytes], bytes]:
    if section.text is SectionText.HEADER:
        return lambda header: header
    return field_selector(section)


def _cut(section: Section, octets: bytes) -> bytes:
    if section.partial is None:
        return octets
    offset, length = section.partial
    return octets[offset : offset + length]


def _literal(label: bytes, octets: bytes) -> bytes:
    return b"%b {%d}\r\n%b" % (label, len(octets), octets)
