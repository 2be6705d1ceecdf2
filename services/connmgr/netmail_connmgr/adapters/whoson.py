"""Serves WHOSON by UDP and TCP over the front desk."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    Decision,
    LoginProtocol,
    SenderQuestion,
)

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.udp_and_tcp import Service, known_hosts, serve
from netmail_connmgr.domain.front_desk import Answer, Enquiry, FrontDeskUnavailable
from netmail_connmgr.domain.table import Outcome
from netmail_connmgr.protocol.whoson import BadRequest, Request, RequestReader, Sign, Verb, reply

__all__ = ["NAME", "Whoson", "prepare"]

NAME = "whoson"
_IDLE = 60.0
"""Seconds for the next request to be complete."""
_WRITE = 10.0
_READ = 4096
_ANY_LOGIN = SenderQuestion(binding=Binding.ANY)

_LOGIN_REPLIES = {
    Outcome.REGISTERED: (Sign.YES, "LOGIN OK"),
    Outcome.SHARED_NETWORK: (Sign.YES, "LOGIN OK, but this network is shared and never vouches"),
    Outcome.REVOKED: (Sign.NO, "LOGIN refused: revoked"),
    Outcome.EXPIRED: (Sign.NO, "LOGIN refused: expired"),
    Outcome.INVALID: (Sign.NO, "LOGIN refused: not a user's name"),
    Outcome.TABLE_FULL: (Sign.ERROR, "too many logins, try later"),
}


def prepare(setup: FrontEndSetup) -> AbstractAsyncContextManager[Sequence[int]]:
    """Reads the configuration; what it gives serves while it is entered.

    Raises: ConfigError.
    """
    book = AddressBook(setup.config.address_map, default_context=setup.default_context)
    whoson = Whoson(setup, book)
    allowed = known_hosts(setup, setup.config.whoson.allowed_sources, NAME)
    return _serving(setup, book, Service(NAME, allowed, whoson.datagram, whoson.stream))


@contextlib.asynccontextmanager
async def _serving(
    setup: FrontEndSetup, book: AddressBook, service: Service
) -> AsyncIterator[Sequence[int]]:
    listen = setup.config.whoson.listen
    async with book.followed(), serve(service, listen, reuse_port=setup.reuse_port) as ports:
        yield ports


class Whoson:
    """Answers requests; belongs to one event loop."""

    def __init__(self, setup: FrontEndSetup, book: AddressBook) -> None:
        self._setup = setup
        self._book = book
        self._desk = setup.desk
        self._udp_login = setup.config.whoson.udp_login
        self._default_context = setup.default_context

    async def datagram(self, data: bytes) -> bytes | None:
        """Answers a datagram, which is one request."""
        reader = RequestReader()
        reader.feed(data)
        try:
            request = reader.next_request()
        except BadRequest as error:
            return _bad(error)
        if request is None or reader.pending:
            return _bad(BadRequest("one line, then an empty line"))
        if request.verb in {Verb.LOGIN, Verb.LOGOUT} and not self._udp_login:
            return _answered("no", reply(Sign.ERROR, f"{request.verb.value} by TCP only"))
        return await self.answer(request)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection until QUIT, its end, silence or nonsense."""
        requests = RequestReader()
        while True:
            async with asyncio.timeout(_IDLE):
                request, answer = await self._next(requests, reader)
            if request is not None:
                answer = await self.answer(request)
            if answer is None:
                return
            writer.write(answer)
            async with asyncio.timeout(_WRITE):
                await writer.drain()
            if requests.broken or (request is not None and request.verb is Verb.QUIT):
                return

    async def answer(self, request: Request) -> bytes:
        """The reply to a request."""
        try:
            match request.verb:
                case Verb.LOGIN:
                    return await self._login(request)
                case Verb.LOGOUT:
                    await self._desk.log_out(None, request.address)
                    return _answered("yes", reply(Sign.YES, "LOGOUT OK"))
                case Verb.QUERY:
                    return await self._query(request)
                case Verb.QUIT:
                    return _answered("yes", reply(Sign.YES, "QUIT OK"))
        except FrontDeskUnavailable:
            return _answered("unavailable", reply(Sign.ERROR, "cannot say now, try later"))

    async def _next(
        self, requests: RequestReader, reader: asyncio.StreamReader
    ) -> tuple[Request | None, bytes | None]:
        """The next request, or what to answer without one; neither: the connection is over."""
        while True:
            try:
                request = requests.next_request()
            except BadRequest as error:
                return None, _bad(error)
            if request is not None:
                return request, None
            data = await reader.read(_READ)
            if not data:
                return None, None
            requests.feed(data)

    async def _login(self, request: Request) -> bytes:
        candidate = self._setup.candidate(
            self._setup.user(request.user),
            request.address,
            LoginProtocol.WHOSON,
            self._book.map,
            agent=NAME,
            # Each LOGIN renews: none is a repetition of an earlier one.
            session_id=secrets.token_hex(8),
        )
        (registered,) = await self._desk.register([candidate])
        sign, text = _LOGIN_REPLIES[registered.outcome]
        return _answered("yes" if sign is Sign.YES else "no", reply(sign, text))

    async def _query(self, request: Request) -> bytes:
        enquiry = Enquiry(request.address, _ANY_LOGIN, "WHOSON")
        (answer,) = await self._desk.enquire([enquiry])
        if answer.decision.decision is not Decision.ALLOWED:
            return _answered("no", reply(Sign.NO, "not logged in"))
        return _answered("yes", reply(Sign.YES, self._name(answer)))

    def _name(self, answer: Answer) -> str:
        """Who it is; a name of the context that bare names belong to stands bare."""
        login = answer.decision.login
        user = login.user if login is not None else ANONYMOUS
        if user == ANONYMOUS:
            return "(no name)"
        return user.name if user.context == self._default_context else str(user)


def _bad(error: BadRequest) -> bytes:
    return _answered("malformed", reply(Sign.ERROR, str(error)))


def _answered(outcome: str, answer: bytes) -> bytes:
    metrics.FRONT_END_REQUESTS.labels(NAME, outcome).inc()
    return answer
