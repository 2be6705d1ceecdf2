"""The Authenticate stream: many sessions' exchanges at once, each with an id."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Sequence

from netmail.nmap.v1 import directory_pb2
from netmail_common.logging import get_logger

from netmail_nmap.adapters.authenticator import (
    Asker,
    AuthAnswer,
    Authenticator,
    AuthOutcome,
    ScramUnderWay,
)
from netmail_nmap.domain.users import UserRecord

_log = get_logger(__name__)

MAX_OPEN = 4096
"""Exchanges under way on one stream; beyond it they fail temporarily."""
SCRAM_LIFETIME = 60.0
"""Seconds that a client has between the two steps of SCRAM."""

_SERVICES = frozenset({"smtp", "pop3", "imap"})
_OUTCOMES = {
    AuthOutcome.OK: directory_pb2.AUTHENTICATE_OUTCOME_OK,
    AuthOutcome.CONTINUE: directory_pb2.AUTHENTICATE_OUTCOME_CONTINUE,
    AuthOutcome.INVALID_CREDENTIALS: directory_pb2.AUTHENTICATE_OUTCOME_INVALID_CREDENTIALS,
    AuthOutcome.UNKNOWN_USER: directory_pb2.AUTHENTICATE_OUTCOME_UNKNOWN_USER,
    AuthOutcome.TEMPORARY_FAILURE: directory_pb2.AUTHENTICATE_OUTCOME_TEMPORARY_FAILURE,
    AuthOutcome.MALFORMED: directory_pb2.AUTHENTICATE_OUTCOME_MALFORMED,
}

Request = directory_pb2.AuthenticateRequest
Response = directory_pb2.AuthenticateResponse
_TEMPORARY = AuthAnswer(AuthOutcome.TEMPORARY_FAILURE)


class AuthenticateSession:
    """One stream.

    Args:
        authenticator: verifies.
        write: sends a response.
        user_message: what a response says about a user.
        domains: gives those of the Messaging Server that holds the users.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        write: Callable[[Response], Awaitable[None]],
        user_message: Callable[[UserRecord], directory_pb2.User],
        domains: Callable[[], Sequence[str]],
    ) -> None:
        self._authenticator = authenticator
        self._write = write
        self._write_lock = asyncio.Lock()
        self._user_message = user_message
        self._domains = domains
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._scram: dict[int, tuple[ScramUnderWay, asyncio.TimerHandle]] = {}

    async def run(self, requests: AsyncIterable[Request], stop: asyncio.Event) -> None:
        """Serves until the client ends the stream, or STOP is set.

        What was begun by then is answered.
        """
        reader = asyncio.create_task(self._read(requests))
        stopper = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((reader, stopper), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            else:
                await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            reader.cancel()
            stopper.cancel()
            for task in self._running:
                task.cancel()
            for _, timer in self._scram.values():
                timer.cancel()
            await asyncio.gather(reader, stopper, *self._running, return_exceptions=True)

    async def _read(self, requests: AsyncIterable[Request]) -> None:
        async for request in requests:
            await self._take(request)

    async def _take(self, request: Request) -> None:
        exchange_id = request.exchange_id
        match request.WhichOneof("step"):
            case "start":
                if exchange_id in self._tasks or exchange_id in self._scram:
                    await self._answer(exchange_id, AuthAnswer(AuthOutcome.MALFORMED))
                elif len(self._tasks) + len(self._scram) >= MAX_OPEN:
                    await self._answer(exchange_id, _TEMPORARY)
                else:
                    self._spawn(exchange_id, self._start(exchange_id, request.start))
            case "response":
                under_way = self._take_scram(exchange_id)
                if under_way is None:
                    await self._answer(exchange_id, _TEMPORARY)
                else:
                    self._spawn(
                        exchange_id, self._authenticator.finish_scram(under_way, request.response)
                    )
            case "cancel":
                self._take_scram(exchange_id)
                task = self._tasks.get(exchange_id)
                if task is not None:
                    task.cancel()
            case _:
                await self._answer(exchange_id, AuthAnswer(AuthOutcome.MALFORMED))

    def _spawn(self, exchange_id: int, work: Coroutine[None, None, AuthAnswer]) -> None:
        task = asyncio.create_task(self._logged(exchange_id, work))
        self._tasks[exchange_id] = task
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _logged(self, exchange_id: int, work: Coroutine[None, None, AuthAnswer]) -> None:
        """Runs one step; whatever happens in it, the client gets an answer."""
        try:
            answer = await work
        except Exception:  # noqa: BLE001 - one exchange must not end the stream of all
            _log.exception("authentication step failed")
            answer = _TEMPORARY
        finally:
            # The id is free before the client can use it again for its next step.
            self._tasks.pop(exchange_id, None)
        with contextlib.suppress(asyncio.InvalidStateError):  # the stream has ended
            await self._answer(exchange_id, answer)

    async def _start(self, exchange_id: int, start: directory_pb2.AuthenticateStart) -> AuthAnswer:
        asker = Asker(
            messaging_server=start.messaging_server,
            service=start.service if start.service in _SERVICES else "other",
            client_address=_address_text(start.client_address),
            last=start.last,
        )
        if start.mechanism == directory_pb2.MECHANISM_PASSWORD:
            return await self._authenticator.verify_password(start.username, start.password, asker)
        if start.mechanism == directory_pb2.MECHANISM_SCRAM_SHA_256:
            answer, under_way = await self._authenticator.start_scram(start.client_first, asker)
            if under_way is not None:
                timer = asyncio.get_running_loop().call_later(
                    SCRAM_LIFETIME, self._scram.pop, exchange_id, None
                )
                self._scram[exchange_id] = (under_way, timer)
            return answer
        return AuthAnswer(AuthOutcome.MALFORMED)

    def _take_scram(self, exchange_id: int) -> ScramUnderWay | None:
        entry = self._scram.pop(exchange_id, None)
        if entry is None:
            return None
        under_way, timer = entry
        timer.cancel()
        return under_way

    async def _answer(self, exchange_id: int, answer: AuthAnswer) -> None:
        response = Response(
            exchange_id=exchange_id, outcome=_OUTCOMES[answer.outcome], data=answer.data
        )
        if answer.user is not None and answer.outcome is AuthOutcome.OK:
            response.user.CopyFrom(self._user_message(answer.user))
            response.domains.extend(self._domains())
        elif answer.user is not None:
            response.user.name, response.user.context = answer.user.name, answer.user.context
        async with self._write_lock:
            await self._write(response)


def _address_text(packed: bytes) -> str:
    try:
        return str(ipaddress.ip_address(packed))
    except ValueError:
        return ""
