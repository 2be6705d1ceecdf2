"""Address tricks on the wire: clients whose source addresses really are what they seem to be."""

import re
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from tests.e2e.relaying import REMOTE, Client, Outcome
from tests.support.installation import RunningInstallation, installation
from tests.support.namespaces import TwoHosts, two_hosts
from tests.support.other_network import connect_from

RELAYED, REFUSED = Outcome.RELAYED, Outcome.REFUSED

# Login from, relay from. Each pair has networks of its own.
CASES = [
    ("198.18.1.7", "198.18.1.7", RELAYED),
    ("198.18.2.7", "198.18.2.6", REFUSED),
    ("198.18.3.7", "198.18.3.8", REFUSED),
    ("198.18.4.7", "198.18.5.7", REFUSED),
    ("198.18.6.7", "64:ff9b::198.18.6.7", RELAYED),
    ("64:ff9b::198.18.7.7", "198.18.7.7", RELAYED),
    ("198.18.8.7", "64:ff9b::198.18.8.8", REFUSED),
    ("198.18.9.7", "2002:c612:907::1", RELAYED),
    ("2002:c612:a07::1", "198.18.10.7", RELAYED),
    ("2002:c612:b07::1", "2002:c612:b07:1::1", RELAYED),
    ("2002:c612:c07::1", "2002:c612:c08::1", REFUSED),
    ("64:ff9b:1:c612:d:700::", "198.18.13.7", RELAYED),
    ("198.18.14.7", "2001:db8:e::198.18.14.7", REFUSED),
    ("2001:db8:f::198.18.15.7", "198.18.15.7", REFUSED),
    ("198.18.16.7", "2003:c612:1007::1", REFUSED),
    ("2001:db8:0:11::1", "2001:db8:0:11::1", RELAYED),
    ("2001:db8:0:12::1", "2001:db8:0:12:ffff:ffff:ffff:ffff", RELAYED),
    ("2001:db8:0:13::1", "2001:db8:0:14::1", REFUSED),
    ("2001:db8:0:15::1", "2001:db8:0:8015::1", REFUSED),
    ("2001:db8:1:16::1", "2001:db8:2:16::1", REFUSED),
    ("2001:db8:0:17::1", "2001:db9:0:17::1", REFUSED),
    ("100.64.0.7", "100.64.0.7", REFUSED),
    ("100.127.255.7", "100.127.255.7", REFUSED),
    ("100.63.255.7", "100.63.255.7", RELAYED),
    ("100.128.0.7", "100.128.0.7", RELAYED),
    ("169.254.7.7", "169.254.7.7", REFUSED),
    ("10.0.0.7", "10.0.0.7", REFUSED),
    ("10.20.0.7", "10.20.0.7", RELAYED),
    ("10.21.0.7", "10.21.0.7", REFUSED),
    ("172.16.0.7", "172.16.0.7", REFUSED),
    ("172.31.255.7", "172.31.255.7", REFUSED),
    ("172.32.0.7", "172.32.0.7", RELAYED),
    ("192.168.7.7", "192.168.7.7", REFUSED),
    ("192.168.8.7", "64:ff9b::192.168.8.7", REFUSED),
    ("64:ff9b::100.64.9.7", "64:ff9b::100.64.9.7", REFUSED),
    ("2002:6440:a07::1", "2002:6440:a07::1", REFUSED),
    ("64:ff9b::127.0.0.1", "64:ff9b::127.0.0.1", REFUSED),
    ("2002:7f00:1::1", "2002:7f00:1::1", REFUSED),
    ("203.0.113.7", "203.0.113.7", REFUSED),
    ("203.0.114.7", "203.0.114.7", RELAYED),
    ("fd00:7::1", "fd00:7::1", REFUSED),
    ("fd00:20::1", "fd00:20::1", RELAYED),
    ("2001:0:53aa:64c:1c6f:3a3d:39ed:e8f8", "198.18.23.7", REFUSED),
    ("2001:0:53aa:64c:2c6f:3a3d:39ed:e7f8", "2001:0:53aa:64c:2c6f:3a3d:39ed:e7f8", REFUSED),
    ("2001:db8:5a5a:1::1", "2001:db8:5a5a:1::1", REFUSED),
    ("2001:db8:5a5b:1::1", "2001:db8:5a5b:1::1", RELAYED),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    """The client host has every address of the table; the server finds them all on its link."""
    found = {ip_address(one) for login, relay, _ in CASES for one in (login, relay)}
    with two_hosts([f"{one}/{one.max_prefixlen}" for one in sorted(found, key=str)]) as made:
        for family in ("-4", "-6"):
            for name in (made.server, made.client):
                subprocess.run(
                    ["ip", "-n", name, family, "route", "add", "default", "dev", name],
                    check=True, timeout=10,
                )  # fmt: skip
        yield made


@pytest.fixture(scope="module")
def server(
    hosts: TwoHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningInstallation]:
    def public(data: dict[str, Any]) -> None:
        for manager in data["connection_managers"]:
            manager.update(
                loopback_grants=False,
                private_ranges_shared=True,
                granting_networks=["10.20.0.0/16", "fd00:20::/32"],
                shared_networks=["203.0.113.0/24", "2001:db8:5a5a::/48"],
            )
        del data["messaging_servers"][1]
        for one in data["messaging_servers"]:
            for agent in ("smtp", "pop_imap"):
                for listener in one[agent]["listeners"]:
                    port = re.search(r"\d+$", listener["listen"][0])
                    assert port is not None
                    listener["listen"] = [
                        f"{hosts.server_v4}:{port[0]}",
                        f"[{hosts.server_v6}]:{port[0]}",
                    ]

    state = tmp_path_factory.mktemp("server")
    with installation(state, change=public, prefix=hosts.on_server()) as running:
        yield running


class Network:
    """Connections from anywhere to the server."""

    def __init__(self, hosts: TwoHosts) -> None:
        self._hosts = hosts

    def log_in(self, source: str, *, namespace: str = "") -> None:
        with self._connect(source, 2110, namespace) as client, client.makefile("rb") as replies:
            pop3 = Client(client, replies)
            assert pop3.line().startswith("+OK")
            pop3.say("USER alice")
            assert pop3.say("PASS wonderland").startswith("+OK")
            pop3.say("QUIT")

    def relay(self, source: str, *, namespace: str = "") -> Outcome:
        with self._connect(source, 2525, namespace) as client, client.makefile("rb") as replies:
            smtp = Client(client, replies)
            assert smtp.line().startswith("220")
            assert smtp.say("HELO client.example.net").startswith("250")
            assert smtp.say("MAIL FROM:<alice@example.org>").startswith("250")
            reply = smtp.say(f"RCPT TO:<{REMOTE}>")
            assert reply.startswith(("250", "550 5.7.1")), reply
            return RELAYED if reply.startswith("250") else REFUSED

    def _connect(self, source: str, port: int, namespace: str) -> socket.socket:
        host = self._hosts.server_v6 if ":" in source else self._hosts.server_v4
        return connect_from(namespace or self._hosts.client, source, (host, port))


@pytest.fixture
def network(hosts: TwoHosts, server: RunningInstallation) -> Network:
    assert server.process.poll() is None
    return Network(hosts)


@pytest.mark.parametrize(("login", "relay", "outcome"), CASES)
def test_a_login_vouches_for_its_own_client_and_for_nobody_else(
    network: Network, login: str, relay: str, outcome: Outcome
) -> None:
    assert network.relay(relay) is REFUSED
    network.log_in(login)
    assert network.relay(relay) is outcome


@pytest.mark.parametrize("family", ["server_v4", "server_v6"])
def test_what_comes_from_the_server_itself_is_nobody(
    network: Network, hosts: TwoHosts, family: str
) -> None:
    """A proxy, a tunnel, or a forwarded port: whoever is behind it is not known by the address."""
    own = getattr(hosts, family)
    network.log_in(own, namespace=hosts.server)
    assert network.relay(own, namespace=hosts.server) is REFUSED
