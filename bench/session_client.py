"""A load generator for line protocols: whole sessions over plain sockets and epoll, in one process.

The same client drives ours and the peer; it reads replies by their end only, so that it costs
little beside the servers on the same cores.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent, and how to see that the reply is whole."""

    send: bytes
    complete: Callable[[bytes], bool]


@dataclass(slots=True)
class _Slot:
    """One of the sessions that run side by side; it keeps its user."""

    steps: Sequence[Step]
    connection: socket.socket | None = None
    at: int = 0
    received: bytearray = field(default_factory=bytearray)


class SessionFailed(RuntimeError):
    """The server refused or closed."""


def sessions_per_second(
    port: int, slots: Sequence[Sequence[Step]], sessions: int, refused: bytes
) -> float:
    """Runs whole sessions, one after the other in each slot, and gives the rate.

    Args:
        port: on 127.0.0.1.
        slots: the steps of each slot's session; the first step's `send` is empty (the greeting).
        sessions: in all.
        refused: a reply that begins so, or has it after a line end, is a failure.

    Raises: SessionFailed.
    """
    poll = select.epoll()
    by_fd: dict[int, _Slot] = {}
    begun = done = 0

    def begin(slot: _Slot) -> None:
        slot.connection = socket.create_connection(("127.0.0.1", port), 10)
        slot.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        slot.at = 0
        slot.received.clear()
        by_fd[slot.connection.fileno()] = slot
        poll.register(slot.connection, select.EPOLLIN)

    start = time.monotonic()
    for steps in slots[:sessions]:
        begin(_Slot(steps))
        begun += 1
    while by_fd:
        for fd, _ in poll.poll(30) or _silent():
            slot = by_fd[fd]
            if not _advance(slot, refused):
                continue
            poll.unregister(fd)
            del by_fd[fd]
            if slot.connection is not None:
                slot.connection.close()
            done += 1
            if begun < sessions:
                begin(slot)
                begun += 1
    poll.close()
    return done / (time.monotonic() - start)


def _silent() -> list[tuple[int, int]]:
    raise SessionFailed("no answer for 30 seconds")


def _advance(slot: _Slot, refused: bytes) -> bool:
    """Reads what there is and sends the next step; True: the session is over."""
    connection = slot.connection
    if connection is None:
        raise SessionFailed("no connection")
    data = connection.recv(262_144)
    slot.received += data
    reply = bytes(slot.received)
    if reply.startswith(refused) or b"\n" + refused in reply[:2000]:
        raise SessionFailed(reply[:200].decode(errors="replace"))
    if not slot.steps[slot.at].complete(reply):
        if not data:
            raise SessionFailed(f"closed in step {slot.at}")
        return False
    slot.received.clear()
    slot.at += 1
    if slot.at == len(slot.steps):
        return True
    connection.send(slot.steps[slot.at].send)
    return False
