"""Who may connect by POP3 and IMAP: the Connection Manager is asked before the greeting."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netmail_common.certificates import LocalAuthority

from tests.pop_imap.agents import PASSWORD, Agents, running_agents

BLOCKED = "127.0.0.9"
OTHER = "127.0.0.10"
_DNS_TIMEOUT = 0.5


@pytest.fixture(scope="module")
def silent_dns() -> Iterator[str]:
    """A resolver that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{resolver.getsockname()[1]}"


@pytest.fixture(scope="module")
def choosy(
    tmp_path_factory: pytest.TempPathFactory,
    authority: LocalAuthority,
    certificates: Path,
    silent_dns: str,
) -> Iterator[Agents]:
    """Agents whose Connection Manager has a list, and a DNS list for IMAP that never answers."""

    def change(data: dict[str, Any]) -> None:
        listeners = data["messaging_servers"][0]["pop_imap"]["listeners"]
        for listener in listeners:
            listener.pop("proxy_protocol", None)
            listener.pop("proxy_trusted_networks", None)
        data["connection_managers"][0] |= {
            "lists": {"blocked": [f"{BLOCKED}/32"]},
            "dns_servers": [silent_dns],
            "dnsbl": {
                "zones": [{"zone": "bad.test", "services": ["imap"]}],
                "timeout": _DNS_TIMEOUT,
            },
        }

    folder = tmp_path_factory.mktemp("choosy")
    with running_agents(folder, authority, certificates, change) as running:
        deadline = time.monotonic() + 20
        while not first_octets(running, "pop3", BLOCKED).startswith(b"-ERR"):
            assert time.monotonic() < deadline, "the agent never asked"
            time.sleep(0.05)
        yield running


def connect(agents: Agents, listener: str, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", agents.port(listener)), 20, (source, 0))


def first_octets(agents: Agents, listener: str, source: str) -> bytes:
    """Everything up to the first line's end."""
    with connect(agents, listener, source) as client, client.makefile("rb") as reader:
        return reader.readline()


@pytest.mark.parametrize(
    ("listener", "reply"),
    [
        ("pop3", b"-ERR [SYS/PERM] 127.0.0.9 is not welcome here\r\n"),
        ("imap", b"* BYE 127.0.0.9 is not welcome here\r\n"),
    ],
)
def test_a_blocked_client_is_told_so_and_the_connection_ends(
    choosy: Agents, listener: str, reply: bytes
) -> None:
    with connect(choosy, listener, BLOCKED) as client:
        received = b""
        while data := client.recv(1000):
            received += data
    assert received == reply


def test_what_a_blocked_client_sends_is_not_listened_to(choosy: Agents) -> None:
    with connect(choosy, "pop3", BLOCKED) as client:
        client.sendall(b"USER user0\r\nPASS " + PASSWORD.encode() + b"\r\nSTAT\r\n")
        received = b""
        try:
            while data := client.recv(1000):
                received += data
        except ConnectionResetError:
            pass
    assert b"+OK" not in received


@pytest.mark.parametrize(("listener", "greeting"), [("pop3", b"+OK"), ("imap", b"* OK")])
def test_others_are_greeted(choosy: Agents, listener: str, greeting: bytes) -> None:
    assert first_octets(choosy, listener, OTHER).startswith(greeting)


def test_commands_that_come_before_the_greeting_are_answered_behind_it(choosy: Agents) -> None:
    with connect(choosy, "imap", "127.0.0.11") as client, client.makefile("rb") as reader:
        started = time.monotonic()
        client.sendall(b"a NOOP\r\nb LOGOUT\r\n")
        assert reader.readline().startswith(b"* OK")
        assert time.monotonic() - started >= _DNS_TIMEOUT * 0.9
        assert reader.readline() == b"a OK NOOP completed\r\n"
        assert reader.readline().startswith(b"* BYE")


def test_a_client_that_leaves_while_it_is_asked_about_leaves_nothing_behind(
    choosy: Agents,
) -> None:
    for number in range(20):
        connect(choosy, "imap", f"127.0.1.{number + 1}").close()
    deadline = time.monotonic() + 20
    while len(choosy.pop_imap.sessions):
        assert time.monotonic() < deadline, "sessions are still there"
        time.sleep(0.05)
    assert first_octets(choosy, "imap", OTHER).startswith(b"* OK")
