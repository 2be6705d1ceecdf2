"""Connections to Valkey or Redis servers: commands out, replies in, one connection for each call.

The library's connection does the protocol, TLS and AUTH. Its clients are not used: their cluster
client cannot send WAIT behind a script on one connection.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from netmail_common.config import ValkeyConfig
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import RedisError, ResponseError

from netmail_connmgr.domain.store import StoreUnavailable

__all__ = ["Command", "Credentials", "ErrorReply", "Reply", "Server", "Wire", "WireError"]

MAX_IDLE = 16
"""Connections to one server that are kept for the next call."""

Command = Sequence[bytes | str | int]
ErrorReply = ResponseError
Reply = Any
"""bytes, int, None, a list of these, or an ErrorReply in the place of the command's result."""


class Server(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Gives `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Server":
        """Reads `host:port`; IPv6 in brackets."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))


class WireError(StoreUnavailable):
    """A server could not be reached, or the connection to it broke."""


class Credentials(NamedTuple):
    """How to log in; the password is read from its file at each connection."""

    username: str | None = None
    password_file: Path | None = None

    def password(self) -> str | None:
        """Raises: OSError."""
        return self.password_file.read_text().strip() if self.password_file else None


class Wire:
    """Talks to servers. Belongs to one event loop.

    Args:
        config: TLS and name; addresses are told with each call.
        credentials: of these servers.
        database: to select.
    """

    def __init__(self, config: ValkeyConfig, credentials: Credentials, database: int = 0) -> None:
        self._config = config
        self._credentials = credentials
        self._database = database
        self._idle: defaultdict[Server, deque[_Connection]] = defaultdict(deque)
        self._calls: set[asyncio.Timeout] = set()
        self._closed = False

    async def exchange(
        self, server: Server, commands: Sequence[Command], seconds: float
    ) -> list[Reply]:
        """Sends commands in one piece and gives a reply for each.

        A connection that fails, or whose call is cancelled, is not used again: what it still
        brings belongs to nobody.

        Raises: WireError.
        """
        if self._closed:
            raise WireError("closed")
        limit = asyncio.timeout(seconds)
        self._calls.add(limit)
        try:
            async with limit:
                return await self._exchange(server, commands)
        except TimeoutError:
            raise WireError("no answer in time") from None
        except (RedisError, OSError) as error:
            raise WireError(f"{type(error).__name__}: {error}") from None
        finally:
            self._calls.discard(limit)

    def forget(self, server: Server) -> None:
        """Closes the idle connections to a server."""
        for connection in self._idle.pop(server, ()):
            connection.abort()

    async def close(self) -> None:
        """Ends the calls that are under way, and closes all connections."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._calls:
            if not limit.expired():
                limit.reschedule(now)
        while self._calls:  # noqa: ASYNC110 - they end with the next turns of the loop
            await asyncio.sleep(0)
        for server in list(self._idle):
            self.forget(server)
        await asyncio.sleep(0)  # what was closed has one thing more to do

    async def _exchange(self, server: Server, commands: Sequence[Command]) -> list[Reply]:
        idle = self._idle[server]
        connection = idle.pop() if idle else self._new(server)
        whole = False
        try:
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            replies = [await _read(connection) for _ in commands]
            whole = True
        finally:
            idle = self._idle[server]
            if whole and len(idle) < MAX_IDLE and not self._closed:
                idle.append(connection)
            else:
                connection.abort()
        return replies

    def _new(self, server: Server) -> "_Connection":
        options: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "db": self._database,
            "username": self._credentials.username,
            "password": self._credentials.password(),
            "socket_timeout": None,  # the exchange has its own
            "socket_connect_timeout": self._config.timeout,
            "driver_info": None,
            "protocol": 2,
        }
        if not self._config.tls:
            return _Connection(**options)
        return _TlsConnection(
            ssl_ca_certs=_path(self._config.ca_file),
            ssl_certfile=_path(self._config.certificate),
            ssl_keyfile=_path(self._config.key),
            **options,
        )


class _Connection(Connection):
    """Ends without waiting for the other side, which may have stopped.

    The library closes politely after every error and then forgets the transport: by TLS, that
    keeps the socket open until the other side has said goodbye too.
    """

    async def disconnect(self, *_: object, **__: object) -> None:
        """What the library calls after every error."""
        self.abort()

    def abort(self) -> None:
        """Closes the socket, whatever it still had to send."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = self._reader = None


class _TlsConnection(_Connection, SSLConnection):
    pass


async def _read(connection: _Connection) -> Reply:
    """The reply to one command; an error reply is a value, since others follow."""
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None
