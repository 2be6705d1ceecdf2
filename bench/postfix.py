"""A Postfix of our own in a scratch folder, beside any that the machine may run."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers" / "postfix"


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix."""

    port: int
    config: Path
    queue: Path

    def command(self, *argv: str) -> str:
        """Runs a Postfix command (`postqueue -p`, ...) against it and gives its output."""
        program = shutil.which(argv[0], path="/usr/sbin:/usr/bin") or argv[0]
        done = subprocess.run(
            [program, "-c", str(self.config), *argv[1:]],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout


def version() -> str:
    """Gives `Postfix 3.7.11`."""
    done = subprocess.run(
        ["/usr/sbin/postconf", "-dh", "mail_version"], check=True, capture_output=True, text=True
    )
    return f"Postfix {done.stdout.strip()}"


def self_signed(certificate: Path, key: Path) -> None:
    """Writes an ECDSA P-256 certificate for localhost, as our own local CA issues them."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip


@contextmanager
def postfix(template: str, **values: str) -> Iterator[Postfix]:
    """Starts Postfix with bench/peers/postfix/TEMPLATE.main.cf and TEMPLATE.master.cf.

    `@NAME@` in both is replaced by `values`; PORT, CONFIG, QUEUE and DATA are given.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    root = Path(tempfile.mkdtemp(prefix="netmail-postfix-"))
    root.chmod(0o755)
    config, queue, data = root / "etc", root / "queue", root / "data"
    for folder in (config, queue, data):
        folder.mkdir()
    shutil.chown(data, "postfix")
    known = {
        "PORT": str(port),
        "CONFIG": str(config),
        "QUEUE": str(queue),
        "DATA": str(data),
        **values,
    }
    for name in ("main.cf", "master.cf"):
        text = (PEERS / f"{template}.{name}").read_text(encoding="utf-8")
        for key, value in known.items():
            text = text.replace(f"@{key}@", value)
        (config / name).write_text(text, encoding="utf-8")
    log = (root / "log").open("wb")
    env = {**os.environ, "MAIL_CONFIG": str(config)}
    process = subprocess.Popen(
        ["/usr/sbin/postfix", "-c", str(config), "start-fg"], stdout=log, stderr=log, env=env
    )
    try:
        _wait(port, process, root / "log")
        yield Postfix(port, config, queue)
    finally:
        subprocess.run(
            ["/usr/sbin/postfix", "-c", str(config), "abort"],
            check=False,
            capture_output=True,
            env=env,
        )
        process.wait(timeout=30)
        log.close()
        shutil.rmtree(root, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Postfix ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                if connection.recv(3) == b"220":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"Postfix does not answer: {log.read_text(errors='replace')[-2000:]}")
