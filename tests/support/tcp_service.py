"""A port of loopback that leads to a server, as a Service of Kubernetes does."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator


class TcpService:
    """Passes connections on to a port that may change.

    Attributes:
        port: where clients connect to.
    """

    def __init__(self, leads_to: int) -> None:
        self._leads_to = leads_to
        self._still = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._open: set[socket.socket] = set()
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator["TcpService"]:
        """Passes on while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._end.set()
            self._thread.join(10)
            for one in (self._listening, *self._open):
                one.close()
            self._selector.close()

    def stand_still(self) -> None:
        """Connections are taken and stay open, and nobody says anything on them, for ever."""
        with self._lock:
            self._still = True
            for one in self._open:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(one)

    def lead_to(self, port: int) -> None:
        """New connections lead elsewhere."""
        with self._lock:
            self._leads_to, self._still = port, False

    def _pass_on(self) -> None:
        while not self._end.is_set():
            ready = self._selector.select(0.1)
            with self._lock:
                for key, _ in ready:
                    if key.fileobj is self._listening:
                        self._take()
                    elif isinstance(key.fileobj, socket.socket) and not self._still:
                        self._copy(key.fileobj, key.data)

    def _take(self) -> None:
        client, _ = self._listening.accept()
        self._open.add(client)
        if self._still:
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._leads_to), 5)
        except OSError:
            self._close(client)
            return
        self._open.add(server)
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _copy(self, source: socket.socket, to: socket.socket) -> None:
        try:
            data = source.recv(65536)
            to.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(source)
            self._close(to)

    def _close(self, one: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one)
        self._open.discard(one)
        one.close()
