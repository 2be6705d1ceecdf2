"""The audit log as the process uses it: entries in, answers out."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from netmail_common.config import AuditConfig, ConfigError
from netmail_common.connmgr.model import UserKey
from netmail_common.networks import NetworkMap

from netmail_connmgr.adapters import record
from netmail_connmgr.adapters.audit_log import AuditLog, AuditPage
from netmail_connmgr.domain.audit import MIN_KEY, AuditEntry, AuditFormat, AuditQuestion

__all__ = ["AuditTrail", "audit_trail"]


class AuditTrail:
    """Takes entries and answers questions about them.

    Args:
        wall: seconds since 1970.
    """

    def __init__(
        self, form: AuditFormat, log: AuditLog, wall: Callable[[], float] = time.time
    ) -> None:
        self._form = form
        self._log = log
        self._wall = wall

    def note(self, entry: AuditEntry) -> None:
        """Writes an entry down."""
        self._log.write(self._form.line(entry, self._wall()))

    def query(
        self, user: UserKey | None, address: bytes | None, *, within: float, limit: int
    ) -> AsyncGenerator[AuditPage, None]:
        """What happened to a user, at an address's network, or to both, oldest first.

        Args:
            within: seconds to look back; 0: as far as there is.
            limit: only the newest that many; 0: all.

        Raises: OSError.
        """
        network = self._form.network(address) if address is not None else None
        since = max(0.0, self._wall() - within) if within else 0.0
        return self._log.read(AuditQuestion(user, network, since), limit)


@contextlib.asynccontextmanager
async def audit_trail(
    config: AuditConfig, name: str, networks: Callable[[], NetworkMap]
) -> AsyncIterator[AuditTrail | None]:
    """Keeps the audit log of a Connection Manager until the block ends; None: it is off.

    Args:
        networks: gives the map from addresses to networks of this moment.

    Raises: ConfigError.
    """
    key = _key(config, name)
    if config.directory is None:
        yield None
        return
    try:
        log = AuditLog(config.directory, name, retention=config.retention)
    except OSError as error:
        raise ConfigError(
            f"connection manager {name!r}: audit.directory: {error.filename}: {error.strerror}"
        ) from error
    trail = AuditTrail(AuditFormat(networks, key), log)
    writer = asyncio.create_task(log.run())
    try:
        with record.audited_by(trail.note):
            yield trail
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await log.flush()


def _key(config: AuditConfig, name: str) -> bytes | None:
    """The key of the pseudonyms. Raises: ConfigError."""
    if not config.pseudonymize:
        return None
    if config.key_file is None:
        raise ConfigError(f"connection manager {name!r}: audit.pseudonymize needs audit.key_file")
    try:
        key = config.key_file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"connection manager {name!r}: audit.key_file: {config.key_file}: {error.strerror}"
        ) from error
    if len(key) < MIN_KEY:
        raise ConfigError(
            f"connection manager {name!r}: audit.key_file has fewer than {MIN_KEY} octets"
        )
    return key
