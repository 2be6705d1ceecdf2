"""Debian's Postfix with a configuration and queue of its own, on a loopback port."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.waiting import greets
from tests.support.installation import free_port

_MAIN = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {data}/maillog
maillog_file_prefixes = {data}
myhostname = postfix.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = {interfaces}
inet_protocols = all
mynetworks = 127.0.0.0/8
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = example.net
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {mail}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtputf8_enable = yes
"""
_MASTER = """\
{port}    inet  n  -  n  -     -  smtpd
pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
proxywrite unix -  -  n  -     1  proxymap
smtp      unix  -  -  n  -     -  smtp
relay     unix  -  -  n  -     -  smtp
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
virtual   unix  -  n  n  -     -  virtual
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
"""


@dataclass(frozen=True, slots=True)
class PostfixHost:
    """A running Postfix that takes mail for example.net into a maildir."""

    port: int
    config: Path
    mail: Path
    log: Path

    def messages(self) -> list[bytes]:
        """What has arrived in the maildir so far."""
        paths = (self.mail / "all/new").glob("*")
        return [path.read_bytes() for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns)]

    def wait_for(self, count: int, seconds: float = 20) -> list[bytes]:
        """Waits until COUNT messages are there."""
        deadline = time.monotonic() + seconds
        while len(found := self.messages()) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count}: {self.log_text()}"
            time.sleep(0.05)
        return found

    def log_text(self) -> str:
        """The mail log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def flush(self) -> None:
        """Tries the queue now."""
        subprocess.run(["/usr/sbin/postqueue", "-c", str(self.config), "-f"], check=True)


@contextmanager
def postfix_host(
    settings: Mapping[str, str] | Callable[[Path], str],
    *,
    interfaces: str = "127.0.0.1",
    prefix: Sequence[str] = (),
    answers: Callable[[int], bool] = greets,
) -> Iterator[PostfixHost]:
    """Runs Postfix with SETTINGS added to its main.cf.

    Args:
        settings: by name; or a function that makes their text, of the queue directory.
        interfaces: addresses to listen on.
        prefix: a command that runs it, such as `ip netns exec NAME`.
        answers: whether its port greets.

    Skips the test without Debian's postfix, or without root, which its master needs.
    """
    if not Path("/usr/sbin/postfix").exists() or os.geteuid() != 0:
        pytest.skip("needs the Debian package postfix, and root")
    # Not below pytest's own folder, which nobody but root may enter.
    with tempfile.TemporaryDirectory(prefix="netmail-postfix-") as folder:
        Path(folder).chmod(0o755)
        if not callable(settings):
            text = "".join(f"{key} = {value}\n" for key, value in settings.items())
            make = lambda _: text  # noqa: E731
        else:
            make = settings
        with _running(Path(folder), make, interfaces, prefix, answers) as host:
            yield host


@contextmanager
def _running(
    root: Path,
    settings: Callable[[Path], str],
    interfaces: str,
    prefix: Sequence[str],
    answers: Callable[[int], bool],
) -> Iterator[PostfixHost]:
    port = free_port()
    config, queue, data, mail = (root / name for name in ("etc", "queue", "data", "mail"))
    for folder in (config, queue, data, mail):
        folder.mkdir()
    shutil.chown(data, "postfix")
    shutil.chown(mail, "nobody", "nogroup")
    owner = mail.stat()
    text = _MAIN.format(
        queue=queue,
        data=data,
        mail=mail,
        uid=owner.st_uid,
        gid=owner.st_gid,
        interfaces=interfaces,
    )
    text += settings(queue)
    (config / "main.cf").write_text(text)
    (config / "master.cf").write_text(_MASTER.format(port=port))
    env = {**os.environ, "MAIL_CONFIG": str(config)}
    with (root / "out").open("wb") as out:
        process = subprocess.Popen(
            [*prefix, "/usr/sbin/postfix", "-c", str(config), "start-fg"],
            stdout=out, stderr=out, env=env,
        )  # fmt: skip
    host = PostfixHost(port, config, mail, data / "maillog")
    try:
        _wait_for_greeting(process, host, root / "out", answers)
        yield host
    finally:
        subprocess.run(
            [*prefix, "/usr/sbin/postfix", "-c", str(config), "abort"],
            check=False, capture_output=True, env=env,
        )  # fmt: skip
        process.wait(30)


def _wait_for_greeting(
    process: subprocess.Popen[bytes],
    host: PostfixHost,
    out: Path,
    answers: Callable[[int], bool],
) -> None:
    deadline = time.monotonic() + 30
    while not answers(host.port):
        assert process.poll() is None, out.read_text(errors="replace") + host.log_text()
        assert time.monotonic() < deadline, host.log_text()
        time.sleep(0.05)
