"""A load generator with TLS, which smtp-source lacks.

`python -m bench.smtp_load PORT MESSAGES SESSIONS SIZE` keeps SESSIONS connections, STARTTLS on
each, and sends one command at a time, as smtp-source does.
"""

import asyncio
import ssl
import sys

import uvloop


async def _command(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes, code: bytes
) -> None:
    writer.write(line)
    while True:
        reply = await reader.readline()
        if not reply.startswith(code):
            raise RuntimeError(f"{line[:40]!r} was answered {reply!r}")
        if reply[3:4] != b"-":
            return


async def _session(port: int, tickets: list[bytes]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _command(reader, writer, b"", b"220")
    await _command(reader, writer, b"EHLO bench.example.com\r\n", b"250")
    await _command(reader, writer, b"STARTTLS\r\n", b"220")
    await writer.start_tls(context)
    await _command(reader, writer, b"EHLO bench.example.com\r\n", b"250")
    while tickets:
        message = tickets.pop()
        await _command(reader, writer, b"MAIL FROM:<bench@example.com>\r\n", b"250")
        await _command(reader, writer, b"RCPT TO:<alice@example.org>\r\n", b"250")
        await _command(reader, writer, b"DATA\r\n", b"354")
        await _command(reader, writer, message, b"250")
    await _command(reader, writer, b"QUIT\r\n", b"221")
    writer.close()


async def load(port: int, messages: int, sessions: int, size: int) -> None:
    """Sends so many messages of about SIZE octets over so many kept connections."""
    line = b"X" * 70 + b"\r\n"
    message = (
        b"From: bench@example.com\r\nSubject: x\r\n\r\n" + line * (size // len(line)) + b".\r\n"
    )
    tickets = [message] * messages
    await asyncio.gather(*(_session(port, tickets) for _ in range(sessions)))


if __name__ == "__main__":
    uvloop.run(load(*(int(word) for word in sys.argv[1:5])))
