"""A copier with a password of its own: it opens its service, and nothing after its removal."""

import imaplib
import json
import poplib

import pytest

from tests.e2e.test_logins import logged_in, relay
from tests.support.installation import RunningInstallation
from tests.support.waiting import eventually

SOURCE = "127.9.1.1"


def test_a_device_password_vouches_for_its_address_until_it_is_removed(
    running: RunningInstallation,
) -> None:
    made = running.netmail(
        "user", "device", "add", "alice", "scanner",
        "--service", "pop3", "--network", "127.9.1.0/24", "--expires", "1d", "--json",
    )  # fmt: skip
    password = json.loads(made.stdout)["password"]
    assert relay(running, SOURCE, "alice@example.org").startswith("550 5.7.1")
    with logged_in(running, SOURCE, "alice", password):
        assert relay(running, SOURCE, "alice@example.org").startswith("250")
    with (
        pytest.raises(poplib.error_proto),
        logged_in(running, "127.9.2.1", "alice", password),
    ):
        pass
    with (
        imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20) as client,
        pytest.raises(imaplib.IMAP4.error),
    ):
        client.login("alice", password)
    running.netmail("user", "device", "remove", "alice", "scanner")
    eventually(lambda: relay(running, SOURCE, "alice@example.org").startswith("550 5.7.1"))
    with pytest.raises(poplib.error_proto), logged_in(running, SOURCE, "alice", password):
        pass
    assert "scanner" not in running.netmail("user", "device", "list", "alice").stdout
