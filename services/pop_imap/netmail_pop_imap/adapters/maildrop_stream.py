"""The one long-lived UseMaildrops stream of a process to an NMAP agent.

The POP3 sessions of the process share it, so that none costs a call of its own. A stream that
breaks takes the locks of its sessions with it; the next session opens another.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.logging import get_logger

log = get_logger(__name__)

_GATHER = 0.001
"""Seconds that a step waits for those of other sessions, if there are answers due."""
_MAX_STEPS = 256
"""Steps in one request."""

Step = mailbox_pb2.MaildropStep
Result = mailbox_pb2.MaildropResult


class StreamBroken(Exception):
    """The stream ended before the answer came; the lock is gone."""


class MaildropSession:
    """One session on a stream: its steps, one at a time.

    Args:
        stream: the live one.
        session_id: unique on it.
        lost: called once if the stream breaks while the session is open and waits for nothing.
    """

    __slots__ = ("_answers", "_lost", "_session_id", "_stream", "_waiter")

    def __init__(self, stream: "_LiveStream", session_id: int, lost: Callable[[], None]) -> None:
        self._stream = stream
        self._session_id = session_id
        self._lost = lost
        self._answers: deque[Result] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def open(self, user_id: int) -> list[Result]:
        """Locks and lists; the results hold the messages. Any outcome but OK ends the session.

        Raises: StreamBroken.
        """
        step = Step(session_id=self._session_id, open=mailbox_pb2.MaildropOpen(user_id=user_id))
        results = [await self._ask(step)]
        while results[-1].more:
            results.append(await self._answer())
        if results[0].outcome != mailbox_pb2.MAILDROP_OUTCOME_OK:
            self._stream.forget(self._session_id)  # the agent has ended it
        return results

    async def retrieve(self, uid: int) -> Result:
        """A message of at most 1 MiB. Raises: StreamBroken."""
        retrieve = mailbox_pb2.MaildropRetrieve(uid=uid)
        return await self._ask(Step(session_id=self._session_id, retrieve=retrieve))

    async def close(self, remove: list[int], seen: list[int]) -> Result:
        """Removes and flags, durably, and gives the lock back; not both lists are empty.

        Raises: StreamBroken.
        """
        close = mailbox_pb2.MaildropClose(remove_uids=remove, seen_uids=seen)
        try:
            return await self._ask(Step(session_id=self._session_id, close=close))
        finally:
            self._stream.forget(self._session_id)

    def abandon(self) -> None:
        """Gives the lock back without waiting; nothing is removed."""
        if self._stream.forget(self._session_id):
            self._stream.send(Step(session_id=self._session_id, close=mailbox_pb2.MaildropClose()))

    def take(self, result: Result) -> None:
        """The stream's reader has an answer for this session."""
        self._answers.append(result)
        self._wake()

    def broken(self) -> None:
        """The stream has ended."""
        if self._waiter is None:
            self._lost()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _ask(self, step: Step) -> Result:
        if self._stream.ended:
            raise StreamBroken
        self._stream.send(step)
        return await self._answer()

    async def _answer(self) -> Result:
        if not self._answers:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not self._answers:
            raise StreamBroken
        return self._answers.popleft()


class _LiveStream:
    """One call: steps go out in requests that sessions share, answers are handed to theirs.

    A step goes at once if no answer is due. Otherwise it waits for the next answer, 1 ms at most,
    and goes together with whatever else has come until then.
    """

    def __init__(self, call: Any, server: str) -> None:
        self._call = call
        self._server = server
        self._sessions: dict[int, MaildropSession] = {}
        self._steps: list[Step] = []
        self._due = 0
        self._timer: asyncio.Handle | None = None
        self._writer: asyncio.Task[None] | None = None
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._reader = self._loop.create_task(self._read())

    def add(self, session_id: int, session: MaildropSession) -> None:
        """From now on answers to this id are the session's."""
        self._sessions[session_id] = session

    def forget(self, session_id: int) -> bool:
        """The session is over; False: it was already."""
        return self._sessions.pop(session_id, None) is not None

    def send(self, step: Step, *, answered: bool = True) -> None:
        """Queues a step; `answered`: somebody waits for its result."""
        if self.ended:
            return
        self._steps.append(step)
        if self._timer is None:
            if self._due or not answered:
                self._timer = self._loop.call_later(_GATHER, self._flush)
            else:
                self._timer = self._loop.call_soon(self._flush)
        self._due += answered

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is None and self._steps and not self.ended:
            self._writer = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._steps:
                steps, self._steps = self._steps, []
                for first in range(0, len(steps), _MAX_STEPS):
                    await self._call.write(
                        mailbox_pb2.UseMaildropsRequest(steps=steps[first : first + _MAX_STEPS])
                    )
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            self._call.cancel()  # the reader sees the end
        finally:
            self._writer = None

    async def _read(self) -> None:
        try:
            async for response in self._call:
                for result in response.results:
                    self._due -= not result.more
                    session = self._sessions.get(result.session_id)
                    if session is not None:
                        session.take(result)
                self._flush()
        except grpc.aio.AioRpcError as error:
            log.warning("maildrop stream broke", server=self._server, code=error.code().name)
        finally:
            self.ended = True
            sessions = list(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                session.broken()

    async def close(self) -> None:
        """Ends the call; sessions that are still open are lost."""
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class MaildropStreams:
    """Keeps one stream open to each NMAP agent, from the first session on.

    Args:
        stub_for: the mailbox stub of a Messaging Server.
    """

    def __init__(self, stub_for: Callable[[str], Any]) -> None:
        self._stub_for = stub_for
        self._live: dict[str, _LiveStream] = {}
        self._ids = itertools.count(1)

    def session(self, server: str, lost: Callable[[], None]) -> MaildropSession:
        """A new session with the NMAP agent of a Messaging Server."""
        live = self._live.get(server)
        if live is None or live.ended:
            call = self._stub_for(server).UseMaildrops(wait_for_ready=True)
            live = self._live[server] = _LiveStream(call, server)
        session_id = next(self._ids)
        session = MaildropSession(live, session_id, lost)
        live.add(session_id, session)
        return session

    async def close(self) -> None:
        """Ends the streams."""
        await asyncio.gather(*(live.close() for live in self._live.values()))
        self._live.clear()
