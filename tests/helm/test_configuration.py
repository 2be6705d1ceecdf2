"""The configuration that the chart writes is good, and says what the values say."""

from typing import Any

import pytest
import yaml
from helm_python import HelmError
from netmail_common.config import Installation, parse_config

from tests.helm.rendering import render


def configuration(**values: Any) -> Installation:
    rendered = render({"domain": "example.org", **values})
    text = rendered.object("ConfigMap", "netmail-config")["data"]["netmail.yaml"]
    return parse_config(yaml.safe_load(text))


def test_the_default_is_one_messaging_server_with_all_listeners() -> None:
    installation = configuration()
    (server,) = installation.messaging_servers
    (manager,) = installation.connection_managers
    assert server.domains == ["example.org"]
    assert server.host_name == "mail.example.org"
    assert server.connection_manager == manager.name
    assert manager.private_ranges_shared
    assert not manager.loopback_grants
    listeners = [*server.smtp.listeners, *server.pop_imap.listeners]
    assert {one.listen[0].rpartition(":")[2] for one in listeners} == {
        "2525", "2587", "2465", "2110", "2995", "2143", "2993",
    }  # fmt: skip
    assert not any(one.plaintext_auth for one in listeners)


def test_a_domain_must_be_given() -> None:
    with pytest.raises(HelmError, match="domain must be set"):
        render()


def test_any_key_of_the_schema_can_be_set() -> None:
    installation = configuration(
        connectionManager={"login_lifetime": "30m"},
        messagingServer={"nmap": {"default_quota": 1000}},
        config={"log": {"level": "debug"}},
    )
    assert installation.connection_managers[0].login_lifetime == 1800
    nmap = installation.messaging_servers[0].nmap
    assert nmap.default_quota == 1000
    assert nmap.listen == ["0.0.0.0:7710"]  # what is beside it stays
    assert installation.log.level == "debug"
    assert installation.log.format == "json"


def test_proxies_are_trusted_on_every_listener_and_shared() -> None:
    installation = configuration(
        proxyProtocol={"enabled": True, "trustedNetworks": ["192.0.2.0/28"]}
    )
    (server,) = installation.messaging_servers
    for listener in (*server.smtp.listeners, *server.pop_imap.listeners):
        assert listener.proxy_protocol
        assert listener.proxy_trusted_networks == ["192.0.2.0/28"]
