"""Answers to Postfix's policy requests: ours beside postgrey's and postfwd's, CONNECTIONS at once.

Ours is the whole process with LOGINS logins in its table, strict sender binding by an address map
and a log line for each decision (into a file). Half of the clients have logged in. The same
DISTINCT requests come again and again, so that the peers answer from what they know already. They
run as Debian starts them: postgrey with its database on the disk of /var/lib/postgrey, in a folder
of its own. How fast it were if it waited for no disk is reported too: its database is in memory
then. A server that only says DUNNO shows what could be had.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netmail.connmgr.v1 import connmgr_pb2 as pb

from bench.harness import Result, compare, report
from bench.logins import message
from bench.manager import Manager, connection_manager, manager_client
from bench.policy_load import answers_per_second
from bench.processes import agent
from tests.support.installation import free_port

CONNECTIONS = 16
LOGINS = 10_000
DISTINCT = 1_000
COUNT = 10_000
PEER_COUNT = 3_000
RUNS = 5
TARGET = 3.0
POSTGREY = Path("/var/lib/postgrey")
PEERS = Path(__file__).resolve().parent / "peers"


def run() -> list[Result]:
    """Measures; one row for each peer, and the ceiling."""
    requests = [_request(number) for number in random.Random(1).sample(range(2 * LOGINS), DISTINCT)]

    def rate(port: int, count: int) -> Callable[[], float]:
        return lambda: answers_per_second(port, requests, connections=CONNECTIONS, count=count)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netmail-bench-")))
        folder.chmod(0o755)
        ours = stack.enter_context(_ours(folder))
        postgrey = stack.enter_context(_postgrey(POSTGREY))
        in_memory = stack.enter_context(_postgrey(Path("/dev/shm")))
        postfwd = stack.enter_context(_postfwd(folder))
        bare = free_port()
        stack.enter_context(agent("bench.policy_load", str(bare)))
        rows = [
            compare(
                f"policy answers, {CONNECTIONS} connections",
                "1/s",
                rate(ours, COUNT),
                rate(port, PEER_COUNT),
                peer=peer,
                target=target,
                runs=RUNS,
                note=f"{LOGINS:,} logins, a log line each",
            )
            for peer, port, target in (
                ("postgrey", postgrey, TARGET),
                ("postfwd2", postfwd, TARGET),
                ("postgrey, its database in memory", in_memory, None),
            )
        ]
        ceiling = rate(bare, COUNT)
        rows.append(report("the same by a server that only says DUNNO", "1/s", ceiling, runs=RUNS))
        return rows


def _request(number: int) -> bytes:
    """What Postfix 3.7 sends at RCPT; even numbers are clients that have logged in."""
    known = number % 2 == 0
    address = f"{192 if known else 198}.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return (
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"
        f"client_address={address}\nclient_name=client{number}.example.com\nclient_port=41242\n"
        f"reverse_client_name=client{number}.example.com\nserver_address=192.0.2.25\n"
        f"server_port=25\nhelo_name=client{number}.example.com\nsender=user{number}@example.org\n"
        f"recipient=eve{number}@example.net\nrecipient_count=0\nqueue_id=\n"
        f"instance=167.6b07039a.{number:x}.0\nsize=10240\netrn_domain=\nstress=\n"
        "sasl_method=\nsasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\n"
        "ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=\n"
        "encryption_cipher=\nencryption_keysize=0\npolicy_context=\n\n"
    ).encode()


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[int]:
    """A Connection Manager with its table filled; the port of its front end."""
    policy, addresses = free_port(), folder / "addresses"
    addresses.write_text(
        "".join(f"user{n}@example.org user{n}@users.demo\n" for n in range(0, 2 * LOGINS, 2))
    )
    settings: dict[str, Any] = {
        "login_lifetime": "24h",
        "loopback_grants": True,
        "address_map": {"file": str(addresses)},
        "postfix_policy": {
            "listen": [f"127.0.0.1:{policy}"],
            "allowed_sources": ["127.0.0.0/8"],
        },
        # Everybody is counted, and nobody refused.
        "rates": {"after_login": {"recipients": 1_000_000}},
    }
    with (
        (folder / "connmgr.log").open("wb") as log,
        connection_manager(folder, log=log, level="info", **settings) as manager,
    ):
        asyncio.run(_fill(manager))
        yield policy


async def _fill(manager: Manager) -> None:
    async with manager_client(manager.certificates, manager.port) as client:
        for first in range(0, 2 * LOGINS, 1000):
            await client.register([_login(n) for n in range(first, first + 1000, 2)])


def _login(number: int) -> pb.LoginRegistration:
    login = message(number)
    login.client_address = bytes([192, 18 + (number >> 16), number >> 8 & 255, number & 255])
    return login


@contextlib.contextmanager
def _postgrey(folder: Path) -> Iterator[int]:
    """The greylisting server, with Debian's defaults but for a database of its own in a folder."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="netmail-bench-", dir=folder) as database:
        shutil.chown(database, "postgrey", "postgrey")
        argv = ["/usr/sbin/postgrey", f"--inet=127.0.0.1:{port}", f"--dbdir={database}"]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(argv[0], port)
            yield port
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def _postfwd(folder: Path) -> Iterator[int]:
    """The firewall daemon, with the arguments of /etc/default/postfwd; it runs as a daemon only."""
    port, cache = free_port(), free_port()
    pidfile = folder / "postfwd.pid"
    argv = ["/usr/sbin/postfwd2", "--daemon", "-f", str(PEERS / "postfwd" / "postfwd.cf"),
            "-i", "127.0.0.1", "-p", str(port), "--cache_socket", f"tcp:127.0.0.1:{cache}",
            "--pidfile", str(pidfile), "-u", "postfw", "-g", "postfw",
            "--summary=600", "--cache=600", "--cache-rdomain-only", "--cache-no-size"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    try:
        _wait(argv[0], port)
        yield port
    finally:
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.1)


def _wait(program: str, port: int) -> None:
    """Until it accepts."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{program} does not answer")
        time.sleep(0.1)
