"""The mailboxes that the sessions of a process have open, and how they hear of changes.

For each NMAP agent one WatchMailboxes stream says which mailbox changed; one SyncMailbox call
brings what changed, for all sessions on it. A mailbox that was closed is remembered for a while, so
that the next SELECT transfers only what is new.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Protocol
from weakref import WeakValueDictionary

import grpc
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.gather import Gatherer
from netmail_common.grpc_errors import error_reason
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser, MailboxClients

from netmail_pop_imap.adapters.imap_cache import MessageCache
from netmail_pop_imap.adapters.imap_errors import reply_for, reply_for_reason
from netmail_pop_imap.adapters.imap_watch import MailboxWatch
from netmail_pop_imap.domain.imap_mailbox import Change, Mailbox, View

log = get_logger(__name__)

REMEMBERED_MAILBOXES = 1000
REMEMBERED_MESSAGES = 500_000
"""Of closed mailboxes; 16 octets each."""


_SMALL = 5000
"""Messages whose listing comes with the others of a gathered call."""
_OPENINGS = 50
"""Of one call."""

_Opener = Gatherer[mailbox_pb2.OpenMailboxRequest, mailbox_pb2.OpenedMailbox]

LINGER = 60.0
"""Seconds that a mailbox is still watched after its last session: most come back."""


class UserSession(Protocol):
    """A session that ends when its user's account does."""

    def user_ended(self) -> None:
        """The user was disabled, or has another password."""


@dataclass(eq=False, slots=True)
class OpenMailbox:
    """A mailbox that sessions of this process have open, or had."""

    server: str
    user_id: int
    name: str
    mailbox: Mailbox
    gone: bool = False
    told_modseq: int = 0
    """What the watch said last."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Selected:
    """A session's mailbox."""

    opened: OpenMailbox
    view: View


class _Columns:
    """Collects the responses of a stream into one Change."""

    def __init__(self) -> None:
        self.uids: list[int] = []
        self.modseqs: list[int] = []
        self.flag_set: list[int] = []
        self.flag_sets: list[str] = []
        self.expunged: list[int] = []

    def add(self, columns: mailbox_pb2.MessageColumns) -> None:
        base = len(self.flag_sets)
        self.uids.extend(columns.uids)
        self.modseqs.extend(columns.modseqs)
        if base:
            self.flag_set.extend([base + index for index in columns.flag_set])
        else:
            self.flag_set.extend(columns.flag_set)
        self.flag_sets.extend(columns.flag_sets)

    def change(self, *, uid_next: int = 0, modseq: int = 0) -> Change:
        return Change(
            self.uids,
            self.modseqs,
            self.flag_set,
            self.flag_sets,
            self.expunged,
            uid_next,
            modseq,
        )


def _older(entries: OrderedDict[tuple[str, int], float], before: float) -> list[tuple[str, int]]:
    """Keys of the entries from before then; the oldest come first."""
    return [key for key, _ in takewhile(lambda entry: entry[1] < before, entries.items())]


