"""Cuts a connection so that the kernel forgets it too."""

import asyncio
import contextlib
import socket
import struct

__all__ = ["reset"]

_NO_LINGER = struct.pack("ii", 1, 0)


def reset(transport: asyncio.WriteTransport) -> None:
    """Aborts the connection and resets it.

    A client that reads nothing leaves megabytes in the kernel's send buffer. An abort alone closes
    the socket and lets the kernel keep trying for a quarter of an hour; a reset frees it.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # it may be gone
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
