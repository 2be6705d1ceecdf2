"""Debian's Dovecot with a configuration of its own, on any address, in any network namespace."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.installation import free_port

_MAIN = """\
base_dir = {root}/run
state_dir = {root}/state
instance_name = netmail-test
log_path = {root}/log
protocols = pop3 imap
listen = {listen}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
mail_location = maildir:{root}/mail/%u
first_valid_uid = 1
mail_uid = dovecot
mail_gid = dovecot
passdb {{
  driver = passwd-file
  args = scheme=plain {root}/users
}}
userdb {{
  driver = static
  args = uid=dovecot gid=dovecot home={root}/mail/%u
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service auth {{
  unix_listener {root}/sasl {{
    mode = 0666
  }}
}}
{settings}
"""


@dataclass(frozen=True, slots=True)
class DovecotHost:
    """A running Dovecot; `sasl` is the socket for Postfix's SMTP AUTH."""

    pop3_port: int
    imap_port: int
    sasl: Path
    log: Path

    def log_text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextmanager
def dovecot_host(
    users: Mapping[str, str],
    settings: str,
    *,
    listen: str = "127.0.0.1",
    prefix: Sequence[str] = (),
    answers: Callable[[int], bool],
) -> Iterator[DovecotHost]:
    """Runs Dovecot with SETTINGS added to its configuration.

    Args:
        users: name and password of each.
        listen: addresses, as Dovecot writes them.
        prefix: a command that runs it, such as `ip netns exec NAME`.
        answers: whether a port of it can be connected to.

    Skips the test without Debian's packages, or without root.
    """
    if not Path("/usr/lib/dovecot/pop3").exists() or os.geteuid() != 0:
        pytest.skip("needs the Debian packages dovecot-imapd and dovecot-pop3d, and root")
    root = Path(tempfile.mkdtemp(prefix="netmail-dovecot-"))
    root.chmod(0o755)
    (root / "mail").mkdir()
    shutil.chown(root / "mail", "dovecot", "dovecot")
    host = DovecotHost(free_port(), free_port(), root / "sasl", root / "log")
    (root / "dovecot.conf").write_text(
        _MAIN.format(
            root=root,
            listen=listen,
            pop3=host.pop3_port,
            imap=host.imap_port,
            settings=settings,
        )
    )
    (root / "users").write_text("".join(f"{name}:{word}\n" for name, word in users.items()))
    with (root / "out").open("wb") as out:
        process = subprocess.Popen(
            [*prefix, "/usr/sbin/dovecot", "-F", "-c", str(root / "dovecot.conf")],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (answers(host.pop3_port) and answers(host.imap_port)):
            text = (root / "out").read_text(errors="replace") + host.log_text()
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(root, ignore_errors=True)
