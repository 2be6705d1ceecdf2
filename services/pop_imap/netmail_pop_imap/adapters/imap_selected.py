"""Commands on the messages of the selected mailbox: FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from netmail_pop_imap.adapters.imap_cache import MailboxKey
from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.adapters.imap_fetch import Cached, plan_fetch, run_fetch
from netmail_pop_imap.adapters.imap_rows import (
    LOCAL,
    flag_update,
    local_rows,
    modseq_update,
    numbered,
)
from netmail_pop_imap.adapters.imap_search import mentions_modseq, search
from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap.errors import Refused
from netmail_pop_imap.protocol.imap.sequence import (
    Span,
    format_pairs,
    format_set,
    merge_spans,
    pick,
    span_count,
    span_indexes,
)

_PIECE = 64 * 1024
"""Octets written before the client must have taken some."""

if TYPE_CHECKING:
    from netmail_pop_imap.adapters.imap_session import ImapSession

_MODES = {
    c.StoreMode.REPLACE: pb.STORE_MODE_REPLACE,
    c.StoreMode.ADD: pb.STORE_MODE_ADD,
    c.StoreMode.REMOVE: pb.STORE_MODE_REMOVE,
}


async def fetch(connection: "ImapSession", command: c.Fetch) -> None:
    """FETCH, UID FETCH."""
    view = connection.view
    spans = view.spans(command.messages, uid=command.uid)
    if command.changed_since is not None:
        spans = _changed_since(view, spans, command.changed_since)
    wanted = span_count(spans)
    items = list(command.items)
    if not view.read_only and any(isinstance(i, c.Section) and i.seen for i in items):
        await _mark_seen(connection, spans)
        if c.Metadata.FLAGS not in items:
            items.insert(0, c.Metadata.FLAGS)
    if connection.condstore and c.Metadata.FLAGS in items and c.Metadata.MODSEQ not in items:
        items.append(c.Metadata.MODSEQ)  # flags never without it (RFC 7162 3.1)
    if not wanted:
        connection.complete("FETCH completed", expunge=command.uid)
        return
    metadata = [item for item in items if isinstance(item, c.Metadata)]
    if len(metadata) == len(items) and LOCAL.issuperset(metadata):
        found = await _fetch_local(connection, spans, metadata)
    else:
        plan = plan_fetch(connection.user.user_id, view, items)
        uids = pick(view.uids, spans)
        found = await run_fetch(
            connection.stub,
            plan,
            view,
            uids,
            connection,
            Cached(connection.hub.cache, _cache_key(connection)),
        )
    if found < wanted:
        raise Refused("Some messages were expunged meanwhile", "EXPUNGEISSUED")
    connection.complete("FETCH completed", expunge=command.uid)


def _cache_key(connection: "ImapSession") -> MailboxKey:
    mailbox = connection.view.mailbox
    return connection.user.server, mailbox.id, mailbox.uid_validity


async def _fetch_local(
    connection: "ImapSession", spans: list[Span], items: Sequence[c.Metadata]
) -> int:
    view = connection.view
    for block in local_rows(view, spans, items):
        connection.write(block)
        if connection.unsent > _PIECE:
            await connection.drained()
    if view.is_current:
        return span_count(spans)
    return sum(view.mailbox.index(view.uids[at]) >= 0 for at in span_indexes(spans))


def _changed_since(view: View, spans: list[Span], modseq: int) -> list[Span]:
    mailbox = view.mailbox
    changed = []
    for at in span_indexes(spans):
        row = at if view.is_current else mailbox.index(view.uids[at])
        if row >= 0 and mailbox.modseqs[row] > modseq:
            changed.append((at, at))
    return merge_spans(changed)


async def _mark_seen(connection: "ImapSession", spans: list[Span]) -> None:
    view = connection.view
    mailbox = view.mailbox
    seen = mailbox.sets_with("\\Seen")
    unseen = []
    for at in span_indexes(spans):
        row = at if view.is_current else mailbox.index(view.uids[at])
        if row >= 0 and not seen[mailbox.flag_set[row]]:
            unseen.append(view.uids[at])
    if unseen:
        request = pb.StoreFlagsRequest(
            user_id=connection.user.user_id,
            mailbox_id=mailbox.id,
            uids=unseen,
            mode=pb.STORE_MODE_ADD,
            flags=["\\Seen"],
        )
        await _store(connection, request, None)


async def store(connection: "ImapSession", command: c.Store) -> None:
    """STORE, UID STORE."""
    view = _writable(connection)
    uids = pick(view.uids, view.spans(command.messages, uid=command.uid))
    if not uids:
        connection.complete("STORE completed", expunge=command.uid)
        return
    request = pb.StoreFlagsRequest(
        user_id=connection.user.user_id,
        mailbox_id=view.mailbox.id,
        uids=uids,
        mode=_MODES[command.mode],
        flags=command.flags,
        unchanged_since=command.unchanged_since,
    )
    expected = _expectation(command) if command.silent else None
    modified, changed = await _store(connection, request, expected)
    failed = set(modified)
    gone = sum(view.mailbox.index(uid) < 0 for uid in uids)
    # After a NO the client cannot know what was done, .SILENT or not: it is told.
    if not command.silent or gone:
        told = [uid for uid in uids if uid not in failed]
        for number, uid in numbered(told, view):
            connection.write(flag_update(view, number, uid, modseq=connection.condstore))
        view.told(told)
    elif connection.condstore:
        for number, uid in numbered(changed, view):
            connection.write(modseq_update(view, number, uid))
    await connection.drained()
    code = ""
    if modified:
        shown = modified if command.uid else [view.number(uid) for uid in sorted(modified)]
        code = f"MODIFIED {format_set(shown)}"
    if gone and not command.uid and not modified:
        raise Refused("Some messages were expunged meanwhile", "EXPUNGEISSUED")
    text = "STORE completed" if not modified else "Conditional STORE: some were not changed"
    connection.complete(text, code, expunge=command.uid)


async def _store(
    connection: "ImapSession",
    request: pb.StoreFlagsRequest,
    expected: Callable[[bytes], bytes] | None,
) -> tuple[list[int], list[int]]:
    """Gives the UIDs that failed UNCHANGEDSINCE and those that changed."""
    responses: list[pb.MessageColumns] = []
    modified: list[int] = []
    changed: list[int] = []
    before = after = 0
    try:
        async for response in connection.stub.StoreFlags(request):
            responses.append(response.changed)
            changed.extend(response.changed.uids)
            modified.extend(response.modified_uids)
            before = before or response.previous_modseq
            after = max(after, response.highest_modseq)
    except grpc.aio.AioRpcError as error:
        raise reply_for(error) from None
    connection.hub.take(connection.selected, responses, modseqs=(before, after), expected=expected)
    return sorted(modified), changed


def _expectation(command: c.Store) -> Callable[[bytes], bytes]:
    """What a session that is told nothing (.SILENT) believes of a message's flags."""
    named = {flag.lower().encode("ascii"): flag.encode("ascii") for flag in command.flags}
    known: dict[bytes, bytes] = {}

    def expected(flags: bytes) -> bytes:
        result = known.get(flags)
        if result is None:
            have = {flag.lower(): flag for flag in flags.split()}
            if command.mode is c.StoreMode.REPLACE:
                have = {key: have.get(key, flag) for key, flag in named.items()}
            elif command.mode is c.StoreMode.ADD:
                have = {**named, **have}
            else:
                have = {key: flag for key, flag in have.items() if key not in named}
            result = known[flags] = b" ".join(sorted(have.values()))
        return result

    return expected


