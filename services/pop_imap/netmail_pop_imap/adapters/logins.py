"""Tells the Connection Manager who logged in from where, and ends sessions that it revokes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import grpc
from netmail.connmgr.v1 import connmgr_pb2
from netmail_common.acceptor import ClientInfo
from netmail_common.config import PopImapConfig
from netmail_common.connmgr import (
    Connected,
    ConnectionManagerClient,
    ConnectionManagerUnavailable,
    Lost,
    Revoked,
    UserKey,
    WatchEvent,
    WatchMode,
)
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser

from netmail_pop_imap.adapters.metrics import (
    REGISTRATIONS,
    REGISTRATIONS_WAITING,
    REVOKED_SESSIONS,
)
from netmail_pop_imap.domain.login_book import Login, LoginBook
from netmail_pop_imap.domain.session import Ending, Session
from netmail_pop_imap.protocol.errors import LoginRevoked

log = get_logger(__name__)

DEFAULT_LIFETIME = 900.0
"""Seconds; until the Connection Manager has said its own."""

_REFUSED_PAUSE = 30.0
_EXPIRY_TICKS = 30
_AT_ONCE = 1000
"""Registrations under way at once when all of them are due; the client gathers them."""

_PROTOCOLS = {"pop3": connmgr_pb2.PROTOCOL_POP3, "imap": connmgr_pb2.PROTOCOL_IMAP}


def boot_time() -> float:
    """Seconds of a clock that counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who registers: for the log of the Connection Manager."""

    server: str
    """The Messaging Server."""
    name: str
    """This process."""


class LoginRegistrar:
    """Registers logins, renews them while their session is open, and watches for revocations.

    Args:
        client: of the Connection Manager; None: the Messaging Server has none, all of this is off.
        agent: who we are.
        config: timeouts, renewal.
        clock: seconds, monotonic.
        lifetime: of a login, until the Connection Manager says its own.
        on_event: told of everything that the Connection Manager's stream tells.
        tick: seconds between two looks at what is due.
    """

    def __init__(
        self,
        client: ConnectionManagerClient | None,
        *,
        agent: Agent,
        config: PopImapConfig,
        clock: Callable[[], float] = boot_time,
        lifetime: float = DEFAULT_LIFETIME,
        tick: float = 1.0,
        on_event: Callable[[WatchEvent], None] | None = None,
    ) -> None:
        self._client = client
        self._agent = agent
        self._timeout = config.register_timeout
        self._clock = clock
        self._pause = tick
        self._on_event = on_event
        self._book = LoginBook(
            lifetime=lifetime,
            retry_for=config.register_retry,
            renew=config.renew_while_connected,
        )
        self._renews = config.renew_while_connected
        self.instance_id = ""
        """Of the Connection Manager that was last seen; empty: none yet."""

    def __len__(self) -> int:
        return len(self._book)

    async def register(
        self, session: Session, user: AuthenticatedUser, client: ClientInfo
    ) -> Login | None:
        """Registers a login before the client is told that it is logged in.

        A Connection Manager that does not answer does not keep the user out: the registration is
        tried again in the background.

        Returns: the handle for `end`; None if nothing is registered.

        Raises: LoginRevoked.
        """
        if self._client is None:
            return None
        if not client.may_grant:
            log.info("login not registered", user=str(user), reason="address unknown")
            REGISTRATIONS.labels("login", "address unknown").inc()
            return None
        login = Login(
            user=user,
            client_address=client.address,
            protocol=session.protocol_name,
            session_id=uuid4().hex,
            verified_at=self._clock(),
            session=session,
        )
        self._book.add(login)
        try:
            await self._register(self._client, login, "login")
        except BaseException:
            self._book.end(login)  # the client has gone; that he logged in stays true
            raise
        if login.revoked:
            raise LoginRevoked
        return login

    def end(self, login: Login | None) -> None:
        """The session has ended: its login is renewed no more."""
        if login is not None:
            self._book.end(login)

    def expire(self) -> None:
        """Forgets logins whose lifetime is over; open sessions' are never."""
        self._book.expire(self._clock())

    async def run(self) -> None:
        """Watches, renews and retries until cancelled."""
        if self._client is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(self._client))
            group.create_task(self._tick(self._client))

    async def _watch(self, client: ConnectionManagerClient) -> None:
        while True:
            try:
                async for event in client.watch(WatchMode.REVOCATIONS):
                    if self._on_event is not None:
                        self._on_event(event)
                    match event:
                        case Connected():
                            await self._connected(client, event)
                        case Revoked():
                            self._revoked(event)
                        case Lost():
                            log.warning("connection manager lost")
            except grpc.aio.AioRpcError as error:
                log.error(  # noqa: TRY400 - no traceback
                    "connection manager refuses to be watched", code=error.code().name
                )
            await asyncio.sleep(_REFUSED_PAUSE)

    async def _connected(self, client: ConnectionManagerClient, event: Connected) -> None:
        self._book.lifetime = event.lifetime
        known, self.instance_id = self.instance_id, event.instance_id
        if known in {"", event.instance_id}:
            await self._register_all(client, self._book.waiting_now(), "retry")
            return
        logins = list(self._book.unexpired(self._clock()))
        log.info("connection manager connected", instance=event.instance_id, logins=len(logins))
        await self._register_all(client, logins, "restart")

    def _revoked(self, event: Revoked) -> None:
        def covers(login: Login) -> bool:
            return event.covers(
                UserKey(login.user.name, login.user.context),
                login.client_address,
                login.verified_at,
                login.user.credential_epoch,
            )

        for login in self._book.revoke(covers):
            self._end_session(login, event.reason)

    def _end_session(self, login: Login, reason: str) -> None:
        session, login.session = login.session, None
        login.revoked = True
        if session is not None:
            log.info(
                "session revoked",
                user=str(login.user),
                address=str(login.client_address),
                protocol=login.protocol,
                reason=reason,
            )
            REVOKED_SESSIONS.inc()
            session.end(Ending.REVOKED)

    async def _tick(self, client: ConnectionManagerClient) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(self._pause)
            ticks += 1
            now = self._clock()
            if ticks % _EXPIRY_TICKS == 0:
                self.expire()
            await self._register_all(client, self._book.retries(now), "retry")
            await self._register_all(client, self._book.take_renewals(now), "renewal")
            REGISTRATIONS_WAITING.set(self._book.waiting)

    async def _register_all(
        self, client: ConnectionManagerClient, logins: list[Login], kind: str
    ) -> None:
        for first in range(0, len(logins), _AT_ONCE):
            batch = logins[first : first + _AT_ONCE]
            await asyncio.gather(*(self._register(client, login, kind) for login in batch))

    async def _register(self, client: ConnectionManagerClient, login: Login, kind: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                result = await client.register_one(self._item(login, kind))
        except (TimeoutError, ConnectionManagerUnavailable, grpc.aio.AioRpcError) as error:
            self._not_registered(login, kind, error)
            return
        outcome = connmgr_pb2.RegisterOutcome.Name(result.outcome)
        outcome = outcome.removeprefix("REGISTER_OUTCOME_").lower().replace("_", " ")
        REGISTRATIONS.labels(kind, outcome).inc()
        match result.outcome:
            case (
                connmgr_pb2.REGISTER_OUTCOME_REGISTERED
                | connmgr_pb2.REGISTER_OUTCOME_SHARED_NETWORK
            ):
                self._book.registered(login, self._clock(), renewed=self._renewed(login, kind))
            case connmgr_pb2.REGISTER_OUTCOME_REVOKED:
                self._book.forget(login)
                self._end_session(login, "revoked")
            case connmgr_pb2.REGISTER_OUTCOME_TABLE_FULL:
                self._book.failed(login, self._clock())
            case _:
                self._book.forget(login)
        level = log.debug if kind == "renewal" else log.info
        level(
            "login registered",
            user=str(login.user),
            address=str(login.client_address),
            protocol=login.protocol,
            kind=kind,
            outcome=outcome,
        )

    def _renewed(self, login: Login, kind: str) -> bool:
        return kind == "renewal" or (
            kind == "restart" and self._renews and login.session is not None
        )

    def _item(self, login: Login, kind: str) -> connmgr_pb2.LoginRegistration:
        user = login.user
        renewal = self._renewed(login, kind)
        since = login.verified_at if renewal else login.renewed_at
        return connmgr_pb2.LoginRegistration(
            user=connmgr_pb2.UserKey(name=user.name, context=user.context),
            addresses=user.addresses,
            client_address=login.client_address.packed,
            protocol=_PROTOCOLS[login.protocol],
            messaging_server=self._agent.server,
            agent=self._agent.name,
            session_id=login.session_id,
            age_ms=int((self._clock() - since) * 1000),
            credential_epoch=user.credential_epoch,
            domains=user.domains,
            renewal=renewal,
        )

    def _not_registered(self, login: Login, kind: str, error: Exception) -> None:
        REGISTRATIONS.labels(kind, "unavailable").inc()
        again = self._book.failed(login, self._clock()) if kind != "renewal" else True
        log.warning(
            "login not registered",
            user=str(login.user),
            address=str(login.client_address),
            kind=kind,
            reason=getattr(error, "reason", type(error).__name__),
            again=again,
        )
        REGISTRATIONS_WAITING.set(self._book.waiting)
