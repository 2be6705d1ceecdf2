"""Whether the peer of a TCP connection is still there.

A host that was switched off, or whose way to us has changed, says nothing: what is sent to it is
sent again and again, for a quarter of an hour (net.ipv4.tcp_retries2). TCP_USER_TIMEOUT would end
that sooner, but would end a connection too whose peer is there and only does not read, which is to
be kept as long as probes are answered (RFC 9293 3.8.6.1).
"""

import asyncio
import socket
import struct
from collections.abc import Callable

__all__ = ["PeerWatch", "ask_when_silent"]

_SILENCE, _INTERVAL, _QUESTIONS = 120, 15, 4
"""Seconds without a word until the kernel asks, then between two questions; how many."""
_TCP_INFO = struct.Struct("=24xI28xI")
"""Of struct tcp_info (linux/tcp.h): segments sent that are not acknowledged, and milliseconds since
the last acknowledgement. A peer that does not read acknowledges, and then gets no more."""
_LOOKS = 4


def ask_when_silent(connection: socket.socket) -> None:
    """Lets the kernel ask a silent peer whether it is there, and end the connection if it is not.

    Raises: OSError, for a connection that has gone.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _QUESTIONS)


class PeerWatch:
    """Tells when a peer acknowledges nothing any more of what is sent to it.

    Args:
        transport: of the connection.
        patience: seconds that it may leave what was sent unacknowledged; half as many more may go
            by until that is noticed.
        lost: is called once then.
    """

    def __init__(
        self, transport: asyncio.BaseTransport, patience: float, lost: Callable[[], None]
    ) -> None:
        self._connection = transport.get_extra_info("socket")
        self._interval = patience / _LOOKS
        self._lost = lost
        self._unanswered = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._look)

    def stop(self) -> None:
        """Looks no more. Again changes nothing."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._connection is None:  # it had ended before the watch began
            return
        try:
            info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # it has ended
            return
        unacknowledged, since = _TCP_INFO.unpack(info)
        answered = not unacknowledged or since < self._interval * 1000
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered >= _LOOKS:
            self._lost()
            return
        self._timer = self._loop.call_later(self._interval, self._look)
