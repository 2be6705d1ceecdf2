"""allowed_networks may not open the relay to those behind a shared network."""

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import ConfigError, parse_config
from netmail_common.networks import AddressRules
from netmail_common.shared_networks import SharedNetworkError, is_within, read_trusted_networks
from netmail_smtp.app.receiver import check_config

KUBERNETES = AddressRules(
    private_ranges_shared=True,
    granting_networks=(ip_network("10.1.0.0/16"),),
    shared_networks=(ip_network("10.1.2.0/24"), ip_network("2001:db8:1::/48")),
)


@pytest.mark.parametrize(
    "network",
    ["0.0.0.0/0", "::/0", "127.0.0.0/8", "127.0.0.5/32", "::1/128", "100.64.0.0/10",
     "100.100.0.0/16", "96.0.0.0/5", "169.254.1.0/24", "fe80::/64", "2001::/32"],
)  # fmt: skip
def test_a_shared_network_is_refused(network: str) -> None:
    with pytest.raises(SharedNetworkError, match=network):
        read_trusted_networks([network], AddressRules(), "allowed_networks")


@pytest.mark.parametrize("network", ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"])
def test_other_networks_are_read(network: str) -> None:
    assert read_trusted_networks([network], AddressRules(), "allowed_networks") == (
        ip_network(network),
    )


@pytest.mark.parametrize(
    ("network", "allowed"),
    [
        ("10.1.0.0/24", True),
        ("10.1.2.0/24", False),
        ("10.1.0.0/16", False),
        ("10.0.0.0/8", False),
        ("192.168.1.0/24", False),
        ("2001:db8:1:1::/64", False),
        ("2001:db8:2::/48", True),
    ],
)
def test_where_private_ranges_are_shared_only_granting_ones_pass(
    network: str, allowed: bool
) -> None:
    try:
        read_trusted_networks([network], KUBERNETES, "allowed_networks")
        passed = True
    except SharedNetworkError:
        passed = False
    assert passed is allowed


def test_an_address_is_looked_for_in_its_own_family() -> None:
    networks = read_trusted_networks(
        ["192.0.2.0/24", "2001:db8::/32"], AddressRules(), "allowed_networks"
    )
    assert is_within(ip_address("192.0.2.9"), networks)
    assert is_within(ip_address("2001:db8::9"), networks)
    assert not is_within(ip_address("::ffff:192.0.2.9"), networks)
    assert not is_within(ip_address("198.51.100.1"), networks)


@pytest.mark.parametrize(
    ("smtp", "words"),
    [
        ({"allowed_networks": ["0.0.0.0/0"]}, "overlaps the shared network"),
        (
            {"listeners": [{"name": "a", "listen": ["127.0.0.1:0"], "proxy_protocol": True}]},
            "proxy_trusted_networks",
        ),
        (
            {
                "allowed_networks": ["198.51.100.0/24"],
                "listeners": [
                    {
                        "name": "a",
                        "listen": ["127.0.0.1:0"],
                        "proxy_protocol": True,
                        "proxy_trusted_networks": ["198.51.100.7/32"],
                    }
                ],
            },
            "overlaps the shared network 198.51.100.7/32",
        ),
    ],
)
def test_the_start_is_refused_in_words(smtp: dict[str, Any], words: str, tmp_path: Path) -> None:
    installation = parse_config(
        {
            "messaging_servers": [
                {
                    "name": "mail1",
                    "host_name": "mail1.example.org",
                    "domains": ["example.org"],
                    "contexts": [{"name": "users.demo"}],
                    "ube_relaying": {"smtp_after_pop": False},
                    "nmap": {"listen": ["127.0.0.1:0"]},
                    "smtp": smtp,
                }
            ]
        },
        state=tmp_path,
    )
    with pytest.raises(ConfigError, match=words):
        check_config(installation, installation.messaging_server("mail1"))
