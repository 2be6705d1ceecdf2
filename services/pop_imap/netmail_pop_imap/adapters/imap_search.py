r"""SEARCH: what the session knows is decided here, the rest is asked of the NMAP agent.

Flags, UIDs, sequence numbers, modseqs and \Recent need no storage. Of a conjunction the local part
is decided first; only what is left of the messages, and of the keys, goes into the call.
"""

from bisect import bisect_left, bisect_right
from itertools import compress
from typing import Any

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.protocol.imap import search_keys as k
from netmail_pop_imap.protocol.imap.errors import Refused
from netmail_pop_imap.protocol.imap.sequence import Span

_MAX_DEPTH = 40
"""Of the message tree: protobuf refuses to read more than 100 levels, two for each key."""

_LOCAL = (k.HasFlag, k.IsRecent, k.InSet, k.ModSeqAtLeast)
_RELATIONS = {
    k.Relation.BEFORE: pb.DATE_RELATION_BEFORE,
    k.Relation.ON: pb.DATE_RELATION_ON,
    k.Relation.SINCE: pb.DATE_RELATION_SINCE,
}
_DATE_FIELDS = {
    k.DateKind.INTERNAL: "internal_date",
    k.DateKind.SENT: "sent_date",
    k.DateKind.SAVED: "saved_date",
}


def is_local(key: k.SearchKey) -> bool:
    """Whether the session can decide it without a call."""
    match key:
        case k.AllOf(keys):
            return all(map(is_local, keys))
        case k.AnyOf(left, right):
            return is_local(left) and is_local(right)
        case k.Not(inner):
            return is_local(inner)
    return isinstance(key, _LOCAL)


def mentions_modseq(key: k.SearchKey) -> bool:
    """Whether MODSEQ is among the keys: the answer then carries a modseq (RFC 7162 3.1.5)."""
    match key:
        case k.AllOf(keys):
            return any(map(mentions_modseq, keys))
        case k.AnyOf(left, right):
            return mentions_modseq(left) or mentions_modseq(right)
        case k.Not(inner):
            return mentions_modseq(inner)
    return isinstance(key, k.ModSeqAtLeast)


async def search(stub: Any, user_id: int, view: View, key: k.SearchKey) -> list[int]:
    """UIDs, ascending, of the messages that match, among those that the session knows.

    Raises: BadCommand (a sequence number that is not there), Refused, Unavailable.
    """
    keys = key.keys if isinstance(key, k.AllOf) else (key,)
    here = [one for one in keys if is_local(one)]
    elsewhere = [one for one in keys if not is_local(one)]
    mask = _Masks(view).all_of(tuple(here))
    if not elsewhere or not mask:
        return _picked(view, mask)
    request = pb.SearchMessagesRequest(
        user_id=user_id,
        mailbox_id=view.mailbox.id,
        key=_Translator(view).translate(k.AllOf(tuple(elsewhere)), 0),
    )
    if here:
        request.uids.extend(_picked(view, mask))
    found: list[int] = []
    try:
        async for response in stub.SearchMessages(request):
            found.extend(response.uids)
    except grpc.aio.AioRpcError as error:
        raise reply_for(error) from None
    # What came after the session was last told has no number in it yet.
    return sorted(uid for uid in found if view.number(uid))


def _picked(view: View, mask: int) -> list[int]:
    octets = mask.to_bytes(view.count, "little")
    return list(compress(view.uids, octets))


