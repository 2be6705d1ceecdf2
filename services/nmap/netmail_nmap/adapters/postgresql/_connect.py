"""Where the database is, and how it is spoken to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from netmail_common.config import StoreConfig

from netmail_nmap.domain.errors import StoreUnavailable

_CONNECTING = 10.0
"""Seconds."""
_ANSWERING = 30.0
"""Seconds; a database that says nothing for so long is away."""
_NOTICING = 5.0
"""The same for what takes no time."""
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
        url_file: has the URL, password included, and is read like password_file; `url` is empty.
    """

    url: str = ""
    password_file: Path | None = None
    pooled: bool = False
    url_file: Path | None = None

    @classmethod
    def from_config(cls, store: StoreConfig, url: str) -> "Place":
        """Where the agents' statements go; URL: the store's, unless a file has it."""
        return cls("" if store.url_file else url, store.password_file, store.pooled, store.url_file)

    @classmethod
    def to_listen(cls, store: StoreConfig) -> "Place | None":
        """PostgreSQL itself, where statements go elsewhere."""
        if store.listen_url is None and store.listen_url_file is None:
            return None
        return cls(store.listen_url or "", store.password_file, url_file=store.listen_url_file)

    def options(self) -> Mapping[str, Any]:
        """For `asyncpg.connect`. Raises: StoreUnavailable."""
        options: dict[str, Any] = {
            "dsn": self._dsn(),
            "timeout": _CONNECTING,
            "command_timeout": _ANSWERING,
            "statement_cache_size": 0 if self.pooled else _STATEMENTS,
            "server_settings": {"application_name": "netmail-nmap"},
        }
        if self.password_file is not None:
            options["password"] = _line(self.password_file)
        return options

    def _dsn(self) -> str:
        if self.url_file is None:
            return self.url
        text = _line(self.url_file)
        if not text.startswith(("postgresql://", "postgres://")):
            raise StoreUnavailable(f"{self.url_file} has no URL of a PostgreSQL database")
        return text

    def __str__(self) -> str:
        """For people: without a password."""
        if self.url_file is not None:
            return f"the database that {self.url_file} names"
        without = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", self.url)
        return re.sub(r"([?&]password=)[^&]*", r"\1***", without)

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Opens a connection. Raises: those of asyncpg and of sockets; StoreUnavailable."""
        return await asyncpg.connect(**self.options())

    async def connect_to_listen(self) -> "asyncpg.Connection[asyncpg.Record]":
        """The same, for one that is to notice soon when nobody answers any more."""
        soon = {"timeout": _NOTICING, "command_timeout": _NOTICING}
        return await asyncpg.connect(**{**self.options(), **soon})

    async def connect_patiently(self) -> "asyncpg.Connection[asyncpg.Record]":
        """The same, for statements that may take long: migrations, and waiting for others'."""
        return await asyncpg.connect(**{**self.options(), "command_timeout": None})


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StoreUnavailable(f"{path} cannot be read: {reason}") from error
