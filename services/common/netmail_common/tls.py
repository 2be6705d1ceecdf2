"""TLS of the public listeners; certificates are reloaded without a restart."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from netmail_common.config import ConfigError, TlsConfig
from netmail_common.logging import get_logger

__all__ = ["ServerTls"]

log = get_logger(__name__)

_CHECK_INTERVAL = 1.0
_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class ServerTls:
    """The TLS context of a listener, always of the newest good certificate."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        minimum_version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = (certificate, key)
        self._minimum_version = minimum_version
        self._clock = clock
        self._checked = clock()
        self._stamp = self._stat()
        self._context = self._load()

    @classmethod
    def from_config(cls, config: TlsConfig, minimum_version: str | None = None) -> "ServerTls":
        """MINIMUM_VERSION: the listener's own, else the configuration's.

        Raises: ConfigError when the files do not make a pair.
        """
        if config.certificate is None or config.key is None:
            raise ConfigError("a listener with TLS needs tls.certificate and tls.key")
        return cls(config.certificate, config.key, minimum_version or config.minimum_version)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a new connection; looks at the files once a second at most."""
        now = self._clock()
        if now - self._checked >= _CHECK_INTERVAL:
            self._checked = now
            stamp = self._stat()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            self._context = self._load()
        except ConfigError as error:
            log.error("TLS certificate not taken, the last good one stays", error=str(error))  # noqa: TRY400
        else:
            log.info("TLS certificate reloaded", certificate=str(self._paths[0]))

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self._minimum_version]
        if self._minimum_version in ("1.0", "1.1"):
            context.set_ciphers(
                "DEFAULT:@SECLEVEL=0"
            )  # SHA-1 signatures, which these versions need
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        try:
            context.load_cert_chain(*self._paths)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{self._paths[0]}: {error}") from error
        return context