class _Masks:
    """Sets of messages as numbers with an octet (0 or 1) a message: AND is one operation."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.everything = int.from_bytes(b"\x01" * view.count, "little")
        self._flag_set: list[int] | None = None

    def of(self, key: k.SearchKey) -> int:
        match key:
            case k.AllOf(keys):
                return self.all_of(keys)
            case k.AnyOf(left, right):
                return self.of(left) | self.of(right)
            case k.Not(inner):
                return self.everything ^ self.of(inner)
            case k.HasFlag(flag):
                return self._with_flag(flag)
            case k.InSet(messages, uid):
                return self._of_spans(self.view.spans(messages, uid=uid))
            case k.IsRecent():
                return self._of_spans(_recent_spans(self.view))
            case k.ModSeqAtLeast(modseq):
                return self._changed_since(modseq)
        raise Refused("Search key is not supported", "CANNOT")

    def all_of(self, keys: tuple[k.SearchKey, ...]) -> int:
        mask = self.everything
        for key in keys:
            mask &= self.of(key)
        return mask

    def _of_spans(self, spans: list[Span]) -> int:
        octets = bytearray(self.view.count)
        for first, last in spans:
            octets[first : last + 1] = b"\x01" * (last - first + 1)
        return int.from_bytes(octets, "little")

    def _with_flag(self, flag: str) -> int:
        view = self.view
        table = bytes(view.mailbox.sets_with(flag))
        if not any(table):
            return 0
        if view.is_current:
            indexes = view.mailbox.flag_set[: view.count]
            octets = bytes(map(table.__getitem__, indexes))
        else:
            octets = bytes(
                table[view.mailbox.flag_set[at]] if (at := view.mailbox.index(uid)) >= 0 else 0
                for uid in view.uids[: view.count]
            )
        return int.from_bytes(octets, "little")

    def _changed_since(self, modseq: int) -> int:
        view = self.view
        mailbox = view.mailbox
        if view.is_current:
            octets = bytes(value >= modseq for value in mailbox.modseqs[: view.count])
        else:
            octets = bytes(
                (at := mailbox.index(uid)) >= 0 and mailbox.modseqs[at] >= modseq
                for uid in view.uids[: view.count]
            )
        return int.from_bytes(octets, "little")


def _recent_spans(view: View) -> list[Span]:
    spans = []
    for first, last in view.recent_ranges:
        begin = bisect_left(view.uids, first, 0, view.count)
        end = bisect_right(view.uids, last, 0, view.count)
        if begin < end:
            spans.append((begin, end - 1))
    return spans


class _Translator:
    """Search keys as the API's; what only the session knows becomes UIDs."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.masks = _Masks(view)

    def translate(self, key: k.SearchKey, depth: int) -> pb.SearchKey:
        if depth > _MAX_DEPTH:
            raise Refused("Search is nested too deeply", "LIMIT")
        match key:
            case k.AllOf(keys):
                if len(keys) == 1:
                    return self.translate(keys[0], depth)
                return pb.SearchKey(all_of=self._many(keys, depth))
            case k.AnyOf():
                return pb.SearchKey(any_of=self._many(_alternatives(key), depth))
            case k.Not(inner):
                message = pb.SearchKey()
                getattr(message, "not").CopyFrom(self.translate(inner, depth + 1))
                return message
            case k.HasFlag(flag):
                return pb.SearchKey(flag=flag)
            case k.InSet() | k.IsRecent() | k.ModSeqAtLeast():
                return pb.SearchKey(uids=self._uids(key))
        return _content_key(key)

    def _many(self, keys: tuple[k.SearchKey, ...], depth: int) -> pb.SearchKeys:
        return pb.SearchKeys(keys=[self.translate(key, depth + 1) for key in keys])

    def _uids(self, key: k.SearchKey) -> pb.UidSet:
        uids = _picked(self.view, self.masks.of(key))
        ranges: list[pb.UidRange] = []
        for uid in uids:
            if ranges and ranges[-1].last == uid - 1:
                ranges[-1].last = uid
            else:
                ranges.append(pb.UidRange(first=uid, last=uid))
        return pb.UidSet(ranges=ranges)


def _alternatives(key: k.AnyOf) -> tuple[k.SearchKey, ...]:
    """A chain of ORs is one list."""
    found: list[k.SearchKey] = []
    waiting: list[k.SearchKey] = [key]
    while waiting:
        one = waiting.pop()
        if isinstance(one, k.AnyOf):
            waiting += [one.right, one.left]
        else:
            found.append(one)
    return tuple(found)


def _content_key(key: k.SearchKey) -> pb.SearchKey:
    """Keys that only storage can decide."""
    match key:
        case k.InHeader(field, text):
            return pb.SearchKey(header=pb.SearchHeader(name=field, value=text))
        case k.InBody(text):
            return pb.SearchKey(body=text)
        case k.InText(text):
            return pb.SearchKey(text=text)
        case k.SizeIs(larger, octets):
            return pb.SearchKey(larger=octets) if larger else pb.SearchKey(smaller=octets)
        case k.EmailId(object_id):
            return pb.SearchKey(object_id=object_id)
        case k.DateIs(kind, relation, day):
            date = pb.SearchDate(relation=_RELATIONS[relation], day=day)
            message = pb.SearchKey()
            getattr(message, _DATE_FIELDS[kind]).CopyFrom(date)
            return message
    raise Refused("Search key is not supported", "CANNOT")
