"""Our agents as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

__all__ = ["agent"]


@contextmanager
def agent(
    module: str, *argv: str, log: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """One of our agents, from the moment at which it is ready.

    Args:
        log: takes what it says; None: whoever reads ours.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *argv],
        env={**os.environ, "NETMAIL_READY_FD": str(writer)},
        pass_fds=[writer],
        stdout=log,
        stderr=log,
    )
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as ready:
            if ready.readline() != b"ready\n":
                raise RuntimeError(f"{module} did not start")
        yield process
    finally:
        process.terminate()
        process.wait(60)
