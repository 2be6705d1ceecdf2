"""Sockets in another network namespace, from the process of the test."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Calls WORK in a thread of its own that is in the network namespace.

    A socket that is made there stays there, whoever uses it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def connect_from(
    namespace: str, source: str, target: tuple[str, int], timeout: float = 20
) -> socket.socket:
    """A TCP connection from an address in the namespace."""
    return inside(
        namespace,
        lambda: socket.create_connection(target, timeout, source_address=(source, 0)),
    )


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with (Path("/run/netns") / namespace).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
