"""Addresses that really differ: the relay decision across hosts, by IPv4 and IPv6."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.installation import ROOT, RunningInstallation, installation
from tests.support.namespaces import TwoHosts, two_hosts

CLIENT = ["198.18.0.7/16", "198.18.0.8/16", "198.18.0.9/16"]
CLIENT += ["2001:db8:0:7::1/48", "2001:db8:0:7::2/48", "2001:db8:0:8::1/48", "2001:db8:0:9::1/48"]
ALICE = ("alice", "wonderland")


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts(CLIENT) as made:
        yield made


@pytest.fixture(scope="module")
def server(
    hosts: TwoHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningInstallation]:
    def public(data: dict[str, Any]) -> None:
        for manager in data["connection_managers"]:
            manager["loopback_grants"] = False
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


def act(hosts: TwoHosts, action: str, source: str, port: int, *argv: str) -> str:
    """Acts on the client host, from the source address, to the server's address of that family."""
    host = hosts.server_v6 if ":" in source else hosts.server_v4
    done = subprocess.run(
        [*hosts.on_client(), sys.executable, "-m", "tests.support.mail_client",
         action, source, host, str(port), *argv],
        check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    return done.stdout.strip()


def relay(hosts: TwoHosts, source: str) -> str:
    return act(hosts, "send", source, 2525, "alice@example.org", "eve@example.net")


@pytest.mark.usefixtures("server")
class TestAcrossHosts:
    def test_an_ipv4_login_vouches_for_its_address_and_no_neighbour(self, hosts: TwoHosts) -> None:
        assert relay(hosts, "198.18.0.7").startswith("550 5.7.1")
        assert act(hosts, "pop3", "198.18.0.7", 2110, *ALICE).startswith("+OK")
        assert relay(hosts, "198.18.0.7").startswith("250")
        assert relay(hosts, "198.18.0.8").startswith("550 5.7.1")

    def test_an_ipv6_login_vouches_for_its_64_and_no_other(self, hosts: TwoHosts) -> None:
        assert relay(hosts, "2001:db8:0:7::1").startswith("550 5.7.1")
        assert act(hosts, "imap", "2001:db8:0:7::1", 2143, *ALICE) == "OK"
        assert relay(hosts, "2001:db8:0:7::1").startswith("250")
        assert relay(hosts, "2001:db8:0:7::2").startswith("250")
        assert relay(hosts, "2001:db8:0:8::1").startswith("550 5.7.1")

    def test_a_failed_login_vouches_for_nothing(self, hosts: TwoHosts) -> None:
        for source in ("198.18.0.9", "2001:db8:0:9::1"):
            assert act(hosts, "pop3", source, 2110, "alice", "wrong").startswith("b'-ERR")
            assert relay(hosts, source).startswith("550 5.7.1")
