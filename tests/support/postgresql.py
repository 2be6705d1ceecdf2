"""Debian's PostgreSQL: a server of our own in a temporary folder, on loopback."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.installation import free_port
from tests.support.valkey import eventually

_USER = "netmail"
_FAST_SHUTDOWN = ("-m", "fast", "-w", "-t", "60")


def _programs() -> Path:
    """The newest server that is installed; skips without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("needs the Debian package postgresql")
    return found[-1].parent


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that can be stopped, killed and started again."""

    folder: Path
    port: int
    programs: Path
    options: Sequence[str]

    def start(self) -> None:
        options = " ".join(f"-c {option}" for option in self.options)
        self._control("start", "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        self._control("stop", *_FAST_SHUTDOWN)

    def kill(self) -> None:
        """As a crash does: no checkpoint, no farewell."""
        self._control("stop", "-m", "immediate", "-w", "-t", "60")

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str | None = None) -> str:
        """A new database; gives its URL."""
        name = f"store_{secrets.token_hex(6)}"
        copied = f" TEMPLATE {template}" if template else ""
        self.sql(f"CREATE DATABASE {name}{copied}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql says, without decoration."""
        done = subprocess.run(
            [
                *(str(self.programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port)),
                *("-U", _USER, "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
                *("-c", statement),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.strip()

    def promote(self) -> None:
        """A standby becomes the primary."""
        self._control("promote", "-w", "-t", "60")

    def _control(self, *words: str) -> None:
        command = [str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), *words]
        subprocess.run(
            _as_nobody_special(command),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            timeout=120,
        )


def _as_nobody_special(command: Sequence[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


@contextlib.contextmanager
def postgresql(*options: str, durable: bool = False) -> Iterator[Server]:
    """A running server; DURABLE: it waits for the disk, as in production."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="netmail-postgresql-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            _as_nobody_special(
                [
                    *(str(programs / "initdb"), "-D", str(folder / "data"), "-U", _USER),
                    *("-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
                ]
            ),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            timeout=120,
        )
        port = free_port()
        server = Server(
            folder,
            port,
            programs,
            (
                f"port={port}",
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "max_connections=100",
                *(() if durable else ("fsync=off",)),
                *options,
            ),
        )
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # it was stopped already
                server._control("stop", *_FAST_SHUTDOWN)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A synchronous standby of it, attached: a commit is answered when both have it."""
    folder = Path(tempfile.mkdtemp(prefix="netmail-postgresql-"))
    port = free_port()
    options = [option for option in primary.options if not option.startswith("port=")]
    server = Server(folder, port, primary.programs, (f"port={port}", *options))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        copy = [str(primary.programs / "pg_basebackup"), "-D", str(folder / "data"), "-R", "-N"]
        copy += ["-h", "127.0.0.1", "-p", str(primary.port), "-U", _USER, "-c", "fast"]
        subprocess.run(_as_nobody_special(copy), check=True, cwd=folder, timeout=120)
        server.start()
        try:
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.sql("SELECT pg_reload_conf()")
            state = "SELECT sync_state FROM pg_stat_replication"
            eventually(lambda: primary.sql(state) == "sync", "the standby is attached")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def pgbouncer(server: Server) -> Iterator[int]:
    """Debian's pgbouncer before a server, pooling transactions; gives its port."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("needs the Debian package pgbouncer")
    port = free_port()
    settings = server.folder / "pgbouncer.ini"
    settings.write_text(
        f"""[databases]
* = host=127.0.0.1 port={server.port} user={_USER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""
    )
    settings.chmod(0o644)
    process = subprocess.Popen(
        _as_nobody_special([program, "-q", str(settings)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers(port), f"pgbouncer on port {port}")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
