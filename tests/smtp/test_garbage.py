"""Whatever a client sends, in whatever pieces: it gets replies, and nothing of ours breaks."""

import asyncio
import random
import re

import pytest
from structlog.testing import capture_logs

from tests.smtp.conftest import Start
from tests.smtp.receiving import Client

_REPLY_LINE = re.compile(rb"[2345][0-9]{2}[ -][^\r\n]*")
FRAGMENTS = [
    b"EHLO x.example\r\n",
    b"HELO x\r\n",
    b"MAIL FROM:<s@example.net>",
    b"MAIL FROM:<> SIZE=10 BODY=8BITMIME",
    b"RCPT TO:<bob@example.org>",
    b"RCPT TO:<bob@example.org> NOTIFY=NEVER",
    b"RCPT TO:<x@example.net>\r\n",
    b"DATA\r\n",
    b"BDAT 10\r\n",
    b"BDAT 5 LAST\r\n",
    b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9cg==\r\n",
    b"RSET\r\n",
    b"NOOP",
    b"From: a@b\r\n\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b" ",
    b"*\r\n",
    b"=\r\n",
    b"x" * 5000,
    b"STARTTLS\r\n",
    b"QUIT\r\n",
]


def dialogue(seed: int) -> list[bytes]:
    """Pieces of one session."""
    choose = random.Random(seed)
    octets = b"EHLO x.example\r\n" if choose.random() < 0.8 else b""
    for _ in range(choose.randrange(4, 40)):
        octets += choose.choice(FRAGMENTS)
        if choose.random() < 0.5:
            octets += b"\r\n"
        if choose.random() < 0.1:
            octets += choose.randbytes(choose.randrange(1, 20))
    size = choose.choice([1, 3, 17, 1000, 100_000]) if len(octets) < 2000 else 1000
    return [octets[at : at + size] for at in range(0, len(octets), size)]


async def play(client: Client, pieces: list[bytes]) -> bytes:
    for piece in pieces:
        client.send(piece)
        if len(pieces) < 100:
            await asyncio.sleep(0)
    try:
        client.writer.write_eof()
        return await client.reader.read()
    except OSError:
        return b""


@pytest.mark.parametrize("start_seed", range(0, 800, 200))
async def test_garbage_gets_replies_and_no_error_of_ours(start: Start, start_seed: int) -> None:
    limits = {"command_timeout": 5, "data_block_timeout": 5}
    manager = {"guessing": {"enabled": False}}  # hundreds of failed logins would take their time
    async with start(
        listeners=[{"plaintext_auth": True}], smtp={"limits": limits}, manager=manager
    ) as server:
        answered = 0
        with capture_logs() as logs:
            for seed in range(start_seed, start_seed + 200):
                client = await server.connect(greeted=False)
                async with asyncio.timeout(20):
                    said = await play(client, dialogue(seed))
                answered += said.count(b"\r\n")
                for line in said.split(b"\r\n")[:-1]:
                    assert _REPLY_LINE.fullmatch(line), (seed, line)
                await client.close()
            async with asyncio.timeout(10):
                await server.receiver.sessions.wait_empty()
        assert answered > 2000
        assert [entry for entry in logs if entry["log_level"] in {"error", "critical"}] == []
