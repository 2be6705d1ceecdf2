"""The client's address arrives, whichever way it takes; where it cannot, nobody gets to relay."""

import imaplib
import json
import poplib
import shutil
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Door, Doors
from tests.cluster.support.release import merged, release
from tests.cluster.support.stages import (
    ask_to_relay,
    forget_logins,
    imap_login,
    play,
    pop3_login,
    refused_politely,
    submit,
)
from tests.e2e.proxy_headers import v2
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

PUBLIC = ("smtp", "pop-imap")


def test_by_a_node_port_with_local_traffic_policy_the_six_stages_work(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    play(installed, sink, *hosts[:3], doors=Doors.at_nodes(installed))


@contextmanager
def traffic_policy(installed: Release, policy: str) -> Iterator[None]:
    """Patches the public Services, as somebody may whom the chart did not stop."""

    def patch(value: str) -> None:
        for component in PUBLIC:
            installed.kubectl(
                "patch", "service", f"{installed.name}-{component}", "--type=merge",
                "-p", json.dumps({"spec": {"externalTrafficPolicy": value}}),
            )  # fmt: skip

    patch(policy)
    try:
        yield
    finally:
        patch("Local")


def logins(installed: Release) -> dict[str, bool]:
    """The addresses that are remembered, and whether they grant."""
    listed = json.loads(installed.netmail("login", "list", "--json"))
    return {login["client_address"]: login["grants"] for login in listed}


def test_where_nodes_replace_the_address_a_login_grants_nobody_anything(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    doors, (alice, stranger, program) = Doors.of(installed), hosts[:3]
    pop3_login(alice, doors.pop3s, "alice")
    assert ask_to_relay(alice, doors.smtp, "alice").startswith("250")
    forget_logins(installed)
    with traffic_policy(installed, "Cluster"):

        def hidden() -> dict[str, bool]:
            with suppress(OSError, imaplib.IMAP4.abort):  # the change of the path cuts connections
                imap_login(alice, doors.imaps, "alice")
            found = logins(installed)
            if alice.address in found:  # the nodes do not do it yet
                forget_logins(installed)
                return {}
            return found

        seen = eventually(hidden, 90)
        print(f"\nseen as {seen}")
        assert not any(seen.values()), "a node's address grants"
        for host in (alice, stranger):
            refused_politely(ask_to_relay(host, doors.smtp, "alice"))
        submit(program, doors.submission, "alice", sink)
        for host in (alice, stranger):
            refused_politely(ask_to_relay(host, doors.smtp, "alice"))


HAPROXY = """
global
  maxconn 200
defaults
  mode tcp
  timeout connect 10s
  timeout client 2m
  timeout server 2m
"""


@pytest.fixture(scope="module")
def proxied(cluster: Cluster, sink: Sink) -> Iterator[Release]:
    """A second installation, which stands behind the proxy."""
    values = {
        "proxyProtocol": {"enabled": True, "trustedNetworks": [f"{proxy_host(cluster).address}/32"]}
    }
    with release(cluster, f"{NAMESPACE}-proxied", merged(values_for(sink), values)) as made:
        yield made


def proxy_host(cluster: Cluster) -> Outside:
    """The host outside that HAProxy runs on."""
    return cluster.outside("198.51.100.1" if cluster.is_own else cluster.addresses(4)[3].address)


@pytest.fixture
def haproxy(cluster: Cluster, proxied: Release, tmp_path: Path) -> Iterator[Doors]:
    """A real HAProxy in front of every listener, which speaks PROXY protocol version 2."""
    if shutil.which("haproxy") is None:
        pytest.skip("needs the Debian package haproxy")
    host = proxy_host(cluster)
    behind, front = Doors.of(proxied), Doors.at(host.address)
    config = HAPROXY + "".join(
        f"listen {name}\n  bind {getattr(front, name)[0]}:{getattr(front, name)[1]}\n"
        f"  server pods {getattr(behind, name)[0]}:{getattr(behind, name)[1]} send-proxy-v2\n"
        for name in Doors.__slots__
    )
    path = tmp_path / "haproxy.cfg"
    path.write_text(config, encoding="utf-8")
    process = host.start("haproxy", "-db", "-f", str(path))
    try:
        eventually(lambda: host.reaches(*front.imaps))
        yield front
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def _first_words(host: Outside, door: Door, header: bytes) -> bytes:
    """What the listener says to a client that begins so; empty if it is cut off."""
    with host.connect(*door) as connection, suppress(ConnectionResetError):
        connection.sendall(header)
        connection.settimeout(20)
        return connection.recv(1000)
    return b""


def test_through_haproxy_with_proxy_protocol_the_six_stages_work(
    proxied: Release, haproxy: Doors, sink: Sink, hosts: list[Outside]
) -> None:
    play(proxied, sink, *hosts[:3], doors=haproxy)


def test_who_is_not_the_proxy_is_cut_off_whatever_header_he_writes(
    proxied: Release, haproxy: Doors, hosts: list[Outside]
) -> None:
    direct = Doors.of(proxied)
    known, liar = hosts[0], hosts[3]
    pop3_login(known, haproxy.pop3s, "alice")
    assert ask_to_relay(known, haproxy.smtp, "alice").startswith("250")
    for header in (b"", v2(known.address), f"PROXY TCP4 {known.address} 1.2.3.4 1 25\r\n".encode()):
        assert _first_words(liar, direct.smtp, header) == b""
    with pytest.raises((OSError, EOFError, poplib.error_proto)):
        pop3_login(liar, direct.pop3s, "alice")
    with pytest.raises((OSError, smtplib.SMTPException)):
        ask_to_relay(liar, direct.smtp, "alice")
