"""Serves Postfix's policy delegation protocol over the front desk."""

import asyncio
import contextlib
import functools
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

from netmail_common.config import ConfigError
from netmail_common.connmgr.model import Binding, SenderDecision
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.seldom import Seldom
from netmail_connmgr.adapters.stream_listener import ListenerSetup, accept_streams
from netmail_connmgr.domain.front_desk import FrontDesk, FrontDeskUnavailable, RelayedMail
from netmail_connmgr.domain.policy_answers import PolicyAnswers, PolicySettings
from netmail_connmgr.protocol.postfix_policy import PolicyReader, PolicyRequest, answer

__all__ = ["NAME", "PolicyServer", "prepare"]

NAME = "postfix_policy"
_MOST_WAITING = 64
"""Requests of one connection that wait; then nothing more is read from it."""
_WORD = re.compile(r"[A-Za-z0-9]{16,64}")

log = get_logger(__name__)

# Looked up at each answer. There are few: an action's verb is in the configuration or ours.
_answers = functools.lru_cache(maxsize=16)(
    functools.partial(metrics.FRONT_END_REQUESTS.labels, NAME)
)


def prepare(setup: FrontEndSetup) -> AbstractAsyncContextManager[Sequence[int]]:
    """Reads the configuration; what it gives serves while it is entered.

    Raises: ConfigError.
    """
    config = setup.config.postfix_policy
    settings = PolicySettings(
        binding=Binding(config.sender_binding),
        known=config.known_answer,
        unknown=config.unknown_answer,
        trace_word=_trace_word(setup, config.trace_word_file),
    )
    book = AddressBook(setup.config.address_map, default_context=setup.default_context)
    listener = ListenerSetup(
        name=NAME,
        listen=config.listen,
        path=config.socket if setup.opens_unix_sockets else None,
        allowed=setup.allowed_sources(config.allowed_sources, NAME),
        max_connections=config.max_connections,
        reuse_port=setup.reuse_port,
    )
    answers = PolicyAnswers(settings, setup.user)
    server = PolicyServer(setup.desk, book, answers, idle_timeout=config.idle_timeout)
    return _serve(listener, server, book)


@contextlib.asynccontextmanager
async def _serve(
    listener: ListenerSetup, server: "PolicyServer", book: AddressBook
) -> AsyncIterator[Sequence[int]]:
    async with book.followed(), accept_streams(listener, server.connection) as ports:
        yield ports
    await server.close()


