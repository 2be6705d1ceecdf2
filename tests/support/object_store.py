"""A real S3 server: versitygw, from its Go module, on a folder of its own."""

import contextlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.installation import free_port
from tests.support.postgresql import _answers
from tests.support.valkey import eventually

_BUILD = Path(__file__).with_name("versitygw.sh")
ACCESS_KEY = "netmail-tests"


class Place(NamedTuple):
    """A host.

    Attributes:
        command: that runs a program there; its arguments follow.
        answers: whether somebody listens on a port there.
    """

    address: str = "127.0.0.1"
    command: Sequence[str] = ()
    answers: Callable[[int], bool] = _answers


HERE = Place()


@dataclass
class ObjectServer:
    """An S3 server that can be stopped and started again.

    Attributes:
        where: it runs.
    """

    program: str
    folder: Path
    port: int
    secret_key: str
    where: "Place"
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.where.address}:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *self.where.command,
                *(self.program, "--port", f"{self.where.address}:{self.port}"),
                *("--quiet", "--keep-alive"),
                *("--access", ACCESS_KEY, "--secret", self.secret_key),
                *("posix", "--sidecar", str(self.folder / "sidecar"), str(self.folder / "buckets")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: self.where.answers(self.port), f"versitygw on port {self.port}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def bucket(self) -> str:
        """A new one; gives its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        (self.folder / "buckets" / name).mkdir()
        return name

    def settings(self, url: str) -> dict[str, str]:
        """For `nmap.store.objects`."""
        return {
            "url": url,
            "endpoint": self.endpoint,
            "access_key_file": str(self.folder / "access-key"),
            "secret_key_file": str(self.folder / "secret-key"),
        }

    def objects(self, bucket: str) -> list[Path]:
        """What is in it: versitygw keeps each object as a file."""
        return sorted(p for p in (self.folder / "buckets" / bucket).rglob("*") if p.is_file())


@contextlib.contextmanager
def object_server(where: Place = HERE) -> Iterator[ObjectServer]:
    """Skips where it cannot be built."""
    if shutil.which("go") is None:
        pytest.skip("needs Go, to build the S3 server versitygw")
    built = subprocess.run([_BUILD], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        pytest.skip("needs the S3 server versitygw, which could not be built")
    folder = Path(tempfile.mkdtemp(prefix="netmail-objects-"))
    server = ObjectServer(built.stdout.strip(), folder, free_port(), secrets.token_hex(16), where)
    for name in ("buckets", "sidecar"):
        (folder / name).mkdir()
    (folder / "access-key").write_text(ACCESS_KEY + "\n")
    (folder / "secret-key").write_text(server.secret_key + "\n")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
