"""Connections to Valkey or Redis servers: commands out, replies in, one connection for each call.

The library's connection does the protocol, TLS and AUTH. Its clients are not used: their cluster
client cannot send WAIT behind a script on one connection.
"""

import asyncio
import contextlib
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
        self._idle: defaultdict[Server, deque[Connection]] = defaultdict(deque)
        self._used: set[Connection] = set()

    async def exchange(
        self, server: Server, commands: Sequence[Command], seconds: float
    ) -> list[Reply]:
        """Sends commands in one piece and gives a reply for each.

        A connection that fails, or whose call is cancelled, is not used again: what it still
        brings belongs to nobody.

        Raises: WireError.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(server, commands)
        except TimeoutError:
            raise WireError("no answer in time") from None
        except (RedisError, OSError) as error:
            raise WireError(f"{type(error).__name__}: {error}") from None

    def forget(self, server: Server) -> None:
        """Closes the idle connections to a server."""
        for connection in self._idle.pop(server, ()):
            _close(connection)

    def close(self) -> None:
        """Closes all connections."""
        for server in list(self._idle):
            self.forget(server)
        for connection in self._used:
            _close(connection)
        self._used.clear()

    async def _exchange(self, server: Server, commands: Sequence[Command]) -> list[Reply]:
        idle = self._idle[server]
        connection = idle.pop() if idle else self._new(server)
        self._used.add(connection)
        whole = False
        try:
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            replies = [await _read(connection) for _ in commands]
            whole = True
        finally:
            kept = whole and connection in self._used and len(idle) < MAX_IDLE
            self._used.discard(connection)
            if kept:
                idle.append(connection)
            else:
                _close(connection)
        return replies

    def _new(self, server: Server) -> Connection:
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
            return Connection(**options)
        return SSLConnection(
            ssl_ca_certs=_path(self._config.ca_file),
            ssl_certfile=_path(self._config.certificate),
            ssl_keyfile=_path(self._config.key),
            **options,
        )


async def _read(connection: Connection) -> Reply:
    """The reply to one command; an error reply is a value, since others follow."""
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _close(connection: Connection) -> None:
    with contextlib.suppress(RedisError, OSError, RuntimeError):
        # The one way that does not wait.
        connection._close()  # type: ignore[no-untyped-call] # noqa: SLF001


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None
