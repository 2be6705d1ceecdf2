"""The UseMaildrops stream: the POP3 sessions of a client process, each a locked INBOX."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from netmail.nmap.v1 import mailbox_pb2
from netmail_common.logging import get_logger

from netmail_nmap.domain.errors import NmapError
from netmail_nmap.domain.mail import INBOX, FetchRequest, OpenRequest, StoreMode, StoreRequest
from netmail_nmap.domain.store import MailStore

MAX_OPEN = 20_000
"""Sessions on one stream; beyond it they fail."""
MAX_BODY = 1024 * 1024
"""Octets of a message that may be retrieved here."""
_ROWS = 100_000
"""Messages in one result of an open step."""
_GATHER = 0.001
"""Seconds that a result waits for those of other sessions, if there are steps under way."""
_BATCH = 2 * 1024 * 1024
"""Octets of results in one response."""

log = get_logger(__name__)

Step = mailbox_pb2.MaildropStep
Result = mailbox_pb2.MaildropResult
Response = mailbox_pb2.UseMaildropsResponse

_FAILED = mailbox_pb2.MAILDROP_OUTCOME_FAILED
_OK = mailbox_pb2.MAILDROP_OUTCOME_OK


@dataclass(slots=True)
class _Session:
    """One POP3 session: what it holds, and its steps, one at a time."""

    steps: deque[Step] = field(default_factory=deque)
    held: AsyncExitStack = field(default_factory=AsyncExitStack)
    user_id: int = 0
    mailbox_id: int = 0
    ended: bool = False


class MaildropStream:
    """One stream.

    Args:
        store: the mailboxes.
        write: sends a response.
    """

    def __init__(self, store: MailStore, write: Callable[[Response], Awaitable[None]]) -> None:
        self._store = store
        self._write = write
        self._sessions: dict[int, _Session] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._results: deque[Result] = deque()
        self._writable = asyncio.Event()
        self._writing = asyncio.Lock()

    async def run(
        self, requests: AsyncIterable[mailbox_pb2.UseMaildropsRequest], stop: asyncio.Event
    ) -> None:
        """Serves until the client ends the stream, or STOP is set and what was begun is answered.

        Then every lock is given back.
        """
        reader = asyncio.create_task(self._read(requests))
        stopper = asyncio.create_task(stop.wait())
        writer = asyncio.create_task(self._write_results())
        try:
            await asyncio.wait((reader, stopper, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            elif not writer.done():
                reader.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)
                await self._flush()
        finally:
            tasks = (reader, stopper, writer, *self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for session in self._sessions.values():
                await session.held.aclose()

    async def _read(self, requests: AsyncIterable[mailbox_pb2.UseMaildropsRequest]) -> None:
        async for request in requests:
            for step in request.steps:
                self._take(step)

    def _take(self, step: Step) -> None:
        session = self._sessions.get(step.session_id)
        if session is None:
            if step.WhichOneof("step") != "open" or len(self._sessions) >= MAX_OPEN:
                if _is_answered(step):
                    self._answer(Result(session_id=step.session_id, outcome=_FAILED))
                return
            session = self._sessions[step.session_id] = _Session()
        session.steps.append(step)
        if len(session.steps) == 1:
            task = asyncio.create_task(self._run_steps(step.session_id, session))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_steps(self, session_id: int, session: _Session) -> None:
        """Steps stay queued while they run, so that one task at a time works for a session."""
        while session.steps:
            await self._run_step(session, session.steps[0])
            session.steps.popleft()
            if session.ended:
                del self._sessions[session_id]
                return

    async def _run_step(self, session: _Session, step: Step) -> None:
        try:
            match step.WhichOneof("step"):
                case "open" if not session.user_id:
                    await self._open(session, step)
                case "retrieve" if session.mailbox_id:
                    await self._retrieve(session, step)
                case "close":
                    await self._close(session, step)
                case _:
                    self._answer(Result(session_id=step.session_id, outcome=_FAILED))
        except NmapError as error:
            log.info("maildrop step failed", step=step.WhichOneof("step"), reason=error.reason)
            await self._fail(session, step)
        except Exception:
            log.exception("maildrop step failed", step=step.WhichOneof("step"))
            await self._fail(session, step)

    async def _fail(self, session: _Session, step: Step) -> None:
        if step.WhichOneof("step") != "retrieve":
            await self._end(session)
        if _is_answered(step):
            self._answer(Result(session_id=step.session_id, outcome=_FAILED))

    async def _end(self, session: _Session) -> None:
        session.ended = True
        await session.held.aclose()

    async def _open(self, session: _Session, step: Step) -> None:
        session.user_id = step.open.user_id
        held = await session.held.enter_async_context(self._store.lock(session.user_id, INBOX))
        if not held:
            await self._end(session)
            in_use = mailbox_pb2.MAILDROP_OUTCOME_IN_USE
            self._answer(Result(session_id=step.session_id, outcome=in_use))
            return
        view = await self._store.open_mailbox(
            OpenRequest(session.user_id, INBOX, with_sizes=True, with_object_ids=True)
        )
        session.mailbox_id = view.state.mailbox_id
        columns = view.messages
        for first in range(0, len(columns.uids), _ROWS) or (0,):
            rows = slice(first, first + _ROWS)
            result = Result(
                session_id=step.session_id,
                outcome=_OK,
                mailbox_id=session.mailbox_id,
                more=rows.stop < len(columns.uids),
            )
            result.messages.uids.extend(columns.uids[rows])
            result.messages.sizes.extend(columns.sizes[rows])
            result.messages.object_ids.extend(columns.object_ids[rows])
            result.messages.flag_set.extend(columns.flag_set[rows])
            result.messages.flag_sets.extend(columns.flag_sets)
            self._answer(result)

    async def _retrieve(self, session: _Session, step: Step) -> None:
        request = FetchRequest(
            session.user_id,
            session.mailbox_id,
            (step.retrieve.uid,),
            body=True,
            body_length=MAX_BODY,
        )
        pieces = [part.body async for batch in self._store.fetch(request) for part in batch]
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._answer(Result(session_id=step.session_id, outcome=_OK, body=body))
        else:
            gone = mailbox_pb2.MAILDROP_OUTCOME_GONE
            self._answer(Result(session_id=step.session_id, outcome=gone))

    async def _close(self, session: _Session, step: Step) -> None:
        close = step.close
        if close.remove_uids and session.mailbox_id:
            await self._store.expunge(
                session.user_id, session.mailbox_id, tuple(close.remove_uids), only_deleted=False
            )
        if close.seen_uids and session.mailbox_id:
            await self._store.store_flags(
                StoreRequest(
                    session.user_id,
                    session.mailbox_id,
                    tuple(close.seen_uids),
                    StoreMode.ADD,
                    ("\\Seen",),
                )
            )
        await self._end(session)
        if _is_answered(step):
            self._answer(Result(session_id=step.session_id, outcome=_OK))

    def _answer(self, result: Result) -> None:
        self._results.append(result)
        self._writable.set()

    async def _write_results(self) -> None:
        """Sends what has gathered while the last response was on its way."""
        while True:
            await self._writable.wait()
            self._writable.clear()
            if self._running:
                await asyncio.sleep(_GATHER)
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            while self._results:
                response, size = Response(), 0
                while self._results and size < _BATCH:
                    result = self._results.popleft()
                    size += result.ByteSize()
                    response.results.append(result)
                await self._write(response)


def _is_answered(step: Step) -> bool:
    """A close step with nothing to do is not: nobody waits for it."""
    close = step.close
    return step.WhichOneof("step") != "close" or bool(close.remove_uids or close.seen_uids)
