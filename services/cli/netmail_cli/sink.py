"""An SMTP server that accepts every message and writes each as NNNN.eml.

It plays the remote world that an installation is tried against.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session
from netmail_common.command_line import AgentArguments, agent_parser, run_from_command_line
from netmail_common.config import ConfigError, Installation, SinkConfig
from netmail_common.config._base import parse_host_port
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger

__all__ = ["MessageFolder", "main", "sink_server"]

log = get_logger("netmail_cli.sink")  # run as __main__

_LONGEST_LINE = 1 << 20


class MessageFolder:
    """A folder of messages 0001.eml, 0002.eml, ...: each appears whole, and on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        for left_over in path.glob(".*.tmp"):
            left_over.unlink()
        numbers = [int(file.stem) for file in path.glob("*.eml") if file.stem.isdigit()]
        self._next = max(numbers, default=0) + 1

    def add(self, data: bytes) -> Path:
        """Writes one message; it is durable when this returns. Raises: OSError."""
        final = self._path / f"{self._next:04d}.eml"
        temporary = self._path / f".{self._next:04d}.tmp"
        self._next += 1
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return final


class _Smtp(SMTP):
    line_length_limit = _LONGEST_LINE


class _Handler:
    """Accepts, and prepends what a final destination prepends."""

    def __init__(self, folder: MessageFolder) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        sender = (envelope.mail_from or "").strip("<>")  # aiosmtpd gives the null sender as <>
        lines = [f"Return-Path: <{sender}>"]
        lines += [f"Delivered-To: {recipient}" for recipient in envelope.rcpt_tos]
        lines.append(f"X-Sink-Peer: {session.peer[0] if session.peer else ''}")
        head = "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")
        try:
            async with self._lock:
                path = await asyncio.to_thread(self._folder.add, head + content)
        except OSError as error:
            log.error("message not written", error=str(error))  # noqa: TRY400 - no traceback
            return "451 4.3.0 cannot write it now"
        log.info("message taken", file=path.name, sender=sender)
        return f"250 2.0.0 {path.name}"


@contextlib.asynccontextmanager
async def sink_server(config: SinkConfig) -> AsyncIterator[tuple[int, ...]]:
    """Serves until the block ends; yields the ports. Raises: OSError."""
    loop = asyncio.get_running_loop()
    handler = _Handler(MessageFolder(config.directory))

    def session() -> Any:
        return _Smtp(
            handler,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname=config.host_name,
            ident="netmail sink",
            loop=loop,
        )

    servers = []
    for text in config.listen:
        address = parse_host_port(text)
        servers.append(await loop.create_server(session, address.host, address.port))
    try:
        yield tuple(server.sockets[0].getsockname()[1] for server in servers)
    finally:
        for server in servers:
            server.close()


async def _serve(
    arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle
) -> None:
    for config in installation.sinks:
        if config.name == arguments.name:
            break
    else:
        raise ConfigError(f"no sink is named {arguments.name!r}")
    async with sink_server(config) as ports:
        log.info("listening", ports=list(ports), directory=str(config.directory))
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one sink of the configuration."""
    parser: argparse.ArgumentParser = agent_parser("netmail-sink", "--name")
    sys.exit(run_from_command_line("sink", parser, _serve, argv))


if __name__ == "__main__":
    main()
