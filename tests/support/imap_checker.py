"""An IMAP client that keeps the mailbox's state from what it is told, and checks every response.

It knows what RFC 3501 7.3 and 7.4, RFC 4315 and RFC 7162 promise: EXISTS does not shrink, EXPUNGE
does not come where sequence numbers are in flight, UIDs ascend and keep their number, modseqs do
not fall, what a STORE answers is what was asked for. A promise broken is an AssertionError.
"""

import asyncio
import re
from dataclasses import dataclass, field

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_NUMBERED = re.compile(rb"\* (\d+) (EXISTS|EXPUNGE|RECENT|FETCH)(?: \((.*)\))?\r\n\Z", re.DOTALL)
_UID = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")
_MODSEQ = re.compile(rb"MODSEQ \((\d+)\)")
_CODE = re.compile(rb"\[([A-Z-]+)(?: ([^\]]*))?\]")
_NO_EXPUNGE = ("FETCH", "STORE", "SEARCH")


@dataclass
class Reply:
    """A command's answer."""

    tagged: bytes
    untagged: list[bytes]

    @property
    def ok(self) -> bool:
        """OK, neither NO nor BAD."""
        return b" OK" in self.tagged[:12]

    @property
    def code(self) -> tuple[str, str]:
        """The response code and its argument; empty without one."""
        match = _CODE.search(self.tagged)
        return (match[1].decode(), (match[2] or b"").decode()) if match else ("", "")


@dataclass
class CheckedSession:
    """One session on one mailbox."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    condstore: bool
    uids: list[int | None] = field(default_factory=list)
    """By sequence number; None: not asked for yet."""
    flags: dict[int, frozenset[str]] = field(default_factory=dict)
    modseqs: dict[int, int] = field(default_factory=dict)
    top_uid: int = 0
    verb: str = ""
    number: int = 0
    told: list[str] = field(default_factory=list)
    """The last responses, for the report of a failure."""

    @classmethod
    async def open(
        cls, name: str, port: int, user: str, password: str, *, condstore: bool
    ) -> "CheckedSession":
        """Logs in and selects INBOX."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        session = cls(name, reader, writer, condstore)
        await session._response()
        await session.command(f"LOGIN {user} {password}")
        if condstore:
            await session.command("ENABLE CONDSTORE")
        await session.select()
        return session

    async def close(self) -> None:
        """Hangs up."""
        self.writer.close()
        await self.writer.wait_closed()

    async def select(self) -> None:
        """SELECT INBOX and learn it."""
        self.uids.clear()
        self.flags.clear()
        self.modseqs.clear()
        self.top_uid = 0
        reply = await self.command("SELECT INBOX")
        assert reply.ok, reply
        await self.learn()

    async def learn(self) -> None:
        """Asks for UID and flags of messages that are not known yet, as clients do on EXISTS."""
        while None in self.uids:
            first = self.uids.index(None) + 1
            items = "UID FLAGS MODSEQ" if self.condstore else "UID FLAGS"
            reply = await self.command(f"FETCH {first}:* ({items})")
            if not reply.ok:
                assert reply.code[0] == "EXPUNGEISSUED", reply
                await self.command("NOOP")

    async def command(self, text: str | bytes) -> Reply:
        """Sends a command; takes and checks everything up to its tagged answer."""
        octets = text if isinstance(text, bytes) else text.encode()
        self.number += 1
        tag = b"%b%d" % (self.name.encode(), self.number)
        self.verb = octets.split(b" ", 1)[0].decode()
        self.writer.write(tag + b" " + octets + b"\r\n")
        self.told.append(f"C: {octets[:100]!r}")
        untagged: list[bytes] = []
        while True:
            response = await self._response()
            if response.startswith(tag + b" "):
                self.verb = ""
                assert b" BAD " not in response[:12], self._story(response)
                return Reply(response, untagged)
            untagged.append(response)
            self._take(response)

    async def idle(self, seconds: float) -> None:
        """IDLE for a while."""
        self.number += 1
        tag = b"%b%d" % (self.name.encode(), self.number)
        self.verb = "IDLE"
        self.writer.write(tag + b" IDLE\r\n")
        self.told.append("C: IDLE")
        done = False
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 and not done:
                self.writer.write(b"DONE\r\n")
                done = True
            try:
                async with asyncio.timeout(10 if done else left):
                    response = await self._response()
            except TimeoutError:
                assert not done, self._story(b"no answer to DONE")
                continue
            if response.startswith(tag + b" "):
                self.verb = ""
                return
            if not response.startswith(b"+"):
                self._take(response)

    async def _response(self) -> bytes:
        line = whole = await self.reader.readline()
        while literal := _LITERAL.search(line):
            whole += await self.reader.readexactly(int(literal[1]))
            line = await self.reader.readline()
            whole += line
        assert whole, self._story(b"closed")
        self.told.append(f"S: {whole[:100]!r}")
        del self.told[:-60]
        return whole

    def _story(self, what: bytes | str) -> str:
        return f"{self.name}: {what!r} after\n" + "\n".join(self.told)

    def _take(self, response: bytes) -> None:
        match = _NUMBERED.match(response)
        if match is None:
            assert not response.startswith(b"* BYE"), self._story(response)
            return
        number = int(match[1])
        if match[2] == b"EXISTS":
            self._exists(number)
        elif match[2] == b"EXPUNGE":
            self._expunge(number)
        elif match[2] == b"FETCH":
            self._fetch(number, match[3])
        else:
            assert number <= len(self.uids), self._story("RECENT beyond EXISTS")

    def _exists(self, count: int) -> None:
        assert count >= len(self.uids), self._story("EXISTS shrinks")
        self.uids.extend([None] * (count - len(self.uids)))

    def _expunge(self, number: int) -> None:
        assert self.verb, self._story("EXPUNGE without a command")
        assert self.verb not in _NO_EXPUNGE, self._story(f"EXPUNGE during {self.verb}")
        assert 1 <= number <= len(self.uids), self._story("EXPUNGE of a message that is not there")
        uid = self.uids.pop(number - 1)
        if uid is not None:
            self.flags.pop(uid, None)
            self.modseqs.pop(uid, None)

    def _fetch(self, number: int, items: bytes) -> None:
        assert 1 <= number <= len(self.uids), self._story("FETCH of a message that is not there")
        named = _UID.search(items)
        if named is not None:
            self._learn_uid(number, int(named[1]))
        uid = self.uids[number - 1]
        flags, modseq = _FLAGS.search(items), _MODSEQ.search(items)
        if uid is None:
            return
        if flags is not None:
            names = flags[1].decode().split()
            self.flags[uid] = frozenset(name for name in names if name != "\\Recent")
            assert modseq is not None or not self.condstore, self._story("no MODSEQ with FLAGS")
        if modseq is not None:
            value = int(modseq[1])
            assert value >= self.modseqs.get(uid, 0), self._story("modseq falls")
            self.modseqs[uid] = value

    def _learn_uid(self, number: int, uid: int) -> None:
        known = self.uids[number - 1]
        assert known in {None, uid}, self._story(f"message {number} had UID {known}")
        before = [other for other in self.uids[: number - 1] if other is not None]
        after = [other for other in self.uids[number:] if other is not None]
        assert not before or before[-1] < uid, self._story("UIDs do not ascend")
        assert not after or uid < after[0], self._story("UIDs do not ascend")
        self.uids[number - 1] = uid
        self.top_uid = max(self.top_uid, uid)
