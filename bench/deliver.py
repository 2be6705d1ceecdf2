"""Delivery of a full queue to a host that takes everything, ours beside Postfix's smtp(8).

Both hold MESSAGES of 4 KiB in a durable queue; the time runs from the moment at which the queue is
let go until smtp-sink has taken the last message.
"""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netmail.nmap.v1 import queue_pb2
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import Installation, load_config
from netmail_common.nmap import NmapChannels, QueueClient
from netmail_common.roles import Role

from bench.harness import Result, compare
from bench.postfix import postfix, version
from bench.processes import agent
from tests.support.installation import free_port

MESSAGES = 2000
SIZE = 4096
_CONFIG = """\
log: {{level: warning, format: json}}
messaging_servers:
  - name: mail1
    host_name: mail1.example.org
    domains: [example.org]
    contexts: [{{name: users}}]
    ube_relaying: {{smtp_after_pop: false}}
    nmap: {{listen: ["127.0.0.1:{nmap}"]}}
    deliver: {{routes: [{{domain: "*", hosts: ["127.0.0.1:{sink}"]}}]}}
"""


@contextmanager
def sink(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """smtp-sink, which ends by itself after MESSAGES."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["/usr/sbin/smtp-sink", *user, "-M", str(MESSAGES), f"127.0.0.1:{port}", "200"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def fill(installation: Installation) -> None:
    """Queues the messages."""
    identity = Identity.from_folder(installation.certificates, Role.SMTP)
    channels = NmapChannels(installation, "mail1", identity)
    client = QueueClient(channels)
    data = b"From: a@example.org\r\nSubject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * (SIZE // 72)

    async def one(number: int) -> None:
        envelope = queue_pb2.Envelope(
            message_id=f"bench-message-{number:08}",
            sender="a@example.org",
            recipients=[queue_pb2.Recipient(address=f"user{number}@example.net")],
        )
        await client.submit(envelope, data)

    await asyncio.gather(*(one(number) for number in range(MESSAGES)))
    await channels.close()


def ours() -> float:
    """Messages per second."""
    with tempfile.TemporaryDirectory(prefix="netmail-bench-") as folder:
        state = Path(folder)
        port = free_port()
        config = state / "config.yaml"
        config.write_text(_CONFIG.format(nmap=free_port(), sink=port), encoding="utf-8")
        installation = load_config(config, state=state)
        authority = LocalAuthority.open_or_create(state / "ca", installation.installation)
        for role in (Role.SMTP, Role.DELIVER, Role.NMAP):
            authority.issue(role, installation.certificates)
        options = ("--config", str(config), "--state", folder, "--server", "mail1")
        with agent("netmail_nmap", *options):
            asyncio.run(fill(installation))
            with sink(port) as taking, agent("netmail_smtp", "deliver", *options):
                start = time.monotonic()
                taking.wait(300)
                return MESSAGES / (time.monotonic() - start)


def theirs() -> float:
    """Messages per second."""
    port = free_port()
    with postfix("deliver", SINK=str(port)) as peer:
        subprocess.run(
            ["/usr/sbin/smtp-source", "-s", "20", "-l", str(SIZE), "-m", str(MESSAGES),
             "-f", "a@example.org", "-t", "user@example.net", "-d", f"127.0.0.1:{peer.port}"],
            check=True, timeout=300,
        )  # fmt: skip
        while len(list((peer.queue / "deferred").rglob("*"))) < MESSAGES:
            time.sleep(0.1)
        with sink(port) as taking:
            peer.command("postconf", "-e", "defer_transports=")
            peer.command("postfix", "reload")
            start = time.monotonic()
            peer.command("postqueue", "-f")
            taking.wait(300)
            return MESSAGES / (time.monotonic() - start)


def run() -> list[Result]:
    """One row."""
    row = compare(
        "delivery of a full queue",
        "messages/s",
        ours,
        theirs,
        peer=version(),
        note=f"{MESSAGES} of 4 KiB, 20 connections",
    )
    return [row]
