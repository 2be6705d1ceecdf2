"""Serves Dovecot's authentication policy by HTTP over the front desk."""

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import math
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from netmail_common.config import ConfigError
from netmail_common.config._base import parse_host_port
from netmail_common.config.connmgr import DovecotPolicyConfig
from netmail_common.connmgr.model import LoginProtocol
from netmail_common.logging import get_logger
from netmail_common.tls import ServerTls

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.seldom import Seldom
from netmail_connmgr.adapters.stream_listener import LOCAL, ListenerSetup, accept_streams
from netmail_connmgr.domain.connections import ConnectionQuestion, Service, Verdict
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import FrontDeskUnavailable
from netmail_connmgr.domain.table import Outcome
from netmail_connmgr.protocol.dovecot_policy import (
    MAX_BODY,
    BadPolicyEvent,
    Command,
    PolicyEvent,
    parse_command,
    parse_form,
    parse_json,
    reply,
)

__all__ = ["NAME", "DovecotPolicy", "prepare"]

NAME = "dovecot_policy"
_MAX_CONNECTIONS = 1000
_KEEPALIVE = 60.0
_FIRST_REQUEST = 10.0
"""Seconds for a new connection to say what it wants."""
_BODY_TIMEOUT = 10.0
_DRAIN = 2.0
_MIN_KEY = 16
_MAX_HEADERS = 50
_FORM = "application/x-www-form-urlencoded"
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

_SERVICES = {
    "pop3": Service.POP3,
    "imap": Service.IMAP,
    "smtp": Service.SUBMISSION,
    "submission": Service.SUBMISSION,
}

_KEPT = frozenset({Outcome.REGISTERED, Outcome.SHARED_NETWORK})

log = get_logger(__name__)
_silent = logging.getLogger(f"{__name__}.http")
_silent.disabled = True
"""aiohttp writes a traceback for whatever is no HTTP; we count it."""


def prepare(setup: FrontEndSetup) -> AbstractAsyncContextManager[Sequence[int]]:
    """Reads the configuration; what it gives serves while it is entered.

    Raises: ConfigError.
    """
    config = setup.config.dovecot_policy
    key = _api_key(setup, config.api_key_file)
    if config.listen and not key:
        raise setup.error("dovecot_policy.listen needs dovecot_policy.api_key_file")
    book = AddressBook(setup.config.address_map, default_context=setup.default_context)
    policy = DovecotPolicy(setup, book, key)
    return _serve(policy, book, _listeners(setup, config))


@contextlib.asynccontextmanager
async def _serve(
    policy: "DovecotPolicy", book: AddressBook, listeners: Sequence["_Listener"]
) -> AsyncIterator[Sequence[int]]:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(book.followed())
        stack.push_async_callback(policy.close)
        ports: dict[str, int] = {}
        for listener in listeners:
            bound = await stack.enter_async_context(
                accept_streams(listener.setup, policy.connection)
            )
            ports.update(zip(listener.setup.listen, bound, strict=True))
        yield [ports[address] for listener in listeners for address in listener.order]


@dataclass(frozen=True, slots=True)
class _Listener:
    """Addresses that are listened on in one way; `order`: all ports, on the last one."""

    setup: ListenerSetup
    order: tuple[str, ...] = ()


def _listeners(setup: FrontEndSetup, config: DovecotPolicyConfig) -> list[_Listener]:
    """Without TLS on loopback and by Unix socket, else with it.

    Loopback needs no allowed source: nobody else can come from there, and the key is asked for.
    """
    near = tuple(address for address in config.listen if _is_loopback(address))
    far = tuple(address for address in config.listen if address not in near)
    tls = None
    if far:
        if config.tls_certificate is None or config.tls_key is None:
            raise setup.error(
                f"dovecot_policy.listen: {far[0]} is not on loopback and needs tls_certificate"
                " and tls_key"
            )
        tls = ServerTls(config.tls_certificate, config.tls_key, "1.2")
    allowed = setup.allowed_sources(config.allowed_sources, NAME)
    path = config.socket if setup.opens_unix_sockets else None

    def listener(listen: tuple[str, ...], *, loopback: bool) -> ListenerSetup:
        return ListenerSetup(
            name=NAME,
            listen=listen,
            path=path if loopback else None,
            allowed=_LOOPBACK if loopback else allowed,
            max_connections=_MAX_CONNECTIONS,
            tls=None if loopback else tls,
            reuse_port=setup.reuse_port,
        )

    return [
        _Listener(listener(near, loopback=True)),
        _Listener(listener(far, loopback=False), tuple(config.listen)),
    ]


