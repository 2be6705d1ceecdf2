"""Debian's Exim on a loopback port, unpacked only: its package excludes Postfix's."""

import os
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.waiting import greets
from tests.support.installation import free_port

PACKAGES = ("exim4-daemon-light", "exim4-base", "exim4-config")
_USER = "Debian-exim"
_UID = 9925
_CONFIG = """\
exim_path = {exim}
exim_user = {user}
primary_hostname = exim.test
spool_directory = {root}/spool
log_file_path = {root}/log/%slog
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
domainlist local_domains = example.net
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
tls_advertise_hosts = {tls_hosts}
tls_certificate = {root}/cert.pem
tls_privatekey = {root}/key.pem
host_lookup =
rfc1413_query_timeout = 0s
smtputf8_advertise_hosts = *
keep_environment =
begin acl
acl_rcpt:
{acl_rcpt}
acl_data:
  deny senders = spammer@example.org
       message = 5.7.1 not this
  accept
begin routers
store:
  driver = accept
  transport = store
begin transports
store:
  driver = appendfile
  directory = {root}/mail
  maildir_format
  delivery_date_add = false
  envelope_to_add = false
  return_path_add = false
  user = {user}
  group = {user}
begin retry
* * F,1h,1m
"""
_FORGED = "From: alice@example.org\r\nX-Auth-OK: mallory\r\nSubject: hello\r\n\r\nhello\r\n"
_ACL_RCPT = """\
  deny local_parts = nobody
       message = 5.1.1 no such user here
  defer local_parts = later
       message = 4.2.1 try later
  accept
"""


@dataclass(frozen=True, slots=True)
class EximHost:
    """A running Exim that takes mail, for example.net and whatever else, into a maildir."""

    port: int
    root: Path

    def wait_for(self, count: int, seconds: float = 20) -> list[bytes]:
        """Waits until COUNT messages are there."""
        deadline = time.monotonic() + seconds
        while len(found := self.arrived()) < count:
            assert time.monotonic() < deadline, self.log_text()
            time.sleep(0.05)
        return [path.read_bytes() for path in found]

    def arrived(self) -> list[Path]:
        """What is in the maildir, oldest first."""
        return sorted((self.root / "mail/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)

    def offer(self, source: str, recipient: str) -> tuple[int, str]:
        """Sends a message from an address; the reply to RCPT if it refuses, else to the data."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60, source_address=(source, 0)) as client:
            client.ehlo("client.test")
            client.mail("alice@example.org")
            code, text = client.rcpt(recipient)
            if code == 250:
                code, text = client.data(_FORGED)
        return code, text.decode()

    def log_text(self) -> str:
        """Its logs."""
        logs = (self.root / "log").glob("*log")
        return "".join(path.read_text(errors="replace") for path in logs)


def _unpack(root: Path) -> Path:
    """Gives the path of the daemon. NETMAIL_EXIM_PACKAGES names a folder with the packages."""
    packages = Path(os.environ.get("NETMAIL_EXIM_PACKAGES") or root / "packages")
    packages.mkdir(parents=True, exist_ok=True)
    if not list(packages.glob("exim4-daemon-light_*.deb")):
        done = subprocess.run(
            ["apt-get", "download", "-q", *PACKAGES],
            check=False, capture_output=True, text=True, timeout=120, cwd=packages,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"needs the Debian packages {', '.join(PACKAGES)}, unpacked only")
    for package in packages.glob("exim4-*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root / "exim")], check=True)
    return root / "exim/usr/sbin/exim4"


@contextmanager
def exim_host(
    *,
    tls: tuple[Path, Path] | None = None,
    acl_rcpt: str = _ACL_RCPT,
    resolver: str | None = None,
) -> Iterator[EximHost]:
    """Runs Exim.

    Skips the test where its packages or root cannot be had.

    Args:
        tls: certificate and key, to offer STARTTLS.
        acl_rcpt: the ACL that judges recipients.
        resolver: address of the DNS server that it asks, at port 53; None: the machine's.
    """
    if shutil.which("dpkg-deb") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root, dpkg-deb and unshare")
    with tempfile.TemporaryDirectory(prefix="netmail-exim-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder)
        if resolver is not None:
            (root / "resolv.conf").write_text(
                f"nameserver {resolver}\noptions timeout:2 attempts:1\n"
            )
        with _running(root, tls, acl_rcpt) as host:
            yield host


@contextmanager
def _running(root: Path, tls: tuple[Path, Path] | None, acl_rcpt: str) -> Iterator[EximHost]:
    exim, port = _unpack(root), free_port()
    for name in ("spool", "log", "mail"):
        (root / name).mkdir()
        os.chown(root / name, _UID, _UID)
    for source, name in zip(tls or (), ("cert.pem", "key.pem"), strict=False):
        shutil.copy(source, root / name)
        os.chown(root / name, _UID, _UID)
    config = root / "exim.conf"
    config.write_text(
        _CONFIG.format(
            exim=exim,
            user=_USER,
            root=root,
            port=port,
            tls_hosts="*" if tls else "",
            acl_rcpt=acl_rcpt,
        )
    )
    # Exim wants its user to exist: in a mount namespace of its own it does.
    (root / "passwd").write_text(
        Path("/etc/passwd").read_text() + f"{_USER}:x:{_UID}:{_UID}::/nonexistent:/bin/false\n"
    )
    (root / "group").write_text(Path("/etc/group").read_text() + f"{_USER}:x:{_UID}:\n")
    script = (
        f"mount --bind {root}/passwd /etc/passwd && mount --bind {root}/group /etc/group"
        f" && if test -e {root}/resolv.conf; then"
        f" mount --bind {root}/resolv.conf /etc/resolv.conf; fi"
        f" && exec {exim} -C {config} -bdf"
    )
    with (root / "out").open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdout=out, stderr=out
        )
    host = EximHost(port, root)
    try:
        deadline = time.monotonic() + 30
        while not greets(port):
            assert process.poll() is None, (root / "out").read_text(errors="replace")
            assert time.monotonic() < deadline, host.log_text()
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(30)