def _trace_word(setup: FrontEndSetup, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        word = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise _bad_word(setup, path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError:
        word = ""
    if _WORD.fullmatch(word) is None:
        raise _bad_word(setup, path, "not one word of 16 to 64 letters and digits")
    return word


def _bad_word(setup: FrontEndSetup, path: Path, why: str) -> ConfigError:
    return setup.error(f"postfix_policy.trace_word_file: {path}: {why}")


class PolicyServer:
    """Answers the requests of all connections: what one turn of the loop brings goes together.

    Args:
        idle_timeout: seconds after which a silent connection is closed.
    """

    def __init__(
        self, desk: FrontDesk, book: AddressBook, answers: PolicyAnswers, *, idle_timeout: float
    ) -> None:
        self._desk = desk
        self._book = book
        self._answers = answers
        self._waiting: list[tuple[_Connection, PolicyRequest]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._malformed = Seldom()
        self._unavailable = Seldom()
        self.idle_timeout = idle_timeout

    def connection(self, peer: str, ended: Callable[[], None]) -> asyncio.Protocol:
        """The protocol of one connection."""
        return _Connection(self, peer, ended)

    async def close(self) -> None:
        """Lets go of what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def ask(self, connection: "_Connection", request: PolicyRequest) -> bool:
        """Answers at once, or later and gives False."""
        action = self._answers.at_once(request)
        if action is not None:
            connection.answer(action)
            return True
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._start)
        self._waiting.append((connection, request))
        return False

    def malformed(self, peer: str, why: str) -> None:
        """Counts each one; says so once a second at most."""
        metrics.FRONT_END_REQUESTS.labels(NAME, "malformed").inc()
        if self._malformed():
            log.warning("not a policy request", front_end=NAME, peer=peer, reason=why)

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._decide(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, batch: "list[tuple[_Connection, PolicyRequest]]") -> None:
        actions = await self._actions([request for _, request in batch])
        for (connection, _), action in zip(batch, actions, strict=True):
            connection.answered(action)

    async def _actions(self, requests: Sequence[PolicyRequest]) -> Sequence[str]:
        answers = self._answers
        decisions = await self._decisions(requests)
        mails = list(map(answers.mail, requests, decisions))
        counted = [mail for mail in mails if mail is not None]
        within = iter(await self._count(counted) if counted else ())
        return [
            answers.action(request, decision, within_rate=mail is None or next(within))
            for request, decision, mail in zip(requests, decisions, mails, strict=True)
        ]

    async def _decisions(self, requests: Sequence[PolicyRequest]) -> list[SenderDecision | None]:
        """None: nobody can say, or nobody need be asked."""
        known = self._book.map
        asked = [self._answers.enquiry(request, known) for request in requests]
        enquiries = [enquiry for enquiry in asked if enquiry is not None]
        try:
            found = iter(await self._desk.enquire(enquiries) if enquiries else ())
        except FrontDeskUnavailable as error:
            if self._unavailable():
                log.warning("cannot decide", front_end=NAME, reason=str(error))
        except Exception:
            log.exception("cannot decide", front_end=NAME)
        else:
            return [None if enquiry is None else next(found).decision for enquiry in asked]
        return [None] * len(requests)

    async def _count(self, mails: Sequence[RelayedMail]) -> Sequence[bool]:
        """Whether mail is within its sender's rates; what cannot be counted is."""
        try:
            return await self._desk.count_mail(mails)
        except FrontDeskUnavailable as error:
            if self._unavailable():
                log.warning("mail is not counted", front_end=NAME, reason=str(error))
        except Exception:
            log.exception("mail is not counted", front_end=NAME)
        return [True] * len(mails)


class _Connection(asyncio.Protocol):
    """A Postfix process that asks. Its answers go out in the order of its requests."""

    def __init__(self, server: PolicyServer, peer: str, ended: Callable[[], None]) -> None:
        self._server = server
        self._peer = peer
        self._ended = ended
        self._reader = PolicyReader()
        self._requests: deque[PolicyRequest] = deque()
        self._transport: asyncio.Transport | None = None
        self._busy = False
        """A request is being decided."""
        self._full = False
        """The peer does not read its answers."""
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._last = time.monotonic()
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._last = time.monotonic()
        self._requests.extend(self._reader.feed(data))
        self._advance()

    def eof_received(self) -> None:
        """Postfix says nothing more; what it waits for, it does not wait for."""

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._advance()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._requests.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._ended()

    def answered(self, action: str) -> None:
        """The request that was being decided has its answer."""
        self._busy = False
        self.answer(action)
        self._advance()

    def answer(self, action: str) -> None:
        """Sends one answer."""
        if self._transport is not None:
            _answers(_outcome(action)).inc()
            self._transport.write(answer(action))

    def _advance(self) -> None:
        """Goes on with the next requests, as far as may be."""
        if self._transport is None:
            return
        while self._requests and not (self._busy or self._full):
            self._busy = not self._server.ask(self, self._requests.popleft())
        waiting = len(self._requests)
        if self._reader.broken and not (waiting or self._busy):
            self._server.malformed(self._peer, self._reader.broken)
            self._transport.close()
        elif waiting > _MOST_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        elif self._paused and not waiting:
            self._paused = False
            self._transport.resume_reading()

    def _watch(self) -> None:
        """Closes the connection when nothing was heard for too long."""
        if self._transport is None:
            return
        left = self._last + self._server.idle_timeout - time.monotonic()
        if left <= 0 and not self._busy:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(left, 1.0), self._watch)


def _outcome(action: str) -> str:
    """For the metrics: the verb of the action, of which there are few."""
    return action.partition(" ")[0].lower()