class MailboxHub:
    """The open mailboxes of one process. Belongs to one event loop; `close` it.

    Args:
        clients: stubs by Messaging Server.
    """

    def __init__(self, clients: MailboxClients) -> None:
        self._clients = clients
        self._opened: dict[tuple[str, int], OpenMailbox] = {}
        self._ids: dict[tuple[str, int, str], int] = {}
        self.cache = MessageCache()
        self._lingering: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._idle_users: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed: OrderedDict[tuple[str, int], OpenMailbox] = OrderedDict()
        self._closed_messages = 0
        self._opening: WeakValueDictionary[tuple[str, int, str], asyncio.Lock] = (
            WeakValueDictionary()
        )
        self._openers: dict[str, _Opener] = {}
        self._watches: dict[str, MailboxWatch] = {}
        self._users: dict[tuple[str, int], set[UserSession]] = {}
        self._syncs: set[asyncio.Task[None]] = set()

    def stub(self, server: str) -> Any:
        """The MailboxService of a Messaging Server's NMAP agent."""
        return self._clients.for_server(server)

    async def close(self) -> None:
        """Ends the watches."""
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = [*self._syncs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch in self._watches.values():
            await watch.close()

    # Sessions.

    def enter(self, user: AuthenticatedUser, session: UserSession) -> None:
        """A session of this user has begun."""
        key = (user.server, user.user_id)
        sessions = self._users.get(key)
        if sessions is None:
            sessions = self._users[key] = set()
            self._watch(user.server).add_user(user.user_id)
        self._idle_users.pop(key, None)
        sessions.add(session)

    def leave(self, user: AuthenticatedUser, session: UserSession) -> None:
        """It has ended."""
        key = (user.server, user.user_id)
        sessions = self._users.get(key)
        if sessions is None:
            return
        sessions.discard(session)
        if not sessions:
            self._idle_users[key] = self._now()
            self._sweep_later()

    # Mailboxes.

    async def open(
        self, user: AuthenticatedUser, name: str, *, read_only: bool, on_change: Callable[[], None]
    ) -> Selected:
        """Opens a mailbox for a session.

        Raises: ReplyError (NONEXISTENT, UNAVAILABLE).
        """
        key = (user.server, user.user_id, name)
        lock = self._opening.get(key)
        if lock is None:
            lock = self._opening[key] = asyncio.Lock()
        async with lock:
            opened, first_recent = await self._open(user, name, read_only=read_only)
        view = View(opened.mailbox, read_only=read_only, on_change=on_change)
        view.claim_recent(first_recent, opened.mailbox.uid_next)
        return Selected(opened, view)

    async def _open(
        self, user: AuthenticatedUser, name: str, *, read_only: bool
    ) -> tuple[OpenMailbox, int]:
        server = user.server
        known = self._known(server, self._ids.get((server, user.user_id, name), 0))
        request = mailbox_pb2.OpenMailboxRequest(
            user_id=user.user_id,
            name=name,
            read_only=read_only,
            claim_recent=not read_only,
            known_mailbox_id=known.mailbox.id if known else 0,
            known_modseq=known.mailbox.modseq if known else 0,
        )
        columns = _Columns()
        try:
            answer = await self._opener(server)(request)
            if answer.error_reason:
                raise reply_for_reason(answer.error_reason)
            state, delta = answer.state, answer.delta
            if answer.too_large:
                delta = await self._list(server, request, columns)
            else:
                columns.add(answer.messages)
                columns.expunged.extend(answer.expunged_uids)
        except grpc.aio.AioRpcError as error:
            raise reply_for(error) from None
        change = columns.change(uid_next=state.uid_next, modseq=state.highest_modseq)
        opened = self._known(server, state.mailbox_id)
        if opened is None:
            mailbox = Mailbox(state.mailbox_id, state.uid_validity, state.object_id)
            opened = OpenMailbox(server, user.user_id, name, mailbox)
        if delta or not len(opened.mailbox):
            opened.mailbox.apply(change)
        else:
            opened.mailbox.replace_all(change)
        self._keep_open(opened, name)
        if opened.told_modseq > opened.mailbox.modseq:
            self._catch_up_later(opened, opened.told_modseq)
        return opened, state.first_recent_uid

    async def _list(
        self, server: str, request: mailbox_pb2.OpenMailboxRequest, columns: _Columns
    ) -> bool:
        """Streams the listing of a large mailbox; gives whether it is only what changed."""
        delta = False
        async for response in self.stub(server).OpenMailbox(request):
            delta = delta or response.delta
            columns.add(response.messages)
            columns.expunged.extend(response.expunged_uids)
        return delta

    def _opener(self, server: str) -> _Opener:
        opener = self._openers.get(server)
        if opener is None:

            async def call(
                requests: list[mailbox_pb2.OpenMailboxRequest],
            ) -> list[mailbox_pb2.OpenedMailbox]:
                response = await self.stub(server).OpenMailboxes(
                    mailbox_pb2.OpenMailboxesRequest(requests=requests, max_messages=_SMALL)
                )
                return list(response.results)

            opener = self._openers[server] = Gatherer(
                call, _OPENINGS, 1 << 20, lambda request: request.ByteSize(), in_flight=2
            )
        return opener

    def _known(self, server: str, mailbox_id: int) -> OpenMailbox | None:
        key = (server, mailbox_id)
        return self._opened.get(key) or self._closed.get(key)

    def _keep_open(self, opened: OpenMailbox, name: str) -> None:
        key = (opened.server, opened.mailbox.id)
        if self._closed.pop(key, None) is not None:
            self._closed_messages -= len(opened.mailbox)
        self._lingering.pop(key, None)
        opened.name = name
        self._ids[opened.server, opened.user_id, name] = opened.mailbox.id
        if key not in self._opened:
            self._opened[key] = opened
            self._watch(opened.server).add_mailbox(opened.mailbox.id)

    def release(self, selected: Selected) -> None:
        """The session has left the mailbox."""
        selected.view.close()
        opened = selected.opened
        key = (opened.server, opened.mailbox.id)
        if opened.mailbox.views or key not in self._opened:
            return
        if opened.gone:
            self._unwatch(key)
            self._forget_name(opened)
            return
        self._lingering[key] = self._now()
        self._sweep_later()

    def _unwatch(self, key: tuple[str, int]) -> OpenMailbox:
        self._lingering.pop(key, None)
        self._watch(key[0]).remove_mailbox(key[1])
        return self._opened.pop(key)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(LINGER / 4, self._sweep_now)

    def _sweep_now(self) -> None:
        """What nobody has come back to is watched no more."""
        self._sweep = None
        before = self._now() - LINGER
        for key in _older(self._lingering, before):
            self._remember(key, self._unwatch(key))
        for key in _older(self._idle_users, before):
            del self._idle_users[key], self._users[key]
            self._watch(key[0]).remove_user(key[1])
        if self._lingering or self._idle_users:
            self._sweep_later()

    def _remember(self, key: tuple[str, int], opened: OpenMailbox) -> None:
        if opened.gone:
            self._forget_name(opened)
            return
        self._closed[key] = opened
        self._closed_messages += len(opened.mailbox)
        while self._closed and (
            len(self._closed) > REMEMBERED_MAILBOXES or self._closed_messages > REMEMBERED_MESSAGES
        ):
            _, oldest = self._closed.popitem(last=False)
            self._closed_messages -= len(oldest.mailbox)
            self._forget_name(oldest)

    def _forget_name(self, opened: OpenMailbox) -> None:
        key = (opened.server, opened.user_id, opened.name)
        if self._ids.get(key) == opened.mailbox.id:
            del self._ids[key]

    # Changes.

    async def sync(self, opened: OpenMailbox) -> None:
        """Brings what changed in the mailbox, and tells its sessions."""
        async with opened.lock:
            await self._sync(opened)

    async def _sync(self, opened: OpenMailbox) -> None:
        mailbox = opened.mailbox
        writer = next((view for view in mailbox.views if not view.read_only), None)
        call = self.stub(opened.server).SyncMailbox(
            mailbox_pb2.SyncMailboxRequest(
                user_id=opened.user_id,
                mailbox_id=mailbox.id,
                since_modseq=mailbox.modseq,
                claim_recent=writer is not None,
            )
        )
        state = mailbox_pb2.MailboxState()
        columns = _Columns()
        try:
            async for response in call:
                if response.HasField("state"):
                    state = response.state
                columns.add(response.changed)
                columns.expunged.extend(response.expunged_uids)
                opened.gone = opened.gone or response.gone
        except grpc.aio.AioRpcError as error:
            if error_reason(error) != "MAILBOX_GONE":
                raise
            opened.gone = True
        if writer is not None:
            writer.claim_recent(state.first_recent_uid, state.uid_next)
        change = columns.change(uid_next=state.uid_next, modseq=state.highest_modseq)
        mailbox.apply(change)

    def take(
        self,
        selected: Selected,
        responses: Iterable[mailbox_pb2.MessageColumns],
        *,
        expunged: Iterable[int] = (),
        modseqs: tuple[int, int] = (0, 0),
        expected: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Applies what a session's own command changed, without asking for it again.

        Args:
            selected: the session's.
            responses: rows that changed.
            expunged: UIDs that went.
            modseqs: of the mailbox before and after, from the same transaction.
            expected: what the session thinks became of a set of flags.
        """
        mailbox = selected.opened.mailbox
        columns = _Columns()
        for response in responses:
            columns.add(response)
        columns.expunged.extend(expunged)
        before, after = modseqs
        in_step = 0 < before <= mailbox.modseq
        change = columns.change(modseq=after if in_step else 0)
        origin = selected.view if expected is not None else None
        mailbox.apply(change, origin=origin, expected=expected)

    def _watch(self, server: str) -> MailboxWatch:
        watch = self._watches.get(server)
        if watch is None:
            watch = self._watches[server] = MailboxWatch(
                lambda: self.stub(server),
                on_change=lambda change: self._changed(server, change),
                on_user_ended=lambda user_id: self._user_ended(server, user_id),
            )
        return watch

    def _changed(self, server: str, change: mailbox_pb2.MailboxChange) -> None:
        opened = self._opened.get((server, change.mailbox_id))
        if opened is None:
            return
        if change.gone:
            opened.gone = True
            opened.mailbox.apply(Change())
        elif change.highest_modseq > opened.mailbox.modseq:
            opened.told_modseq = change.highest_modseq
            if opened.mailbox.views:
                self._catch_up_later(opened, change.highest_modseq)

    def _catch_up_later(self, opened: OpenMailbox, modseq: int) -> None:
        task = asyncio.get_running_loop().create_task(self._catch_up(opened, modseq))
        self._syncs.add(task)
        task.add_done_callback(self._syncs.discard)

    async def _catch_up(self, opened: OpenMailbox, modseq: int) -> None:
        async with opened.lock:
            if opened.mailbox.modseq >= modseq or not opened.mailbox.views:
                return
            # A failure is not lost: the watch tells the modseq again when it is back.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._sync(opened)

    def _user_ended(self, server: str, user_id: int) -> None:
        for session in tuple(self._users.get((server, user_id), ())):
            session.user_ended()
