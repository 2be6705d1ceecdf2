"""A UDP socket that is read until it is empty and answered in batches.

recvmmsg and sendmmsg, called through ctypes, were slower than a loop over recvfrom and sendto at
every size of batch up to 64. What goes to one socket in one size is handed to the kernel in one
piece, which it cuts up again (UDP_SEGMENT): a fifth of the time of sendto (docs/legacy-udp.md).
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

from netmail_common.config._base import parse_host_port
from netmail_common.listening import bind_socket

__all__ = ["Datagram", "DatagramSocket", "bind_ipv4"]

Datagram = tuple[bytes, tuple[str, int]]
"""Octets, and where they come from or go to."""

_BATCH = 256
_BUFFER = 4 * 1024 * 1024
"""Octets that the kernel may keep for us, as far as it allows."""
_SOL_UDP, _UDP_SEGMENT = 17, 103
"""Of linux/udp.h; Python has no names for them."""
_MAX_SEGMENTS = 64
_MAX_TRAIN = 60_000
"""Octets of datagrams that go in one piece; IPv4 ends at 65,507."""


def bind_ipv4(address: str, *, reuse_port: bool) -> socket.socket:
    """A UDP socket on `host:port`.

    Raises: OSError, also for a host that has no IPv4 address.
    """
    host, port = parse_host_port(address)
    bound = bind_socket(host, port, socket.SOCK_DGRAM, reuse_port=reuse_port, family=socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return bound


class DatagramSocket:
    """Hands over what has come in batches; may be told to wait.

    Args:
        bound: non-blocking; closed with this.
        size: octets of a datagram at most; of a longer one comes one octet more than that.
        received: takes this socket and a batch.
    """

    def __init__(
        self,
        bound: socket.socket,
        size: int,
        received: Callable[["DatagramSocket", Sequence[Datagram]], None],
    ) -> None:
        self._socket = bound
        self._size = size + 1
        self._received = received
        self._segments = _knows_segments(bound)
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._stopped = False
        self.resume()

    @property
    def port(self) -> int:
        """It is bound to."""
        port: int = self._socket.getsockname()[1]
        return port

    def pause(self) -> None:
        """What comes stays with the kernel, as long as there is room. Again changes nothing."""
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def resume(self) -> None:
        """Goes on reading. Again changes nothing."""
        if not self._reading and not self._stopped:
            self._loop.add_reader(self._socket, self._read)
            self._reading = True

    def send(self, datagrams: Sequence[Datagram]) -> int:
        """Sends without waiting; how many could not be sent.

        Those of one size to one target stay in their order.
        """
        trains: dict[tuple[int, tuple[str, int]], list[bytes]] = {}
        for data, target in datagrams:
            trains.setdefault((len(data), target), []).append(data)
        lost = 0
        for (size, target), train in trains.items():
            most = min(_MAX_SEGMENTS, _MAX_TRAIN // size) if size and self._segments else 1
            for start in range(0, len(train), most):
                lost += self._send_train(train[start : start + most], size, target)
        return lost

    def _send_train(self, train: list[bytes], size: int, target: tuple[str, int]) -> int:
        """Sends datagrams of one size to one target; how many could not be sent."""
        if len(train) > 1:
            segments = (_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))
            try:
                self._socket.sendmsg([b"".join(train)], [segments], 0, target)
            except OSError:  # no room for all, or a route on which it cannot be done
                pass
            else:
                return 0
        lost = 0
        for data in train:
            try:
                self._socket.sendto(data, target)
            except OSError:  # no room, no route: for UDP both are a datagram lost
                lost += 1
        return lost

    def stop(self) -> None:
        """Reads no more, for good; sending goes on."""
        self.pause()
        self._stopped = True

    def close(self) -> None:
        """Closes the socket."""
        self.stop()
        self._socket.close()

    def _read(self) -> None:
        batch: list[Datagram] = []
        recvfrom, size = self._socket.recvfrom, self._size
        try:
            while len(batch) < _BATCH:
                batch.append(recvfrom(size))
        except OSError:  # empty, or the kernel tells of a datagram that never arrived
            pass
        if batch:
            self._received(self, batch)


def _knows_segments(bound: socket.socket) -> bool:
    """Whether the kernel cuts up what is sent; an old one would send it as one datagram."""
    try:
        bound.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True
