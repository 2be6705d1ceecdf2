"""Opens SMTP sessions: connection, greeting, EHLO, TLS by the route's level, authentication."""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netmail_common.config import DeliverConfig, RouteConfig
from netmail_common.logging import get_logger

from netmail_smtp.adapters import deliver_metrics as metrics
from netmail_smtp.adapters import deliver_tls
from netmail_smtp.adapters.deliver_connection import (
    InjectedPlaintext,
    SmtpConnection,
    Timeouts,
    TlsFailed,
)
from netmail_smtp.domain.deliver_outcome import (
    HostFailed,
    from_refusal,
    permanent,
    temporary,
)
from netmail_smtp.domain.deliver_route import Target
from netmail_smtp.protocol.client import CannotAuthenticate, ConnectionLost, SessionRefused

log = get_logger(__name__)

PLAIN_MEMORY = 300.0
"""Seconds for which a host whose opportunistic TLS failed is spoken to in plain text at once."""
_PLAIN_HOSTS = 10_000


class SessionOpener:
    """Makes sessions that are ready for a transaction."""

    def __init__(
        self,
        config: DeliverConfig,
        *,
        helo_name: str,
        own_names: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes an opener.

        Args:
            config: time limits, routes, TLS.
            helo_name: for EHLO.
            own_names: a host that calls itself by one of these is ourselves.
            clock: monotonic.
        """
        self._timeouts = Timeouts(config.connect_timeout, config.command_timeout)
        self._verify = config.tls_verify
        self._routes: Mapping[str, RouteConfig] = {}
        self.use(config.routes)
        self._helo_name = helo_name
        self._own_names = own_names
        self._clock = clock
        self._plain_until: dict[tuple[str, int], float] = {}
        self._contexts: dict[tuple[bool, Path | None], ssl.SSLContext] = {}

    def use(self, routes: Sequence[RouteConfig]) -> None:
        """Opens sessions by other routes from now on."""
        self._routes = {route.domain: route for route in routes}

    async def open(self, target: Target) -> SmtpConnection:
        """Opens a session with TARGET.

        Raises: HostFailed.
        """
        level = target.security.tls
        key = (target.address, target.port)
        try_tls = level in ("opportunistic", "required")
        if level == "opportunistic" and not self._verify:
            try_tls = self._plain_until.get(key, 0.0) <= self._clock()
        try:
            return await self._open(target, try_tls=try_tls)
        except TlsFailed as error:
            if level != "opportunistic" or self._verify:
                raise HostFailed(temporary("4.7.5", str(error), target.host)) from error
            log.warning("TLS failed, going on in plain text", host=str(target), error=str(error))
            self._remember_plain(key)
        try:
            return await self._open(target, try_tls=False)
        except TlsFailed as error:
            raise HostFailed(temporary("4.7.5", str(error), target.host)) from error

    async def _open(self, target: Target, *, try_tls: bool) -> SmtpConnection:
        connection: SmtpConnection | None = None
        try:
            connection = await self._connect(target)
            session = connection.session
            await connection.run(session.greet())
            await connection.run(session.hello())
            self._refuse_ourselves(target, connection)
            if try_tls:
                await self._start_tls(target, connection)
            if self._username(target):
                await self._authenticate(target, connection)
        except SessionRefused as error:
            await self._end(connection)
            raise HostFailed(from_refusal(error, target.host)) from error
        except ConnectionLost as error:
            status, words = "4.4.2", str(error)
            if connection is None:
                status, words = "4.4.1", f"connect to {target}: {error}"
            raise HostFailed(temporary(status, words, target.host)) from error
        except InjectedPlaintext as error:
            log.warning("plain text injected after STARTTLS", host=str(target))
            raise HostFailed(
                temporary("4.7.0", "plain text was injected after STARTTLS", target.host)
            ) from error
        except HostFailed:
            await self._end(connection)
            raise
        except (TlsFailed, asyncio.CancelledError):
            if connection is not None:
                connection.abort()
            raise
        metrics.SESSIONS.labels(connection.security).inc()
        return connection

    async def _connect(self, target: Target) -> SmtpConnection:
        implicit = None
        if target.security.tls == "implicit":
            implicit = (self._context(target, verify=True), _tls_name(target))
        return await SmtpConnection.open(
            target.address,
            target.port,
            helo_name=self._helo_name,
            timeouts=self._timeouts,
            implicit_tls=implicit,
        )

    def _refuse_ourselves(self, target: Target, connection: SmtpConnection) -> None:
        if connection.session.extensions.name in self._own_names:
            raise HostFailed(
                permanent("5.4.6", "the next hop is this host itself: mail loops", target.host),
                unreachable=False,
            )

    async def _start_tls(self, target: Target, connection: SmtpConnection) -> None:
        required = target.security.tls == "required" or self._verify
        session = connection.session
        if not session.extensions.starttls:
            if required:
                raise HostFailed(
                    temporary("4.7.10", "TLS is required, the host has no STARTTLS", target.host)
                )
            return
        reply = await connection.run(session.start_tls())
        if reply.code != 220:
            if required or not session.usable:
                raise HostFailed(
                    temporary("4.7.10", f"TLS is required, STARTTLS got {reply}", target.host)
                )
            return
        await connection.start_tls(self._context(target, verify=required), _tls_name(target))
        await connection.run(session.hello())

    def _username(self, target: Target) -> str | None:
        route = self._routes.get(target.security.route)
        return None if route is None else route.username

    async def _authenticate(self, target: Target, connection: SmtpConnection) -> None:
        route = self._routes[target.security.route]
        if connection.tls == "none" and target.security.tls != "none":
            raise HostFailed(
                temporary("4.7.10", "no password is sent without TLS", target.host),
                unreachable=False,
            )
        try:
            password = _password(route)
            await connection.run(connection.session.authenticate(route.username or "", password))
        except CannotAuthenticate as error:
            raise HostFailed(
                temporary("4.7.0", "the host offers neither AUTH PLAIN nor LOGIN", target.host)
            ) from error
        except OSError as error:
            log.error(  # noqa: TRY400 - an operator's mistake, no traceback
                "password file cannot be read", route=route.domain, error=str(error)
            )
            raise HostFailed(
                temporary("4.3.5", "the route's password cannot be read", target.host)
            ) from error

    def _context(self, target: Target, *, verify: bool) -> ssl.SSLContext:
        """SSL contexts are expensive to make, 10 ms each: kept by what they check."""
        route = self._routes.get(target.security.route)
        ca_file = route.ca_file if verify and route is not None else None
        key = (verify, ca_file)
        if key not in self._contexts:
            self._contexts[key] = (
                deliver_tls.verifying(ca_file) if verify else deliver_tls.opportunistic()
            )
        return self._contexts[key]

    def _remember_plain(self, key: tuple[str, int]) -> None:
        now = self._clock()
        if len(self._plain_until) >= _PLAIN_HOSTS:
            self._plain_until = {k: t for k, t in self._plain_until.items() if t > now}
        self._plain_until[key] = now + PLAIN_MEMORY

    @staticmethod
    async def _end(connection: SmtpConnection | None) -> None:
        if connection is not None:
            await connection.close()


def _tls_name(target: Target) -> str:
    return target.address if target.host.startswith("[") else target.host


def _password(route: RouteConfig) -> str:
    if route.password is not None:
        return route.password.get_secret_value()
    if route.password_file is not None:
        return route.password_file.read_text(encoding="utf-8").strip("\r\n")
    return ""
