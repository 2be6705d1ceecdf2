"""Client of the Connection Manager. It fails closed: no answer is an error, never a yes."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc

from netmail_common.connmgr.events import WatchEvent, WatchMode, boot_time
from netmail_common.connmgr.model import UserKey
from netmail_common.connmgr.watcher import Watcher
from netmail_common.gather import Gatherer
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.networks import NetworkMap

__all__ = ["ConnectionManagerClient", "ConnectionManagerUnavailable"]

_MAX_ITEMS = 256
_MAX_OCTETS = 1024 * 1024
_LINGER = 0.001
"""Seconds that logins wait for others when several went together before."""
_IN_FLIGHT = 1
"""Calls of one kind at once: what waits for them gathers."""
_CONNECTIONS_IN_FLIGHT = 64
"""Questions about connections may have to wait for DNS, and must not make others wait."""

T = TypeVar("T")
Req = TypeVar(
    "Req",
    connmgr_pb2.LoginRegistration,
    connmgr_pb2.SenderCheck,
    connmgr_pb2.ConnectionCheck,
    connmgr_pb2.Event,
)
Res = TypeVar("Res")


class ConnectionManagerUnavailable(Exception):
    """The Connection Manager did not answer, or could not.

    Attributes:
        reason: the ErrorInfo reason if there is one, else the gRPC status, or TIMEOUT.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the Connection Manager does not answer: {reason}")
        self.reason = reason


