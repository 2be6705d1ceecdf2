"""An SMTP host on a real socket that does what a test tells it to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

FULL_EHLO = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


class HangUp(Exception):
    """The host ends the connection now."""


@dataclass(slots=True)
class Received:
    """One message that the host has taken."""

    sender: str
    recipients: list[str]
    data: bytes
    tls: bool
    connection: int


@dataclass(slots=True)
class Script:
    """How the host behaves.

    `replies` overrides by verb ("RCPT") or by the whole line ("RCPT TO:<bob@example.net>"): a reply
    line, several in turn (the last one stays), or "" to hang up. FINAL is the reply to the message.
    """

    greeting: str = "220 mx.test ESMTP"
    ehlo: Sequence[str] = FULL_EHLO
    name: str = "mx.test"
    replies: dict[str, str | list[str]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    inject: bytes = b""
    """Sent in plain text behind the 220 to STARTTLS."""
    hang: str = ""
    """A verb that is never answered."""
    on_message: Callable[[Received], None] | None = None


class ScriptedHost:
    """Records what it hears."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.connections = 0
        self.commands: list[str] = []
        self.batches: list[bytes] = []
        """What came in one read each."""
        self.messages: list[Received] = []

    def verbs(self) -> list[str]:
        """The verbs, in order."""
        return [command.split(" ")[0].upper() for command in self.commands]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        session = _Session(self, reader, writer, self.connections)
        try:
            await session.run()
        except (HangUp, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


class _Session:
    def __init__(
        self,
        host: ScriptedHost,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.host = host
        self.script = host.script
        self.reader = reader
        self.writer = writer
        self.number = number
        self.tls = host.script.implicit_tls
        self.buffer = b""
        self.mail = False
        self.sender = ""
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.say(self.script.greeting)
        while True:
            line = (await self.line()).decode()
            self.host.commands.append(line)
            verb = line.split(" ")[0].upper()
            if verb == self.script.hang:
                await asyncio.Event().wait()
            if verb in ("EHLO", "STARTTLS", "DATA", "BDAT", "AUTH"):
                await getattr(self, verb.lower())(line)
                continue
            reply = self.reply_to(verb, line) or _DEFAULT.get(verb, "502 5.5.1 no")
            if verb == "RCPT" and not self.mail:
                reply = "503 5.5.1 MAIL first"
            if verb in ("RSET", "MAIL"):
                self.sender, self.recipients, self.mail = "", [], False
            if verb == "MAIL" and reply[0] == "2":
                self.mail = True
                self.sender = line[line.index("<") + 1 : line.index(">")]
            if verb == "RCPT" and reply[0] == "2":
                self.recipients.append(line[line.index("<") + 1 : line.index(">")])
            await self.say(reply)
            if verb == "QUIT" or reply.startswith("421"):
                raise HangUp

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            await self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def more(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            raise HangUp
        self.host.batches.append(data)
        self.buffer += data

    async def say(self, reply: str) -> None:
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()

    def reply_to(self, *keys: str) -> str | None:
        for key in reversed(keys):
            found = self.script.replies.get(key)
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            if found == "":
                raise HangUp
            if found is not None:
                return found
        return None

    async def ehlo(self, line: str) -> None:
        reply = self.reply_to("EHLO", line)
        if reply is not None:
            await self.say(reply)
            return
        offered = [*self.script.ehlo]
        if self.script.tls is not None and not self.tls:
            offered.append("STARTTLS")
        lines = [self.script.name, *offered]
        for text in lines[:-1]:
            self.writer.write(f"250-{text}\r\n".encode())
        await self.say(f"250 {lines[-1]}")

    async def starttls(self, line: str) -> None:
        reply = self.reply_to("STARTTLS", line)
        if reply is not None:
            await self.say(reply)
            return
        assert self.script.tls is not None
        self.writer.write(b"220 go\r\n" + self.script.inject)
        await self.writer.drain()
        await self.writer.start_tls(self.script.tls)
        self.tls = True

    async def auth(self, line: str) -> None:
        words = line.split(" ")
        if words[1].upper() == "LOGIN" and len(words) == 2:
            for prompt in ("VXNlcm5hbWU6", "UGFzc3dvcmQ6"):
                await self.say(f"334 {prompt}")
                self.host.commands.append((await self.line()).decode())
        await self.say(self.reply_to("AUTH", line) or "235 2.7.0 welcome")

    async def data(self, line: str) -> None:
        reply = self.reply_to("DATA", line)
        if reply is None:
            reply = "354 go" if self.recipients else "554 5.5.1 no valid recipients"
        await self.say(reply)
        if not reply.startswith("354"):
            return
        while b"\r\n.\r\n" not in b"\r\n" + self.buffer:
            await self.more()
        content, _, self.buffer = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
        data = (
            b"".join(text.removeprefix(b".") + b"\r\n" for text in content[2:].split(b"\r\n"))
            if len(content) > 2
            else b""
        )
        await self.finish(data)

    async def bdat(self, line: str) -> None:
        size = int(line.split(" ")[1])
        while len(self.buffer) < size:
            await self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        if self.recipients:
            await self.finish(data)
        else:
            await self.say("554 5.5.1 no valid recipients")

    async def finish(self, data: bytes) -> None:
        message = Received(self.sender, self.recipients, data, self.tls, self.number)
        if self.recipients:
            self.host.messages.append(message)
        if self.script.on_message is not None:
            self.script.on_message(message)
        self.recipients, self.mail = [], False
        if self.script.hang == "FINAL":
            await asyncio.Event().wait()
        await self.say(self.reply_to("FINAL") or "250 2.0.0 queued")


_DEFAULT: Mapping[str, str] = {
    "HELO": "250 mx.test",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


@asynccontextmanager
async def scripted_host(
    script: Script | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[ScriptedHost]:
    """Runs a host on ADDRESS until the block ends."""
    host = ScriptedHost(script or Script())
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(host.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(
        connected,
        address,
        0,
        limit=2**20,
        ssl=host.script.tls if host.script.implicit_tls else None,
    )
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