def _is_loopback(address: str) -> bool:
    host = parse_host_port(address).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _api_key(setup: FrontEndSetup, path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise _bad_key(setup, path, error.strerror or "cannot be read") from error
    if len(key) < _MIN_KEY:
        raise _bad_key(setup, path, f"shorter than {_MIN_KEY} octets")
    return key


def _bad_key(setup: FrontEndSetup, path: Path, why: str) -> ConfigError:
    return setup.error(f"dovecot_policy.api_key_file: {path}: {why}")


class DovecotPolicy:
    """Answers requests; belongs to one event loop.

    Args:
        api_key: that every request by TCP must bring.
    """

    def __init__(self, setup: FrontEndSetup, book: AddressBook, api_key: bytes) -> None:
        self._setup = setup
        self._desk = setup.desk
        self._book = book
        self._api_key = api_key
        self._server: web.Server | None = None
        self._malformed = Seldom()
        self._unavailable = Seldom()

    def connection(self, peer: str, ended: Callable[[], None]) -> asyncio.BaseProtocol:
        """The protocol of one connection."""
        if self._server is None:
            self._server = web.Server(self._handle)
        return _Http(self._server, peer, lambda: self._refuse(peer, "not HTTP"), ended)

    async def close(self) -> None:
        """Ends the connections."""
        if self._server is not None:
            await self._server.shutdown(_DRAIN)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        connection = cast("_Http", request.protocol)
        connection.has_asked = True
        peer = connection.peer
        if peer != LOCAL and not self._has_key(request):
            self._refuse(peer, "wrong API key")
            return _response(403)
        if request.method != "POST":
            self._refuse(peer, "not POST")
            return _response(405, {"Allow": "POST"})
        try:
            command = parse_command(request.query.get("command"))
            form = request.content_type == _FORM
            body = await _body(request)
            event = parse_form(body) if form else parse_json(body)
        except (BadPolicyEvent, TimeoutError) as error:
            self._refuse(peer, str(error) or "no body in time")
            return _response(400)
        try:
            return await (self._allow(event) if command is Command.ALLOW else self._report(event))
        except FrontDeskUnavailable as error:
            # Dovecot does what its auth_policy_reject_on_fail says.
            if self._unavailable():
                log.warning("cannot decide", front_end=NAME, reason=str(error))
        except Exception:
            log.exception("cannot decide", front_end=NAME)
        _count("unavailable")
        return _response(503)

    async def _allow(self, event: PolicyEvent) -> web.Response:
        if not event.client_address:
            return _answered("allowed", 0)
        (verdict,) = await self._desk.check_connections([self._question(event)])
        if verdict.verdict is not Verdict.ALLOWED:
            return _answered("denied", -1)
        seconds = math.ceil(verdict.delay)
        return _answered("delayed" if seconds else "allowed", seconds)

    async def _report(self, event: PolicyEvent) -> web.Response:
        if event.vouches:
            (registered,) = await self._desk.register([self._candidate(event)])
            return _answered("registered" if registered.outcome in _KEPT else "not registered", 0)
        if event.guessed:
            await self._desk.login_failed(self._question(event))
            return _answered("failure counted", 0)
        return _answered("of no use", 0)

    def _candidate(self, event: PolicyEvent) -> Candidate:
        return self._setup.candidate(
            self._setup.user(event.login),
            event.client_address,
            LoginProtocol.AUTH_POLICY,
            self._book.map,
            agent="dovecot",
            # A script knows no session; each of its reports is a login then.
            session_id=event.session or secrets.token_hex(8),
        )

    def _question(self, event: PolicyEvent) -> ConnectionQuestion:
        return ConnectionQuestion(
            client_address=event.client_address,
            service=_SERVICES.get(event.protocol, Service.UNKNOWN),
            listener=NAME,
            agent="dovecot",
            user=self._setup.user(event.login) if event.login else None,
            typed_name=event.login,
        )

    def _has_key(self, request: web.BaseRequest) -> bool:
        given = request.headers.get("X-API-Key", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._api_key)

    def _refuse(self, peer: str, why: str) -> None:
        """Counts each one; says so once a second at most."""
        _count("malformed")
        if self._malformed():
            log.warning("not a policy request", front_end=NAME, peer=peer, reason=why)


class _Http(web.RequestHandler):
    """A connection that says when it is over, and tells nobody what was wrong with his HTTP."""

    def __init__(
        self,
        server: web.Server,
        peer: str,
        malformed: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEPALIVE,
            logger=_silent,
            access_log=None,  # type: ignore[arg-type] # as web.Server passes it
            max_headers=_MAX_HEADERS,
            lingering_time=0,
            auto_decompress=False,
        )
        self.peer = peer
        self.has_asked = False
        self._malformed = malformed
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(_FIRST_REQUEST, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if not self.has_asked:
            self.force_close()

    def handle_error(self, *_arguments: Any, **_more: Any) -> web.StreamResponse:
        """The answer to what is no HTTP."""
        self._malformed()
        response = _response(400)
        response.force_close()
        return response

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        self._ended()


async def _body(request: web.BaseRequest) -> bytes:
    """Raises: BadPolicyEvent, when it is too large; TimeoutError."""
    body = b""
    async with asyncio.timeout(_BODY_TIMEOUT):
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY:
                raise BadPolicyEvent("too large")
    return body


def _answered(outcome: str, status: int) -> web.Response:
    _count(outcome)
    return web.Response(body=reply(status), content_type="application/json", headers=_SERVER)


def _response(status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, headers={**_SERVER, **(headers or {})})


_SERVER = {"Server": "netmail"}


def _count(outcome: str) -> None:
    metrics.FRONT_END_REQUESTS.labels(NAME, outcome).inc()
