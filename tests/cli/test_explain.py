"""`netmail login explain` without agents: whom it asks, and how it puts the answers."""

from ipaddress import ip_address
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.nmap.v1 import directory_pb2
from netmail_cli.commands.explain import (
    Binding,
    Door,
    _binding_of,
    _connecting,
    _owner,
    _places,
    _relaying,
    _settings,
    _text,
)
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode
from netmail_common.config import Installation, parse_config
from netmail_common.mail_address import parse_mail_address

SENDER = parse_mail_address("sales@example.org")
NO_POP = {"ube_relaying": {"smtp_after_pop": False}}


def installation(*servers: dict[str, Any], managers: tuple[str, ...] = ("main",)) -> Installation:
    return parse_config(
        {
            "connection_managers": [
                {
                    "name": name,
                    "listen": ["127.0.0.1:7700"],
                    "postfix_policy": {"sender_binding": "any"},
                }
                for name in managers
            ],
            "messaging_servers": [
                {
                    "host_name": "mail.example.org",
                    "domains": [f"{server['name']}.example"],
                    "contexts": [{"name": f"users.{server['name']}"}],
                    "nmap": {"listen": [f"127.0.0.1:{7600 + number}"]},
                    **server,
                }
                for number, server in enumerate(servers)
            ],
        }
    )


def names(found: Installation, server: str | None = None) -> list[tuple[str, str]]:
    return [(manager, one.name if one else "") for manager, one in _places(found, server)]


def test_each_messaging_server_and_each_manager_that_none_asks_is_a_place() -> None:
    found = installation(
        {"name": "a", "connection_manager": "main"},
        {"name": "b", "connection_manager": "main"},
        {"name": "c", **NO_POP},
        managers=("main", "alone"),
    )
    assert names(found) == [("main", "a"), ("main", "b"), ("alone", "")]
    assert names(found, "b") == [("main", "b")]


@pytest.mark.parametrize("server", ["c", "d"])
def test_a_server_that_asks_nobody_or_is_none_is_not_found(server: str) -> None:
    found = installation({"name": "a", "connection_manager": "main"}, {"name": "c", **NO_POP})
    with pytest.raises(Failure) as caught:
        _places(found, server)
    assert caught.value.code is ExitCode.NOT_FOUND


def test_the_binding_is_the_servers_else_the_front_ends() -> None:
    strict = {"sender_binding": {"after_login": "strict"}}
    found = installation({"name": "a", "connection_manager": "main", **strict})
    (place,) = _places(found, None)
    assert _binding_of(found, place) is Binding.STRICT
    assert _binding_of(found, ("main", None)) is Binding.ANY


@pytest.mark.parametrize(
    ("resolved", "owners"),
    [
        (
            directory_pb2.Resolved(
                outcome=directory_pb2.RESOLVE_OUTCOME_LOCAL, name="alice", context="users.a"
            ),
            [
                pb.SenderOwner(
                    address="sales@example.org",
                    owner=pb.UserKey(name="alice", context="users.a"),
                    known=True,
                )
            ],
        ),
        (
            directory_pb2.Resolved(
                outcome=directory_pb2.RESOLVE_OUTCOME_LOCAL, name="postmaster", catch_all=True
            ),
            [pb.SenderOwner(address="sales@example.org", known=True)],
        ),
        (
            directory_pb2.Resolved(outcome=directory_pb2.RESOLVE_OUTCOME_UNKNOWN_USER),
            [pb.SenderOwner(address="sales@example.org", known=True)],
        ),
        (directory_pb2.Resolved(outcome=directory_pb2.RESOLVE_OUTCOME_TEMPORARY_FAILURE), []),
    ],
)
def test_the_directory_tells_whose_a_sender_is(
    resolved: directory_pb2.Resolved, owners: list[pb.SenderOwner]
) -> None:
    assert _owner(SENDER, resolved) == owners


def test_the_agents_own_settings_are_told() -> None:
    listeners = [
        {"name": "mx", "listen": ["127.0.0.1:25"]},
        {"name": "tls", "listen": ["127.0.0.1:587"], "smtp_after_pop": False},
    ]
    smtp = {"allowed_networks": ["192.0.2.0/24"], "listeners": listeners}
    found = installation({"name": "a", "connection_manager": "main", "smtp": smtp})
    server = found.messaging_server("a")
    assert _settings(server, ip_address("192.0.2.9")) == [
        "allowed_networks: relays without a login, on listeners that allow it",
        "smtp_after_pop: off on tls; no login counts there",
    ]
    assert _settings(server, ip_address("192.0.3.9"))[0].startswith("smtp_after_pop")
    off = installation({"name": "a", "connection_manager": "main", **NO_POP})
    assert _settings(off.messaging_server("a"), ip_address("192.0.2.9")) == [
        "ube_relaying.smtp_after_pop: off, so nobody is asked about logins"
    ]


def test_answers_are_put_for_people() -> None:
    connecting = pb.ConnectionDecision(
        verdict=pb.CONNECTION_VERDICT_ALLOWED,
        rule="reverse_dns",
        require_auth=True,
        comment="nameless",
        explanation=["lists: in no list"],
    )
    relaying = pb.SenderDecision(
        decision=pb.DECISION_ALLOWED,
        reason=pb.REASON_LOGIN,
        user=pb.UserKey(name="alice", context="users.a"),
        remaining_seconds=60,
        explanation=["logins: 1"],
    )
    record = {
        "connection_manager": "main",
        "messaging_server": "",
        "connecting": _connecting(connecting, Door.SMTP),
        "relaying": _relaying(relaying),
        "settings": ["allowed_networks: yes"],
    }
    assert list(_text(record)) == [
        "no Messaging Server, Connection Manager main",
        "  connecting by smtp: allowed, by reverse_dns, must authenticate, nameless",
        "    lists: in no list",
        "  relaying: allowed, login, alice@users.a, 60 s left",
        "    allowed_networks: yes",
        "    logins: 1",
    ]