def _writable(connection: "ImapSession") -> View:
    if connection.view.read_only:
        raise Refused("Mailbox is read-only", "NOPERM")
    return connection.view


async def search_messages(connection: "ImapSession", command: c.Search) -> None:
    """SEARCH, UID SEARCH, with and without RETURN."""
    view = connection.view
    uids = await search(connection.stub, connection.user.user_id, view, command.key)
    with_modseq = mentions_modseq(command.key)
    if with_modseq:
        connection.enable_condstore()
    numbers = uids if command.uid else [view.number(uid) for uid in uids]
    if command.results is None:
        line = b"* SEARCH" + b"".join([b" %d" % number for number in numbers])
        if with_modseq and uids:
            line += b" (MODSEQ %d)" % _highest_modseq(view, uids)
        connection.write(line + b"\r\n")
    else:
        connection.write(_esearch(command, view, uids, numbers, with_modseq=with_modseq))
    await connection.drained()
    connection.complete("SEARCH completed", expunge=command.uid)


def _esearch(
    command: c.Search, view: View, uids: list[int], numbers: list[int], *, with_modseq: bool
) -> bytes:
    """RFC 4731: empty results leave MIN, MAX and ALL out."""
    results = command.results or frozenset()
    parts = [f'* ESEARCH (TAG "{command.tag}")']
    if command.uid:
        parts.append("UID")
    if numbers:
        if "MIN" in results:
            parts.append(f"MIN {numbers[0]}")
        if "MAX" in results:
            parts.append(f"MAX {numbers[-1]}")
    if "COUNT" in results:
        parts.append(f"COUNT {len(numbers)}")
    if numbers and "ALL" in results:
        parts.append(f"ALL {format_set(numbers)}")
    if with_modseq and uids:
        meant = uids
        if results <= {"MIN", "MAX"}:  # RFC 7162 3.1.10: of the messages returned only
            ends = {"MIN": uids[0], "MAX": uids[-1]}
            meant = [ends[result] for result in results]
        parts.append(f"MODSEQ {_highest_modseq(view, meant)}")
    return (" ".join(parts) + "\r\n").encode("ascii")


