"""Lists, DNSBL and reverse DNS: the whole way, through every agent and a real DNS server."""

import asyncio
import json
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_logins import logged_in, relay
from tests.support.dns_server import Zone, dns_server
from tests.support.installation import RunningInstallation, installation

LISTED, NAMELESS, NAMED, BLOCKED = (f"127.0.0.{number}" for number in range(71, 75))


def _pointer(address: str) -> str:
    return ".".join(reversed(address.split(".")))


def _zone() -> Zone:
    records = {(f"{_pointer(LISTED)}.bad.test", "A"): ["127.0.0.2"]}
    for address in (LISTED, NAMED):
        records[f"{_pointer(address)}.in-addr.arpa", "PTR"] = [f"h{_pointer(address)}.test."]
        records[f"h{_pointer(address)}.test", "A"] = [address]
    return Zone(records)


@contextmanager
def dns_thread() -> Iterator[Zone]:
    """A DNS server beside the test."""
    zone, started, stop = _zone(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with dns_server(zone):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    try:
        yield zone
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    state: Path = tmp_path_factory.mktemp("choosy")
    with dns_thread() as zone:

        def change(data: dict[str, Any]) -> None:
            for manager in data["connection_managers"]:
                manager |= {
                    "dns_servers": [zone.address],
                    "dnsbl": {"zones": [{"zone": "bad.test"}]},
                    "reverse_dns": {"enabled": True},
                    "lists": {"blocked": [f"{BLOCKED}-{BLOCKED}"]},
                }

        with installation(state, change=change, ports={zone.port: zone.port}) as running:
            deadline = time.monotonic() + 30
            while not greeting(running, BLOCKED).startswith("554"):
                assert time.monotonic() < deadline, "the SMTP agent never asked"
                time.sleep(0.1)
            yield running


def greeting(running: RunningInstallation, source: str, port: int = 2525) -> str:
    """The first line that a client gets."""
    address = ("127.0.0.1", running.port(port))
    with (
        socket.create_connection(address, 20, (source, 0)) as connection,
        connection.makefile("rb") as reader,
    ):
        return reader.readline().decode().rstrip("\r\n")


def to_alice(running: RunningInstallation, source: str) -> str:
    """Asks for a recipient of ours."""
    with smtplib.SMTP(
        "127.0.0.1", running.port(2525), timeout=20, source_address=(source, 0)
    ) as client:
        client.ehlo()
        client.mail("someone@example.net")
        code, text = client.rcpt("alice@example.org")
        return f"{code} {text.decode()}"


def explained(running: RunningInstallation, address: str) -> dict[str, Any]:
    done = running.netmail("login", "explain", address, "--server", "mail1", "--json")
    (found,) = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_blocked_client_is_refused_by_every_service(choosy: RunningInstallation) -> None:
    assert greeting(choosy, BLOCKED) == f"554 5.7.1 {BLOCKED} is not welcome here"
    assert greeting(choosy, BLOCKED, 2110) == f"-ERR [SYS/PERM] {BLOCKED} is not welcome here"
    assert greeting(choosy, BLOCKED, 2143) == f"* BYE {BLOCKED} is not welcome here"


def test_a_listed_client_is_let_in_when_one_of_our_users_has_logged_in_from_there(
    choosy: RunningInstallation,
) -> None:
    assert greeting(choosy, LISTED) == f"554 5.7.1 {LISTED} is listed by bad.test"
    found = explained(choosy, LISTED)["connecting"]
    assert (found["verdict"], found["rule"]) == ("deny permanent", "dnsbl")
    assert "dnsbl bad.test: listed (127.0.0.2): may not connect" in found["explanation"]
    with logged_in(choosy, LISTED, "alice", "wonderland") as client:
        client.quit()
    assert relay(choosy, LISTED, "alice@example.org").startswith("250")
    found = explained(choosy, LISTED)["connecting"]
    assert found["verdict"] == "allowed"
    assert found["explanation"][-1].startswith("a live login vouches")


def test_a_client_without_a_reverse_name_must_be_known(choosy: RunningInstallation) -> None:
    assert to_alice(choosy, NAMED).startswith("250")
    assert to_alice(choosy, NAMELESS).startswith("550 5.7.25")
    with logged_in(choosy, NAMELESS, "bob", "builder") as client:
        client.quit()
    assert to_alice(choosy, NAMELESS).startswith("250")


def test_the_log_and_the_metrics_say_who_was_denied(choosy: RunningInstallation) -> None:
    assert greeting(choosy, BLOCKED).startswith("554")
    deadline = time.monotonic() + 20
    while not any('"connection denied"' in line for line in choosy.output):
        assert time.monotonic() < deadline, "no line in the log"
        time.sleep(0.1)
