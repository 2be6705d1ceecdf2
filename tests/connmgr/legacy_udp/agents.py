"""NetMail's agents as clients: both protocols, in any layout, over a real socket."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address

from netmail_connmgr.protocol.legacy_udp.layout import Layout

from tests.connmgr.legacy_udp.vectors import ACCESS_HASH

PATIENCE = 20.0
"""Seconds for an answer that must come."""
SILENCE = 0.3
"""Seconds without one, after which a later question was answered already."""


@dataclass(slots=True)
class Answer:
    """A reply of the authenticated protocol."""

    result: int
    comment: str
    detail: bytes

    @property
    def text(self) -> str:
        """User or salt."""
        return self.detail.partition(b"\0")[0].decode()


class Agent:
    """An agent on one socket; `plain` and `ask` each send one datagram."""

    def __init__(self, sock: socket.socket, layout: Layout) -> None:
        self._socket = sock
        self.layout = layout
        self.password = b""

    async def send(self, data: bytes) -> None:
        """Sends a datagram."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def reply(self, patience: float = PATIENCE) -> bytes:
        """The next one that comes. Raises: TimeoutError."""
        async with asyncio.timeout(patience):
            return await asyncio.get_running_loop().sock_recv(self._socket, 4096)

    def number(self, value: int) -> bytes:
        """An unsigned long of this agent's host."""
        return value.to_bytes(self.layout.word, self.layout.order)

    def address(self, text: str) -> bytes:
        """An address in one."""
        return self.number(int.from_bytes(ip_address(text).packed, self.layout.order))

    def plain(self, request: int, address: str, name: bytes = b"") -> bytes:
        """A request of the plain protocol."""
        head = self.number(request) + self.address(address) + self.number(len(name))
        whole = head + self.number(0) + name + bytes(self.layout.word)
        return whole if request in {0, 2} else whole.ljust(5 * self.layout.word + 256, b"\xa5")

    async def store(self, address: str, name: str | None = None) -> None:
        """STORE or STORE_NAME; nothing answers."""
        request = self.plain(0, address) if name is None else self.plain(2, address, name.encode())
        await self.send(request)

    async def check(self, address: str, *, name: bool = False) -> tuple[int, str]:
        """CHECK or CHECK_NAME: the result and the name."""
        await self.send(self.plain(3 if name else 1, address))
        reply = await self.reply()
        word = self.layout.word
        assert len(reply) == 5 * word + 256
        result = int.from_bytes(reply[:word], self.layout.order)
        length = int.from_bytes(reply[2 * word : 3 * word], self.layout.order)
        return result, reply[4 * word : 4 * word + length].decode()

    def request(self, command: int, event: str, address: str, detail: bytes = b"") -> bytes:
        """A request of the authenticated protocol."""
        word = self.layout.word
        data = self.password.ljust(33, b"\0").ljust(40 if word == 8 else 36, b"\0")
        data += self.number(command) + self.address(address) + bytes(17)
        data += event.encode().ljust(17, b"\0")
        return data.ljust(96 if word == 8 else 80, b"\0") + detail.ljust(
            272 if word == 8 else 264, b"\0"
        )

    async def ask_once(self, command: int, event: str, address: str, detail: bytes = b"") -> Answer:
        """One datagram and its reply."""
        await self.send(self.request(command, event, address, detail))
        reply = await self.reply()
        word = self.layout.word
        assert len(reply) == (400 if word == 8 else 396)
        comment, end, _ = reply[word : word + 129].partition(b"\0")
        assert end
        detail_at = 140 if word == 8 else 136
        return Answer(
            int.from_bytes(reply[:word], self.layout.order), comment.decode(), reply[detail_at:]
        )

    async def ask(self, command: int, event: str, address: str, detail: bytes = b"") -> Answer:
        """The same as the library does it: with the handshake, if it is asked for."""
        answer = await self.ask_once(command, event, address, detail)
        if answer.result == 4:
            salted = answer.text.encode() + ACCESS_HASH
            self.password = hashlib.md5(salted, usedforsecurity=False).hexdigest().encode()
            answer = await self.ask_once(command, event, address, detail)
        return answer

    async def relay(self, address: str) -> Answer:
        """VERIFY RELAY, with the library's own idea of a default."""
        return await self.ask(1, "RELAY", address, self.number(4))

    async def connect(self, address: str) -> Answer:
        """VERIFY CONNECT."""
        return await self.ask(1, "CONNECT", address, self.number(3))

    async def authenticated(self, address: str, user: str) -> Answer:
        """NOTIFY AUTHENTICATED."""
        return await self.ask(2, "AUTHENTICATED", address, user.encode() + b"\0")

    async def gets_silence(self, data: bytes) -> bool:
        """Whether a datagram is not answered within SILENCE."""
        await self.send(data)
        with contextlib.suppress(TimeoutError):
            await self.reply(SILENCE)
            return False
        return True


@contextlib.asynccontextmanager
async def agent(
    port: int, layout: Layout = Layout.ILP32_LITTLE, *, host: str = "127.0.0.1"
) -> AsyncIterator[Agent]:
    """An agent on HOST."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        yield Agent(sock, layout)