def _highest_modseq(view: View, uids: list[int]) -> int:
    mailbox = view.mailbox
    rows = (mailbox.index(uid) for uid in uids)
    return max((mailbox.modseqs[row] for row in rows if row >= 0), default=1)


async def copy(connection: "ImapSession", command: c.Copy) -> None:
    """COPY, MOVE and their UID forms (RFC 4315, RFC 6851)."""
    view = _writable(connection) if command.move else connection.view
    uids = pick(view.uids, view.spans(command.messages, uid=command.uid))
    verb = "MOVE" if command.move else "COPY"
    if not uids:
        connection.complete(f"{verb} completed, nothing to do", expunge=command.uid)
        return
    done = await _copy(connection, command, uids)
    code = ""
    if done.source_uids:
        sources, targets = format_pairs(done.source_uids, done.target_uids)
        code = f"COPYUID {done.uid_validity} {sources} {targets}"
    if isinstance(done, pb.MoveMessagesResponse):
        if code:  # before the EXPUNGEs (RFC 6851 4.3)
            connection.write(f"* OK [{code}] Moved\r\n".encode("ascii"))
        connection.hub.take(
            connection.selected,
            (),
            expunged=done.source_uids,
            modseqs=(done.previous_modseq, done.highest_modseq),
        )
        code = ""
    if command.mailbox == connection.selected.opened.name:
        await connection.sync()
    if not done.source_uids and not command.uid:
        raise Refused("The messages were expunged meanwhile", "EXPUNGEISSUED")
    connection.complete(f"{verb} completed", code)


async def _copy(connection: "ImapSession", command: c.Copy, uids: Sequence[int]) -> Any:
    user_id, mailbox_id = connection.user.user_id, connection.view.mailbox.id
    try:
        if command.move:
            return await connection.stub.MoveMessages(
                pb.MoveMessagesRequest(
                    user_id=user_id, mailbox_id=mailbox_id, uids=uids, to_name=command.mailbox
                )
            )
        return await connection.stub.CopyMessages(
            pb.CopyMessagesRequest(
                user_id=user_id, mailbox_id=mailbox_id, uids=uids, to_name=command.mailbox
            )
        )
    except grpc.aio.AioRpcError as error:
        raise reply_for(error, try_create=True) from None


async def expunge(connection: "ImapSession", command: c.Expunge) -> None:
    """EXPUNGE, UID EXPUNGE."""
    view = _writable(connection)
    uids = None if command.uids is None else pick(view.uids, view.spans(command.uids, uid=True))
    await remove_deleted(connection, uids)
    connection.complete("EXPUNGE completed", expunge=True)


async def remove_deleted(connection: "ImapSession", uids: Sequence[int] | None) -> None:
    r"""Removes messages with \Deleted, all or among these; no call if there is none."""
    mailbox = connection.view.mailbox
    deleted = mailbox.sets_with("\\Deleted")
    if not any(deleted) or not any(deleted[index] for index in mailbox.flag_set):
        return
    if uids is not None and not uids:
        return
    request = pb.ExpungeMessagesRequest(
        user_id=connection.user.user_id,
        mailbox_id=mailbox.id,
        uids=uids or (),
        only_deleted=True,
        all_deleted=uids is None,
    )
    try:
        done = await connection.stub.ExpungeMessages(request)
    except grpc.aio.AioRpcError as error:
        raise reply_for(error) from None
    connection.hub.take(
        connection.selected,
        (),
        expunged=done.expunged_uids,
        modseqs=(done.previous_modseq, done.highest_modseq),
    )
