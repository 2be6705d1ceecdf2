"""A Dovecot of our own in a scratch folder, beside any that the machine may run."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PEER = Path(__file__).resolve().parent / "peers" / "dovecot" / "dovecot.conf"
_PROGRAM = "/usr/sbin/dovecot"


@dataclass(frozen=True, slots=True)
class Dovecot:
    """A running Dovecot, 127.0.0.1, plain."""

    pop3_port: int
    imap_port: int
    root: Path

    def deliver(self, user: str, messages: Iterable[bytes]) -> None:
        """Puts messages into a user's INBOX, before his first login."""
        maildir = self.root / "mail" / user
        for name in ("new", "cur", "tmp"):
            (maildir / name).mkdir(parents=True, exist_ok=True)
        for number, message in enumerate(messages, 1):
            (maildir / "cur" / f"{number:010}.M0P1.bench,S={len(message)}:2,S").write_bytes(message)
        _chown(maildir)

    def doveadm(self, *argv: str) -> str:
        """Runs a doveadm command and gives its output."""
        done = subprocess.run(
            ["/usr/bin/doveadm", "-c", str(self.root / "dovecot.conf"), *argv],
            check=True, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return done.stdout


def version() -> str:
    """Gives `Dovecot 2.3.19.1`."""
    done = subprocess.run([_PROGRAM, "--version"], check=True, capture_output=True, text=True)
    return f"Dovecot {done.stdout.split()[0]}"


@contextmanager
def dovecot(
    users: dict[str, str],
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    sessions_per_process: int = 1,
) -> Iterator[Dovecot]:
    """Starts Dovecot with bench/peers/dovecot/dovecot.conf.

    Args:
        users: name and password of each.
        certificate, key: STARTTLS and STLS are offered with these (PEM).
        sessions_per_process: service_count of pop3 and imap; Dovecot's default is 1.
    """
    root = Path(tempfile.mkdtemp(prefix="netmail-dovecot-"))
    root.chmod(0o755)
    (root / "mail").mkdir()
    _chown(root / "mail")
    running = Dovecot(_free_port(), _free_port(), root)
    tls = "" if certificate is None else f"ssl_cert = <{certificate}\nssl_key = <{key}"
    values = {
        "ROOT": str(root),
        "POP3": str(running.pop3_port),
        "IMAP": str(running.imap_port),
        "SSL": "no" if certificate is None else "yes",
        "CERTIFICATE": tls,
        "SESSIONS_PER_PROCESS": str(sessions_per_process),
    }
    text = PEER.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (root / "dovecot.conf").write_text(text, encoding="utf-8")
    (root / "users").write_text(
        "".join(f"{user}:{_hashed(password)}\n" for user, password in users.items()),
        encoding="utf-8",
    )
    process = subprocess.Popen([_PROGRAM, "-F", "-c", str(root / "dovecot.conf")])
    try:
        for port in (running.pop3_port, running.imap_port):
            _wait(port, process, root / "log")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _hashed(password: str) -> str:
    """Salted SHA-512; the cache keeps it off the path of a login, as our cache keeps Argon2."""
    salt = os.urandom(8)
    return "{SSHA512.hex}" + (hashlib.sha512(password.encode() + salt).digest() + salt).hex()


def _chown(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "dovecot", "dovecot")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                if connection.recv(1):
                    return
        except OSError:
            if process.poll() is not None:
                break
        time.sleep(0.1)
    text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"Dovecot does not answer: {text}")
