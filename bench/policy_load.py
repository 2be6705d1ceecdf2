"""A load generator for Postfix's policy protocol, and the least server that could answer it.

`python -m bench.policy_load PORT` serves `action=DUNNO` on 127.0.0.1, with uvloop and without a
thought: what a Python process on this machine could give at best.
"""

import asyncio
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import cast

import uvloop


class LoadFailed(RuntimeError):
    """The server closed, or does not answer."""


def answers_per_second(
    port: int, requests: Sequence[bytes], *, connections: int, count: int
) -> float:
    """Asks on kept connections, each its next question when it has its answer; the rate.

    Args:
        port: on 127.0.0.1.
        requests: taken in turn.
        connections: side by side.
        count: answers in all.

    Raises: LoadFailed.
    """
    poll = select.epoll()
    by_fd = {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        by_fd[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    try:
        return _run(poll, by_fd, requests, count)
    finally:
        poll.close()
        for connection in by_fd.values():
            connection.close()


def _run(
    poll: select.epoll, by_fd: dict[int, socket.socket], requests: Sequence[bytes], count: int
) -> float:
    received = dict.fromkeys(by_fd, b"")
    start = time.monotonic()
    asked = answered = 0
    for connection in by_fd.values():
        connection.send(requests[asked % len(requests)])
        asked += 1
    while answered < count:
        events = poll.poll(30)
        if not events:
            raise LoadFailed("no answer for 30 seconds")
        for fd, _ in events:
            data = received[fd] + by_fd[fd].recv(65_536)
            if not data.endswith(b"\n\n"):
                if data == received[fd]:
                    raise LoadFailed("closed")
                received[fd] = data
                continue
            if not data.startswith(b"action="):
                raise LoadFailed("no action")
            received[fd] = b""
            answered += 1
            by_fd[fd].send(requests[asked % len(requests)])
            asked += 1
    return answered / (time.monotonic() - start)


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\n\n"):
            self._transport.write(b"action=DUNNO\n\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port)
    os.write(int(os.environ["NETMAIL_READY_FD"]), b"ready\n")
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
