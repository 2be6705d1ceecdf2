"""What `netmail run` keeps in its state directory: the file it ran, a lock, certificates."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from netmail_common.certificates import LocalAuthority
from netmail_common.config import ConfigError, Installation, listener_certificate
from netmail_common.roles import Role

__all__ = ["RunRecord", "StateLock", "issue_certificates"]

_RECORD = "run.json"
_LOCK = "run.lock"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The last `netmail run` in a state directory."""

    config: str
    """Absolute path of its configuration file."""
    pid: int

    def write(self, state: Path) -> None:
        """Replaces the record."""
        temporary = state / f".{_RECORD}"
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(state / _RECORD)

    @classmethod
    def read(cls, state: Path) -> "RunRecord | None":
        """None when nothing ever ran there."""
        try:
            data = json.loads((state / _RECORD).read_text(encoding="utf-8"))
            return cls(str(data["config"]), int(data["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


class StateLock:
    """One `netmail run` per state directory; the lock ends with the process."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        self._fd = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise ConfigError(f"{state}: another netmail run uses this state directory") from None

    def release(self) -> None:
        """Lets another one start."""
        os.close(self._fd)


def issue_certificates(installation: Installation) -> None:
    """Makes or renews, by the local CA, every certificate that is ours to make.

    Those of the agents unless `grpc.certificates` names a folder; those of the public listeners
    where the configuration names none.
    """
    state = installation.state_dir
    authority = LocalAuthority.open_or_create(state / "ca", installation.installation)
    if installation.grpc.certificates is None:
        for role in Role:
            authority.issue(role, installation.certificates)
    for server in installation.messaging_servers:
        certificate, key = listener_certificate(state, server.name)
        if server.tls.certificate == certificate:
            authority.issue_server(server.host_name, certificate, key)