class ConnectionManagerClient:
    """Registers logins, asks for relay decisions, watches and revokes.

    Belongs to one event loop. Each method may raise ConnectionManagerUnavailable; the gRPC
    statuses INVALID_ARGUMENT and PERMISSION_DENIED, which are faults of the caller, come as they
    are (grpc.aio.AioRpcError).

    Args:
        channel: to the Connection Manager; the caller closes it.
        timeout: seconds for an answer, the waiting for earlier calls included.
        networks: the Connection Manager's address rules, to tell what a revocation by address
            covers; default: those without configured prefixes.
    """

    def __init__(
        self, channel: Channel, *, timeout: float = 5.0, networks: NetworkMap | None = None
    ) -> None:
        self._stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
        self._timeout = timeout
        self._networks = networks
        self._register = _gatherer(self._send_registrations, linger=_LINGER)
        self._check = _gatherer(self._send_checks)
        self._check_connection = _gatherer(self._send_connections, _CONNECTIONS_IN_FLIGHT)
        self._check_login = _gatherer(self._send_connections)
        self._report = _gatherer(self._send_events)

    async def register_one(
        self, registration: connmgr_pb2.LoginRegistration
    ) -> connmgr_pb2.RegisterLoginResult:
        """Registers a login, together with others that come at the same time.

        Its age grows while it waits.

        Raises: ConnectionManagerUnavailable.
        """
        return await self._within(self._register((registration, time.monotonic())))

    async def register(
        self, registrations: Sequence[connmgr_pb2.LoginRegistration]
    ) -> list[connmgr_pb2.RegisterLoginResult]:
        """Registers logins in one call; a result for each, in the same order.

        Raises: ConnectionManagerUnavailable.
        """
        request = connmgr_pb2.RegisterLoginRequest(items=registrations)
        response = await self._call(self._stub.RegisterLogin(request, timeout=self._timeout))
        return list(response.results)

    async def check_sender(self, check: connmgr_pb2.SenderCheck) -> connmgr_pb2.SenderDecision:
        """Asks whether a client may relay, together with others that ask at the same time.

        Raises: ConnectionManagerUnavailable.
        """
        return await self._within(self._check((check, time.monotonic())))

    async def check_connection(
        self, check: connmgr_pb2.ConnectionCheck
    ) -> connmgr_pb2.ConnectionDecision:
        """Asks whether a client may connect or try to log in, together with others.

        Raises: ConnectionManagerUnavailable.
        """
        is_login = bool(check.typed_name) or check.HasField("user")
        ask = self._check_login if is_login else self._check_connection
        return await self._within(ask((check, time.monotonic())))

    async def report_event(self, event: connmgr_pb2.Event) -> connmgr_pb2.EventResult:
        """Reports a login or mail that is to be relayed, together with others.

        Raises: ConnectionManagerUnavailable.
        """
        return await self._within(self._report((event, time.monotonic())))

    async def report_clients(self, request: connmgr_pb2.ReportClientsRequest) -> None:
        """Tells where the clients of listeners came from.

        Raises: ConnectionManagerUnavailable.
        """
        await self._call(self._stub.ReportClients(request, timeout=self._timeout))

    async def answer_probe(self, token: str, address: bytes) -> connmgr_pb2.AnswerProbeResponse:
        """Asks what an address that arrived is worth, by the token of who wants to know.

        Raises: ConnectionManagerUnavailable, also for a token that is none.
        """
        request = connmgr_pb2.AnswerProbeRequest(token=token, client_address=address)
        return await self._call(self._stub.AnswerProbe(request, timeout=self._timeout))

    async def revoke(
        self,
        *,
        user: UserKey | None = None,
        client_address: bytes = b"",
        credential_epoch: int = 0,
        reason: str = "",
    ) -> int:
        """Ends logins by user, address or both; how many. It is done when this returns.

        Raises: ConnectionManagerUnavailable; to be tried again then.
        """
        request = connmgr_pb2.RevokeLoginsRequest(
            user=_user(user),
            client_address=client_address,
            credential_epoch=credential_epoch,
            reason=reason,
        )
        response = await self._call(self._stub.RevokeLogins(request, timeout=self._timeout))
        return response.revoked

    async def list_logins(
        self, *, user: UserKey | None = None, client_address: bytes = b"", page_size: int = 1000
    ) -> AsyncIterator[connmgr_pb2.Login]:
        """Gives the live logins, a page at a time underneath.

        Raises: ConnectionManagerUnavailable.
        """
        token = ""
        while True:
            request = connmgr_pb2.ListLoginsRequest(
                user=_user(user),
                client_address=client_address,
                page_size=page_size,
                page_token=token,
            )
            page = await self._call(self._stub.ListLogins(request, timeout=self._timeout))
            for login in page.logins:
                yield login
            token = page.next_page_token
            if not token:
                return

    def watch(
        self, mode: WatchMode, *, heartbeat: float = 3.0, silence: float = 10.0
    ) -> AsyncGenerator[WatchEvent, None]:
        """Watches the login table for ever: connects, and after a loss again.

        Args:
            mode: how much to be told.
            heartbeat: seconds between nonces.
            silence: seconds without a heartbeat after which the stream counts as lost.

        Raises: grpc.aio.AioRpcError, when trying again cannot help.
        """
        return self.watcher(mode, heartbeat=heartbeat, silence=silence).events()

    def watcher(
        self,
        mode: WatchMode,
        *,
        heartbeat: float,
        silence: float,
        clock: Callable[[], float] = boot_time,
    ) -> Watcher:
        """What `watch` follows, for those who must know how fresh it is."""
        return Watcher(
            self._stub,
            mode,
            heartbeat=heartbeat,
            silence=silence,
            networks=self._networks,
            clock=clock,
        )

    async def _send_registrations(
        self, items: list[tuple[connmgr_pb2.LoginRegistration, float]]
    ) -> list[connmgr_pb2.RegisterLoginResult]:
        now = time.monotonic()
        request = connmgr_pb2.RegisterLoginRequest()
        for registration, since in items:
            item = request.items.add()
            item.CopyFrom(registration)
            item.age_ms += int((now - since) * 1000)
        response = await self._call(self._stub.RegisterLogin(request, timeout=self._timeout))
        return _same_number(items, list(response.results))

    async def _send_checks(
        self, items: list[tuple[connmgr_pb2.SenderCheck, float]]
    ) -> list[connmgr_pb2.SenderDecision]:
        request = connmgr_pb2.CheckSenderRequest(items=[check for check, _ in items])
        response = await self._call(self._stub.CheckSender(request, timeout=self._timeout))
        return _same_number(items, list(response.results))

    async def _send_connections(
        self, items: list[tuple[connmgr_pb2.ConnectionCheck, float]]
    ) -> list[connmgr_pb2.ConnectionDecision]:
        request = connmgr_pb2.CheckConnectionRequest(items=[check for check, _ in items])
        response = await self._call(self._stub.CheckConnection(request, timeout=self._timeout))
        return _same_number(items, list(response.results))

    async def _send_events(
        self, items: list[tuple[connmgr_pb2.Event, float]]
    ) -> list[connmgr_pb2.EventResult]:
        request = connmgr_pb2.ReportEventRequest(items=[event for event, _ in items])
        response = await self._call(self._stub.ReportEvent(request, timeout=self._timeout))
        return _same_number(items, list(response.results))

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            _raise(error)

    async def _within(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise ConnectionManagerUnavailable("TIMEOUT") from None


def _gatherer(
    call: Callable[[list[tuple[Req, float]]], Awaitable[list[Res]]],
    in_flight: int = _IN_FLIGHT,
    *,
    linger: float = 0.0,
) -> Gatherer[tuple[Req, float], Res]:
    return Gatherer(
        call,
        max_items=_MAX_ITEMS,
        max_bytes=_MAX_OCTETS,
        size_of=lambda item: item[0].ByteSize(),
        in_flight=in_flight,
        linger=linger,
    )


def _same_number(items: Sequence[object], results: list[Res]) -> list[Res]:
    if len(results) != len(items):
        raise ConnectionManagerUnavailable("MALFORMED_ANSWER")
    return results


def _user(user: UserKey | None) -> connmgr_pb2.UserKey | None:
    return None if user is None else connmgr_pb2.UserKey(name=user.name, context=user.context)


def _raise(error: grpc.aio.AioRpcError) -> NoReturn:
    if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}:
        raise error
    raise ConnectionManagerUnavailable(error_reason(error) or error.code().name) from error
