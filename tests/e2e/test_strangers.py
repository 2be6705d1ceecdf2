"""What strangers do to a mail server: memory stays bounded, and others are served meanwhile."""

import contextlib
import resource
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import RunningInstallation, installation

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    def impatient(data: dict[str, Any]) -> None:
        for server in data["messaging_servers"]:
            server["pop_imap"].setdefault("limits", {})["write_timeout"] = 3
            for agent in ("smtp", "pop_imap"):
                for listener in server[agent]["listeners"]:
                    listener["max_connections_per_address"] = 4000

    with installation(tmp_path_factory.mktemp("strangers"), change=impatient) as started:
        yield started


def memory(running: RunningInstallation, *words: str) -> int:
    """Resident octets of all processes of an agent."""
    total = 0
    for pid in running.pids(*words):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            total += int(status.partition("VmRSS:")[2].split()[0]) * 1024
    return total


def swallow(connection: socket.socket) -> bytes:
    """Everything that the server still says, until it closes."""
    connection.settimeout(20)
    said = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            said += data
    return said


def pour(connection: socket.socket, block: bytes, most: int) -> int:
    """Sends the block again and again until the server closes; gives how many octets it took."""
    sent = 0
    connection.settimeout(20)
    with contextlib.suppress(OSError):
        while sent < most:
            connection.sendall(block)
            sent += len(block)
    return sent


def still_serves(running: RunningInstallation) -> None:
    with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=10) as client:
        client.sendmail("a@example.com", ["alice@example.org"], "From: a@example.com\r\n\r\nx\r\n")


def test_an_upload_of_10_gb_ends_at_twice_the_limit(running: RunningInstallation) -> None:
    before = memory(running, "netmail_smtp", "serve") + memory(running, "netmail_nmap")
    with socket.create_connection(("127.0.0.1", running.port(2525)), 10) as client:
        client.sendall(
            b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
        )
        said = b""
        while b"354" not in said:
            said += client.recv(4096)
        client.sendall(b"From: a@example.com\r\n\r\n")
        sent = pour(client, (b"x" * 998 + b"\r\n") * 256, 10_000 * MIB)
        assert sent < 130 * MIB
        reply = swallow(client)
    assert reply == b"" or reply.startswith(b"552 5.3.4")
    after = memory(running, "netmail_smtp", "serve") + memory(running, "netmail_nmap")
    assert after - before < 100 * MIB
    still_serves(running)


@pytest.mark.parametrize(("demo_port", "agent"), [(2525, "smtp"), (2110, "pop3"), (2143, "imap")])
def test_a_line_without_end_is_cut_off(
    running: RunningInstallation, demo_port: int, agent: str
) -> None:
    words = ("netmail_smtp", "serve") if agent == "smtp" else ("netmail_pop_imap",)
    before = memory(running, *words)
    with socket.create_connection(("127.0.0.1", running.port(demo_port)), 10) as client:
        assert pour(client, b"A" * 65536, 1000 * MIB) < 40 * MIB
    assert memory(running, *words) - before < 20 * MIB


def test_a_client_that_reads_nothing_is_cut_off_and_costs_little(
    running: RunningInstallation,
) -> None:
    body = "y" * 70 + "\r\n"
    message = "From: a@example.com\r\nSubject: large\r\n\r\n" + body * (8 * MIB // 72)
    with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=30) as client:
        client.sendmail("a@example.com", ["bob@example.org"], message)
    before = memory(running, "netmail_pop_imap")
    with socket.create_connection(("127.0.0.1", running.port(2143)), 10) as client:
        client.sendall(b"a login bob builder\r\nb select inbox\r\n")
        time.sleep(1)
        pour(client, b"c fetch 1:* body.peek[]\r\n" * 50, 25 * 50)
        deadline = time.monotonic() + 30
        grown = 0
        while time.monotonic() < deadline and not _closed(client):
            grown = max(grown, memory(running, "netmail_pop_imap") - before)
            time.sleep(0.2)
        assert time.monotonic() < deadline, "never cut off"
    assert grown < 40 * MIB
    still_serves(running)


def test_10_000_connections_leave_room_for_the_next(running: RunningInstallation) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12_000:
        pytest.skip("needs 12,000 file descriptors (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = memory(running, "netmail_smtp", "serve")
    try:
        with contextlib.ExitStack() as stack:
            for number in range(10_000):
                source = f"127.0.{1 + number // 100}.{1 + number % 100}"
                stack.enter_context(
                    socket.create_connection(
                        ("127.0.0.1", running.port(2525)), 20, source_address=(source, 0)
                    )
                )
            still_serves(running)
            assert memory(running, "netmail_smtp", "serve") - before < 10_000 * 64 * 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_traceback_was_logged(running: RunningInstallation) -> None:
    assert "Traceback" not in running.text()


def _closed(client: socket.socket) -> bool:
    """Whether the server gave the connection up; reads nothing."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] in {7, 8}  # CLOSE, CLOSE_WAIT
