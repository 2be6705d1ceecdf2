"""`netmail login explain`: the same questions as the agents ask, answered in words."""

import json
from typing import Any

import pytest

from tests.e2e.test_logins import logged_in, relay
from tests.support.installation import RunningInstallation


def explain(running: RunningInstallation, *argv: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        running.netmail("login", "explain", *argv, "--json").stdout
    )
    return found


def test_a_stranger_is_told_to_log_in(running: RunningInstallation) -> None:
    text = running.netmail("login", "explain", "127.0.0.61", "alice@example.org").stdout
    assert "mail1, Connection Manager" in text
    assert "  connecting by smtp: allowed\n" in text
    assert "    lists: in no list\n" in text
    assert "  relaying: must authenticate, no login\n" in text
    assert "    logins: none\n" in text


def test_what_is_explained_is_what_happens(running: RunningInstallation) -> None:
    with logged_in(running, "127.0.0.62", "alice", "wonderland") as client:
        client.quit()
    for sender, decision, reason, code in [
        ("alice@example.org", "allowed", "login", "250"),
        ("bob@example.org", "denied", "sender of other user", "550"),
        ("nobody.at.all@example.org", "allowed", "login", "250"),
        ("somebody@example.net", "denied", "sender not owned", "550"),
    ]:
        (found,) = explain(running, "127.0.0.62", sender, "--server", "mail1")
        assert found["relaying"]["decision"] == decision, sender
        assert found["relaying"]["reason"] == reason, sender
        assert found["relaying"]["user"] == "alice@users.demo"
        assert relay(running, "127.0.0.62", sender).startswith(code), sender


def test_another_binding_may_be_tried(running: RunningInstallation) -> None:
    with logged_in(running, "127.0.0.63", "alice", "wonderland") as client:
        client.quit()
    argv = ("127.0.0.63", "nobody.at.all@example.org", "--server", "mail1", "--binding")
    assert explain(running, *argv, "strict")[0]["relaying"]["decision"] == "denied"
    assert explain(running, *argv, "any")[0]["relaying"]["decision"] == "allowed"


def test_every_messaging_server_is_asked_for_unless_one_is_named(
    running: RunningInstallation,
) -> None:
    servers = [one["messaging_server"] for one in explain(running, "192.0.2.1")]
    assert len(servers) > 1
    assert len(set(servers)) == len(servers)


@pytest.mark.parametrize(
    ("argv", "code", "word"),
    [
        (("nonsense",), 2, "not an IP address"),
        (("192.0.2.1", "no address"), 2, "not a mail address"),
        (("192.0.2.1", "--server", "nowhere"), 3, "no messaging server"),
    ],
)
def test_what_makes_no_sense_is_said(
    running: RunningInstallation, argv: tuple[str, ...], code: int, word: str
) -> None:
    done = running.netmail("login", "explain", *argv, check=False)
    assert word in done.stderr
    assert done.returncode == code
