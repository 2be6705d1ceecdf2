"""Where the database is, and how it is spoken to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from netmail_nmap.domain.errors import StoreUnavailable

_CONNECTING = 10.0
"""Seconds."""
_ANSWERING = 30.0
"""Seconds; a database that says nothing for so long is away."""
_STATEMENTS = 512
"""Prepared statements that a connection keeps."""


@dataclass(frozen=True, slots=True)
class Place:
    """A PostgreSQL database.

    Attributes:
        url: postgresql://USER@HOST:PORT/DATABASE; what else libpq's URLs may say is passed on
            (`sslmode`, several hosts, `target_session_attrs=read-write`).
        password_file: has the password; read at each connection, so that it may change.
        pooled: behind pgbouncer, whose connections keep no prepared statements.
    """

    url: str
    password_file: Path | None = None
    pooled: bool = False

    def options(self) -> Mapping[str, Any]:
        """For `asyncpg.connect`. Raises: StoreUnavailable."""
        options: dict[str, Any] = {
            "dsn": self.url,
            "timeout": _CONNECTING,
            "command_timeout": _ANSWERING,
            "statement_cache_size": 0 if self.pooled else _STATEMENTS,
            "server_settings": {"application_name": "netmail-nmap"},
        }
        if self.password_file is not None:
            try:
                options["password"] = self.password_file.read_text().rstrip("\r\n")
            except OSError as error:
                raise StoreUnavailable(
                    f"{self.password_file} cannot be read: {error.strerror}"
                ) from error
        return options

    def __str__(self) -> str:
        """For people: without a password."""
        without = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", self.url)
        return re.sub(r"([?&]password=)[^&]*", r"\1***", without)

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Opens a connection. Raises: those of asyncpg and of sockets; StoreUnavailable."""
        return await asyncpg.connect(**self.options())

    async def connect_patiently(self) -> "asyncpg.Connection[asyncpg.Record]":
        """The same, for statements that may take long: migrations, and waiting for others'."""
        return await asyncpg.connect(**{**self.options(), "command_timeout": None})
