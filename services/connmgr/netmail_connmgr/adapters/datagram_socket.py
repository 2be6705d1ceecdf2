"""A UDP socket that is read until it is empty and answered in batches.

recvmmsg and sendmmsg, called through ctypes, were slower than a loop over recvfrom and sendto at
every size of batch up to 64 (docs/legacy-udp.md).
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from netmail_common.config._base import parse_host_port
from netmail_common.listening import bind_socket

__all__ = ["Datagram", "DatagramSocket", "bind_ipv4"]

Datagram = tuple[bytes, tuple[str, int]]
"""Octets, and where they come from or go to."""

_BATCH = 256
_BUFFER = 4 * 1024 * 1024
"""Octets that the kernel may keep for us, as far as it allows."""


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
        """Sends without waiting; how many could not be sent."""
        lost = 0
        sendto = self._socket.sendto
        for data, target in datagrams:
            try:
                sendto(data, target)
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
