"""The schema: names that go into certificates, files and keys of a store."""

from typing import Any

import pytest
from netmail_common.config import ConfigError, Installation, parse_config


def installation(name: str = "mail", trust_domain: str = "netmail", prefix: str = "x") -> Any:
    return {
        "installation": trust_domain,
        "connection_managers": [
            {
                "name": "main",
                "listen": ["127.0.0.1:0"],
                "store": "valkey",
                "valkey": {"addresses": ["127.0.0.1:1"], "prefix": prefix},
            }
        ],
        "messaging_servers": [
            {
                "name": name,
                "host_name": "mail.example.org",
                "domains": ["example.org"],
                "contexts": [{"name": "users"}],
                "connection_manager": "main",
                "nmap": {"listen": ["127.0.0.1:0"]},
            }
        ],
    }


def test_plain_names_are_taken() -> None:
    parsed = parse_config(installation("mail-1", "netmail.example", "net_mail.1-a"))
    assert isinstance(parsed, Installation)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "mail 1"),
        ("name", "../mail"),
        ("name", "Mail"),
        ("name", ""),
        ("name", "mail\n"),
        ("trust_domain", "net/mail"),
        ("trust_domain", "netmail\nx"),
        ("prefix", "a{b}"),
        ("prefix", "a b"),
    ],
)
def test_other_names_stop_the_start(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(installation(**{key: value}))


@pytest.mark.parametrize(
    "store",
    [
        {"url": "mysql://localhost/netmail"},
        {"url": "sqlite:///x.db", "password_file": "/etc/netmail/password"},
        {"pooled": True},
        {"url": "sqlite:///x.db", "listen_url": "postgresql://localhost/netmail"},
        {"listen_url_file": "/etc/netmail/listen"},
        {"url": "postgresql://localhost/netmail", "url_file": "/etc/netmail/url"},
        {"url_file": "/x", "listen_url": "postgresql://localhost/x", "listen_url_file": "/x"},
    ],
)
def test_a_store_that_makes_no_sense_stops_the_start(store: dict[str, Any]) -> None:
    wrong = installation()
    wrong["messaging_servers"][0]["nmap"]["store"] = store
    with pytest.raises(ConfigError):
        parse_config(wrong)


def test_a_store_on_postgresql_is_told_from_one_on_sqlite() -> None:
    right = installation()
    assert not parse_config(right).messaging_servers[0].nmap.store.shared
    right["messaging_servers"][0]["nmap"]["store"] = {"url": "postgresql://u@h/{server}"}
    parsed = parse_config(right)
    assert parsed.messaging_servers[0].nmap.store.shared
    assert parsed.store_url("mail") == "postgresql://u@h/mail"
    right["messaging_servers"][0]["nmap"]["store"] = {"url_file": "/etc/netmail/url"}
    assert parse_config(right).messaging_servers[0].nmap.store.shared
