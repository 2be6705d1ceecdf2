"""The rest of the world: a mail server outside the cluster that takes every message."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.cluster.support.outside import Outside
from tests.support.waiting import eventually

MARK = re.compile(rb"^X-Load-Id: ([0-9a-f]{32})\r?$", re.MULTILINE | re.IGNORECASE)


class _Server(SMTP):
    line_length_limit = 1 << 20


@dataclass(slots=True)
class Sink:
    """What has arrived, by whom it was for."""

    host: Outside
    port: int
    messages: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)
    clients: set[str] = field(default_factory=set)
    """Addresses that connections came from."""
    refuse: str = ""
    """A reply instead of 250, such as `451 4.3.0 later`."""
    pause: float = 0.0
    """Seconds that it takes its time over each message."""

    def route(self, domain: str = "example.net") -> dict[str, Any]:
        """The route in the configuration of `deliver` that leads here."""
        return {"domain": domain, "hosts": [f"{self.host.address}:{self.port}"], "tls": "none"}

    def marks(self) -> Counter[tuple[str, str]]:
        """How often each (X-Load-Id, recipient) has come."""
        found: Counter[tuple[str, str]] = Counter()
        for recipients, data in list(self.messages):
            if match := MARK.search(data):
                found.update((match[1].decode(), recipient) for recipient in recipients)
        return found

    def message_with(self, words: str, within: float = 60) -> str:
        """The first message that has these words, as soon as it is here."""
        wanted = words.encode()

        def look() -> bytes | None:
            return next((data for _, data in list(self.messages) if wanted in data), None)

        found = eventually(look, within)
        assert found is not None
        return found.decode(errors="replace")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Takes one message."""
        await asyncio.sleep(self.pause)
        if self.refuse:
            return self.refuse
        data = envelope.content
        assert isinstance(data, bytes)
        peer: Any = session.peer  # a pair, whatever its annotation says
        self.clients.add(peer[0])
        self.messages.append((tuple(envelope.rcpt_tos), data))
        return "250 2.0.0 taken"


@contextmanager
def running_sink(host: Outside, port: int = 25) -> Iterator[Sink]:
    """Listens on an outside host in a thread of its own."""
    sink = Sink(host, port)
    listening = host.listen(port)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    servers: list[asyncio.Server] = []

    async def begin() -> None:
        servers.append(
            await loop.create_server(
                lambda: _Server(sink, hostname="mx.example.net", loop=loop), sock=listening
            )
        )
        started.set()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        task = loop.create_task(begin())
        loop.run_forever()
        task.result()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield sink
    finally:
        loop.call_soon_threadsafe(_end, servers[0], loop)
        thread.join(10)
        loop.close()


def _end(server: asyncio.Server, loop: asyncio.AbstractEventLoop) -> None:
    server.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_later(0.2, loop.stop)
