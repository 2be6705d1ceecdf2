"""An edited configuration file is taken by every agent, without a restart and a lost connection."""

import contextlib
import imaplib
import poplib
import smtplib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.installation import RunningInstallation, installation
from tests.support.mail_client import pop3, send
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)

AGENTS = ("netmail_connmgr", "netmail_nmap", "netmail_smtp", "netmail_pop_imap")
REMOTE = "someone@example.net"
_WITHIN = 60.0
"""Seconds; on a machine with nothing else to do it takes three."""


def one_server(data: dict[str, Any]) -> None:
    """mail1 alone, with two worker processes that receive."""
    del data["messaging_servers"][1]
    data["messaging_servers"][0]["smtp"]["workers"] = 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    with installation(
        tmp_path_factory.mktemp("live"), change=one_server, ready_within=480
    ) as started:
        yield started


@dataclass
class Editor:
    """Edits the configuration file of an installation that runs."""

    path: Path
    before: str

    def write(self, text: str) -> None:
        """Replaces it in one step."""
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.path)

    def change(self, *, server: dict[str, Any] | None = None, **manager: Any) -> None:
        """Writes it with other keys of the Messaging Server and the Connection Manager."""
        data = yaml.safe_load(self.before)
        (own,) = data["messaging_servers"]
        for key, value in (server or {}).items():
            own[key] = {**own[key], **value} if isinstance(own.get(key), dict) else value
        data["connection_managers"][0].update(manager)
        self.write(yaml.safe_dump(data))


@pytest.fixture
def editor(running: RunningInstallation) -> Iterator[Editor]:
    """The file is as it was, and taken, when the test ends."""
    editor = Editor(running.config_path, running.config_path.read_text(encoding="utf-8"))
    yield editor
    editor.write(editor.before)
    wait_for(lambda: metric(running, 7785, "restart_needed") == 0)
    wait_for(lambda: all(metric(running, port, "usable") == 1 for port in (7780, 7781, 7785)))


def wait_for(condition: Callable[[], bool]) -> None:
    assert eventually(condition, within=_WITHIN)


def metric(running: RunningInstallation, port: int, name: str) -> float:
    """A process's own."""
    url = f"http://127.0.0.1:{running.port(port)}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    (line,) = [one for one in lines if one.startswith(f"netmail_config_{name} ")]
    return float(line.rpartition(" ")[2])


def relayed(running: RunningInstallation, source: str, sender: str, recipient: str) -> str:
    return send(source, "127.0.0.1", running.port(2525), sender, recipient)


def test_contexts_and_domains_come_while_everything_goes_on(
    running: RunningInstallation, editor: Editor
) -> None:
    before = {agent: running.pids(agent) for agent in AGENTS}
    imap = imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=60)
    imap.login("alice", "wonderland")
    contexts = yaml.safe_load(running.config_path.read_text())["messaging_servers"][0]["contexts"]
    staff = {"name": "staff.demo", "initial_users": [{"name": "dave", "password": "davids"}]}
    assert not logs_in(running, "dave", "davids")
    editor.change(
        server={"contexts": [*contexts, staff], "domains": ["example.org", "new.example"]}
    )
    wait_for(lambda: logs_in(running, "dave", "davids"))
    wait_for(lambda: local(running, "dave@new.example"))
    assert imap.select("INBOX")[0] == "OK"
    imap.logout()
    assert {agent: running.pids(agent) for agent in AGENTS} == before


def logs_in(running: RunningInstallation, user: str, password: str) -> bool:
    """Whether a user logs in by POP3."""
    client = poplib.POP3("127.0.0.1", running.port(2110), timeout=60)
    with contextlib.closing(client):
        try:
            client.user(user)
            client.pass_(password)
        except poplib.error_proto:
            return False
        client.quit()
    return True


def local(running: RunningInstallation, recipient: str) -> bool:
    """Whether every worker process takes mail for a recipient, as far as 10 sessions tell."""
    for _ in range(10):
        with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=60) as client:
            client.helo()
            client.mail("eve@example.net")
            if client.rcpt(recipient)[0] != 250:
                return False
    return True


def test_a_network_that_is_named_as_shared_grants_no_more_and_lists_do(
    running: RunningInstallation, editor: Editor
) -> None:
    source = "127.0.0.77"
    assert "OK" in pop3(source, "127.0.0.1", running.port(2110), "alice", "wonderland")
    assert relayed(running, source, "alice@example.org", REMOTE).startswith("250")
    editor.change(shared_networks=["127.0.0.77/32"])
    wait_for(lambda: not relayed(running, source, "alice@example.org", REMOTE).startswith("250"))
    editor.change(lists={"blocked": ["127.0.0.77/32"]})

    def blocked() -> bool:
        try:
            relayed(running, source, "alice@example.org", REMOTE)
        except smtplib.SMTPConnectError as error:
            return error.smtp_code == 554
        return False

    wait_for(blocked)


def test_rates_count_at_once(running: RunningInstallation, editor: Editor) -> None:
    source = "127.0.0.78"
    assert "OK" in pop3(source, "127.0.0.1", running.port(2110), "bob", "builder")
    assert relayed(running, source, "bob@example.org", REMOTE).startswith("250")
    editor.change(rates={"after_login": {"recipients": 1}})
    wait_for(lambda: relayed(running, source, "bob@example.org", REMOTE).startswith("451"))


def test_a_bad_file_keeps_the_last_good_one_and_a_good_one_is_taken_again(
    running: RunningInstallation, editor: Editor
) -> None:
    editor.write("connection_managers: [{name: main\n")
    agents = (7780, 7781, 7783, 7785, 7790)
    wait_for(lambda: all(metric(running, port, "usable") == 0 for port in agents))
    assert local(running, "alice@example.org")
    assert "configuration not taken, the last good one stays" in running.text()
    editor.change(server={"smtp": {"relay_domains": ["backup.example"]}})
    wait_for(lambda: local(running, "anybody@backup.example"))
    wait_for(lambda: metric(running, 7790, "usable") == 1)


def test_what_needs_a_restart_is_said_by_whom_it_concerns(
    running: RunningInstallation, editor: Editor
) -> None:
    editor.change(server={"pop_imap": {"workers": 3}})
    wait_for(lambda: metric(running, 7785, "restart_needed") == 1)
    assert "messaging_servers.mail1.pop_imap.workers" in running.text()
    for port in (7780, 7781, 7783, 7790):
        assert metric(running, port, "restart_needed") == 0
