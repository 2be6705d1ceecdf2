"""Reads a PROXY header from an accepted socket and leaves every later octet in it."""

import asyncio
import socket

from netmail_common.proxy_protocol import MAX_HEADER, ProxyHeader, ProxyProtocolError, parse_header

__all__ = ["HEADER_TIMEOUT", "read_proxy_header"]

HEADER_TIMEOUT = 5.0
"""Seconds for the whole header."""


async def read_proxy_header(
    connection: socket.socket, limit: float = HEADER_TIMEOUT
) -> ProxyHeader:
    """Consumes exactly the header, so that TLS or the protocol finds what the client sent.

    Raises: ProxyProtocolError, TimeoutError, OSError.
    """
    buffer = b""
    async with asyncio.timeout(limit):
        while True:
            await _readable(connection)
            try:
                peeked = connection.recv(MAX_HEADER, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            if not peeked:
                raise ProxyProtocolError("closed before its PROXY header")
            header = parse_header(buffer + peeked)
            if isinstance(header, ProxyHeader):
                connection.recv(header.length - len(buffer))
                return header
            # An incomplete header is nothing but header: take it, or the socket stays readable.
            buffer += connection.recv(len(peeked))


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
