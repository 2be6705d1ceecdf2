"""Postfix relays after a login at Dovecot: both from Debian, by the documentation's own examples.

A Connection Manager alone, on the server's host with both of them; the client is another host with
addresses of its own (network namespaces), so that every address is what it would be in the world.
"""

import contextlib
import imaplib
import json
import os
import poplib
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.interop.dovecot_host import DovecotHost, dovecot_host
from tests.interop.postfix_host import PostfixHost, postfix_host
from tests.support.installation import ROOT, RunningInstallation, free_port, installation
from tests.support.namespaces import TwoHosts, two_hosts
from tests.support.other_network import connect_from
from tests.support.waiting import eventually

EXAMPLES = ROOT / "docs" / "examples"
CLIENT = ["198.18.0.7/16", "198.18.0.8/16", "198.18.0.9/16", "198.18.0.10/16", "198.18.0.11/16"]
CLIENT += [f"2001:db8:0:{subnet}::{host}/48" for subnet, host in ((7, 1), (7, 2), (8, 1))]
WORD = "correcthorsebatterystaple"
KEY = "key-of-the-dovecot-policy"
USERS = {
    "alice@example.org": "wonderland",
    "bob@example.org": "builder",
    "carol@example.org": "christmas",
}
CAROLS_RATES = {"after_login": {"recipients": 2}, "after_auth": {"recipients": 1}}
REMOTE = "eve@remote.example"
LOGIN_FIRST = (554, "5.7.1")
LATER = (450, 451, 454)


@dataclass(frozen=True, slots=True)
class Site:
    """A mail server of other makers' parts, with our Connection Manager."""

    plan: "Plan"
    hosts: TwoHosts
    manager: RunningInstallation
    postfix: PostfixHost
    dovecot: DovecotHost

    def imap(self, source: str, user: str = "alice@example.org", word: str = "") -> str:
        """Logs in and out; how the login ended."""

        class Client(imaplib.IMAP4):
            def _create_socket(_self, _timeout: float | None) -> socket.socket:  # noqa: N805
                return self.connect(source, self.dovecot.imap_port)

        client = Client()
        try:
            status: str = client.login(user, word or USERS[user])[0]
        except imaplib.IMAP4.error:
            status = "NO"
        client.logout()
        return status

    def pop3(self, source: str, user: str = "alice@example.org", word: str = "") -> bool:
        """Logs in and out; whether it could."""

        class Client(poplib.POP3):
            def _create_socket(_self, _timeout: float | None) -> socket.socket:  # noqa: N805
                return self.connect(source, self.dovecot.pop3_port)

        client = Client("")
        try:
            client.user(user)
            client.pass_(word or USERS[user])
        except poplib.error_proto:
            return False
        finally:
            client.quit()
        return True

    def send(
        self,
        source: str,
        sender: str = "alice@example.org",
        recipient: str = REMOTE,
        *,
        header: str = "",
        auth: tuple[str, str] | None = None,
    ) -> "tuple[int, str]":
        """Sends a message; the last reply, and the message's subject if it was taken."""
        subject = f"interop {uuid.uuid4().hex}"

        class Client(smtplib.SMTP):
            def _get_socket(_self, _host: str, _port: int, _timeout: float) -> socket.socket:  # noqa: N805
                return self.connect(source, self.postfix.port)

        with Client("postfix.test", self.postfix.port, local_hostname="client.example") as client:
            client.ehlo()
            if auth is not None:
                client.login(*auth)
            client.mail(sender)
            code, text = client.rcpt(recipient)
            if code != 250:
                return code, text.decode()
            code, text = client.data(f"{header}From: {sender}\r\nSubject: {subject}\r\n\r\nhi\r\n")
            return code, subject if code == 250 else text.decode()

    def arrived(self, subject: str) -> bytes:
        """The header of a message that was taken, as it reached its recipient."""
        deadline = time.monotonic() + 30
        while True:
            for message in self.postfix.messages():
                if subject.encode() in message:
                    return message.partition(b"\n\n")[0] + b"\n"
            assert time.monotonic() < deadline, self.postfix.log_text()
            time.sleep(0.05)

    def connect(self, source: str, port: int) -> socket.socket:
        """A connection from the client's host."""
        host = self.hosts.server_v6 if ":" in source else self.hosts.server_v4
        return connect_from(self.hosts.client, source, (host, port))

    def relays(self, source: str, sender: str = "alice@example.org") -> bool:
        """Whether it takes mail for the world; a refusal must be the one that was asked for."""
        code, text = self.send(source, sender)
        refused = code == LOGIN_FIRST[0] and text.startswith(LOGIN_FIRST[1])
        assert code == 250 or refused, text + self.postfix.log_text()
        return code == 250

    def has_sent_too_much(
        self, source: str, sender: str, auth: tuple[str, str] | None = None
    ) -> bool:
        """Whether no more is taken, for that reason."""
        code, text = self.send(source, sender, auth=auth)
        assert code == 250 or text.endswith(
            "You have sent too much within an hour, try again later"
        )
        return code == 451 and text.startswith("4.7.1")

    def logins(self, command: str, *argv: str) -> Any:
        """What `netmail login COMMAND` says."""
        done = subprocess.run(
            [*self.hosts.on_server(), sys.executable, "-m", "netmail_cli", "login", command,
             *argv, "--json", "--config", str(self.manager.config_path),
             "--state", str(self.manager.state)],
            check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
        )  # fmt: skip
        return json.loads(done.stdout)


def example(name: str, replaced: Mapping[str, str]) -> str:
    """An example of the documentation, with places and words of the test's own."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text, f"{name} does not say {old}"
        text = text.replace(old, new)
    return text


def folder_for(path: Path, group: str) -> Path:
    """A folder where sockets get their folder's group, as the documentation says."""
    path.mkdir()
    shutil.chown(path, group=group)
    path.chmod(0o2750)
    return path


@dataclass(frozen=True, slots=True)
class Plan:
    """How the three are to be set up.

    Attributes:
        dovecot: the example for Dovecot.
        manager: the example for the Connection Manager.
        workers: processes of the front ends.
        patience: how long Postfix waits for an answer.
        policy_port, report_port: by TCP, where that is no loopback.
    """

    dovecot: str = "dovecot-policy.conf"
    manager: str = "postfix-dovecot.yaml"
    workers: int = 0
    patience: str = "1s"
    policy_port: int = field(default_factory=free_port)
    report_port: int = field(default_factory=free_port)

    @property
    def is_remote(self) -> bool:
        """Whether they talk by TCP and TLS."""
        return self.manager == "postfix-dovecot-remote.yaml"


@contextlib.contextmanager
def site(hosts: TwoHosts, plan: Plan) -> Iterator[Site]:
    """Connection Manager, Postfix and Dovecot on the server's host."""
    with (
        tempfile.TemporaryDirectory(prefix="netmail-site-") as name,
        contextlib.ExitStack() as stack,
    ):
        root = Path(name)
        root.chmod(0o755)
        policy = folder_for(root / "postfix", "postfix") / "policy"
        report = folder_for(root / "dovecot", "dovecot") / "report"
        (root / "word").write_text(WORD + "\n")
        (root / "key").write_text(KEY + "\n")
        (root / "addresses").write_text("".join(f"{user} {user}\n" for user in USERS))
        manager = stack.enter_context(_manager(hosts, plan, root, policy, report))

        def connects(port: int, greeting: bytes = b"") -> bool:
            try:
                with connect_from(
                    hosts.client, "198.18.0.7", (hosts.server_v4, port), 2
                ) as connection:
                    return connection.recv(3).startswith(greeting)
            except OSError:
                return False

        dovecot = stack.enter_context(
            dovecot_host(
                USERS,
                _dovecot_settings(hosts, plan, root, report, manager),
                listen=f"{hosts.server_v4} {hosts.server_v6}",
                prefix=hosts.on_server(),
                answers=connects,
            )
        )
        postfix = stack.enter_context(
            postfix_host(
                lambda _: _postfix_settings(hosts, plan, root, policy, dovecot),
                interfaces=f"{hosts.server_v4}, {hosts.server_v6}",
                prefix=hosts.on_server(),
                answers=lambda port: connects(port, b"220"),
            )
        )
        yield Site(plan, hosts, manager, postfix, dovecot)


def _manager(
    hosts: TwoHosts, plan: Plan, root: Path, policy: Path, report: Path
) -> contextlib.AbstractContextManager[RunningInstallation]:
    replaced = {
        "/etc/netmail/addresses": str(root / "addresses"),
        "/etc/netmail/trace-word": str(root / "word"),
        "/etc/netmail/dovecot-key": str(root / "key"),
    }
    if plan.is_remote:
        replaced["192.0.2.53:10040"] = f"{hosts.server_v4}:{plan.policy_port}"
        replaced["192.0.2.53:9878"] = f"{hosts.server_v4}:{plan.report_port}"
        replaced["192.0.2.25/32"] = f"{hosts.server_v4}/32"
        replaced["/etc/netmail/tls/server"] = str(_certificate(root, hosts.server_v4))
    else:
        replaced["/var/spool/postfix/netmail/policy"] = str(policy)
        replaced["/run/netmail/dovecot/report"] = str(report)
    text = example(plan.manager, replaced)

    def change(data: dict[str, Any]) -> None:
        data.clear()
        data.update(yaml.safe_load(text))
        # Nobody waits for a test's wrong passwords, and few are enough.
        (manager,) = data["connection_managers"]
        manager["guessing"] = {"address_deny_from": 6, "max_delay": 0}
        manager["front_end_workers"] = plan.workers
        carol = {"user": "carol@example.org", "context": "", **CAROLS_RATES}
        manager["rates"] = {"overrides": [carol]}

    return installation(root / "state", change=change, prefix=hosts.on_server())


def _certificate(root: Path, address: str) -> Path:
    """A certificate that its own issuer vouches for: NAME.pem and NAME.key."""
    name = root / "server"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=cm1", "-addext", f"subjectAltName=IP:{address}",
         "-out", f"{name}.pem", "-keyout", f"{name}.key"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return name


def _dovecot_settings(
    hosts: TwoHosts, plan: Plan, root: Path, report: Path, manager: RunningInstallation
) -> str:
    if plan.dovecot == "dovecot-policy.conf":
        url, more = f"http://127.0.0.1:{manager.ports.get(9878)}/", ""
        if plan.is_remote:
            url = f"https://{hosts.server_v4}:{plan.report_port}/"
            more = f"ssl_client_ca_file = {root}/server.pem\n"
        replaced = {"http://127.0.0.1:9878/": url, "X-API-Key: dovecot-key": f"X-API-Key: {KEY}"}
        return example(plan.dovecot, replaced) + more
    script = root / "post-login"
    script.write_text(
        example("dovecot-post-login.sh", {"/run/netmail/dovecot/report": str(report)})
    )
    script.chmod(0o755)
    return example(plan.dovecot, {"/usr/local/lib/netmail/post-login": str(script)})


def _postfix_settings(
    hosts: TwoHosts, plan: Plan, root: Path, policy: Path, dovecot: DovecotHost
) -> str:
    checks = root / "header_checks"
    checks.write_text(example("postfix-header_checks", {"trace-word (": f"{WORD} ("}))
    checks.chmod(0o600)
    where = f"inet:{hosts.server_v4}:{plan.policy_port}" if plan.is_remote else f"unix:{policy}"
    text = example(
        "postfix-main.cf",
        {
            "unix:netmail/policy, timeout=10s": f"{where}, timeout={plan.patience}",
            "/etc/postfix/netmail_header_checks": str(checks),
        },
    )
    # Mail for the world ends in the same maildir as everybody's.
    return f"""{text}
mynetworks = 127.0.0.0/8
default_transport = virtual
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dovecot.sasl}
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts(CLIENT) as made:
        yield made


@pytest.fixture(scope="module")
def server(hosts: TwoHosts) -> Iterator[Site]:
    with site(hosts, Plan()) as made:
        yield made


class TestAuthPolicy:
    def test_an_imap_login_opens_the_relay_for_its_address_alone(self, server: Site) -> None:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        assert not server.relays("198.18.0.8")
        (login,) = server.logins("list", "--user", "alice@example.org")
        assert login["user"] == "alice@example.org"
        assert login["protocol"] == "auth policy"
        assert login["client_address"] == "198.18.0.7"

    def test_a_pop3_login_opens_it_for_its_64(self, server: Site) -> None:
        assert not server.relays("2001:db8:0:7::1")
        assert server.pop3("2001:db8:0:7::1")
        assert server.relays("2001:db8:0:7::1")
        assert server.relays("2001:db8:0:7::2")
        assert not server.relays("2001:db8:0:8::1")

    def test_a_wrong_password_opens_nothing(self, server: Site) -> None:
        assert server.imap("198.18.0.9", word="wrong") == "NO"
        assert not server.pop3("198.18.0.9", word="wrong")
        assert not server.relays("198.18.0.9")

    def test_the_sender_must_be_the_users(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        assert not server.relays("198.18.0.7", "bob@example.org")
        assert server.imap("198.18.0.7", "bob@example.org") == "OK"
        assert server.relays("198.18.0.7", "bob@example.org")

    def test_the_header_names_the_user_and_a_forged_one_is_gone(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        forged = (
            "X-Auth-OK: mallory\r\nx-auth-ok: mallory\r\nX-AUTH-OK : mallory\r\n"
            "X-Auth-OK:\r\n mallory\r\nX-Auth-OK: guess mallory\r\nX-Auth-User: mallory\r\n"
        )
        code, subject = server.send("198.18.0.7", header=forged)
        assert code == 250
        header = server.arrived(subject)
        assert header.count(b"X-Auth-OK: alice@example.org\n") == 1
        assert b"mallory" not in header
        assert WORD.encode() not in header

    def test_a_stranger_reaches_our_users_and_his_forged_header_does_not(
        self, server: Site
    ) -> None:
        code, subject = server.send(
            "198.18.0.8", "carol@elsewhere.example", "dave@example.net",
            header="X-Auth-OK: alice@example.org\r\n",
        )  # fmt: skip
        assert code == 250
        assert b"x-auth-ok" not in server.arrived(subject).lower()

    def test_headers_inside_a_message_stay(self, server: Site) -> None:
        inner = uuid.uuid4().hex
        code, _ = server.send(
            "198.18.0.8", "carol@elsewhere.example", "dave@example.net",
            header=f"Subject: outer {inner}\r\nContent-Type: message/rfc822\r\n\r\n"
            "X-Auth-OK: kept\r\n",
        )  # fmt: skip
        assert code == 250
        eventually(lambda: any(inner.encode() in m for m in server.postfix.messages()))
        (message,) = [m for m in server.postfix.messages() if inner.encode() in m]
        assert b"X-Auth-OK: kept" in message

    def test_smtp_auth_is_named_and_vouches_for_no_address(self, server: Site) -> None:
        auth = ("alice@example.org", USERS["alice@example.org"])
        code, subject = server.send("198.18.0.10", auth=auth)
        assert code == 250
        assert b"X-Auth-OK: alice@example.org\n" in server.arrived(subject)
        assert not server.relays("198.18.0.10")

    def test_a_revoked_login_opens_nothing_until_the_next_one(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        assert server.logins("revoke", "--user", "alice@example.org")["revoked"] >= 1
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")

    def test_a_known_sender_may_send_so_much_and_no_more(self, server: Site) -> None:
        carol = "carol@example.org"
        assert server.imap("198.18.0.9", carol) == "OK"
        assert server.relays("198.18.0.9", carol)
        assert server.relays("198.18.0.9", carol)
        assert server.has_sent_too_much("198.18.0.9", carol)
        auth = (carol, USERS[carol])
        assert server.send("198.18.0.9", carol, auth=auth)[0] == 250
        assert server.has_sent_too_much("198.18.0.9", carol, auth)
        # Whoever else is there goes on.
        assert server.imap("198.18.0.9") == "OK"
        assert server.relays("198.18.0.9")

    def test_who_guesses_is_refused_even_the_right_password(self, server: Site) -> None:
        for _ in range(6):
            assert server.imap("198.18.0.11", "bob@example.org", "wrong") == "NO"
        assert server.imap("198.18.0.11", "bob@example.org") == "NO"
        assert not server.relays("198.18.0.11", "bob@example.org")
        assert server.imap("198.18.0.10", "bob@example.org") == "OK"

    def test_without_the_connection_manager_everybody_comes_again_and_local_mail_goes_on(
        self, server: Site
    ) -> None:
        assert server.imap("198.18.0.7") == "OK"
        (pid,) = server.manager.pids("netmail_connmgr")
        os.kill(pid, signal.SIGSTOP)
        try:
            code, _ = server.send("198.18.0.7")
            assert code in LATER
            code, _ = server.send("198.18.0.8")
            assert code in LATER
            code, _ = server.send("198.18.0.8", "x@elsewhere.example", "dave@example.net")
            assert code == 250
            assert server.imap("198.18.0.7") == "OK"  # mail can still be read
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: server.send("198.18.0.7")[0] == 250)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.send("198.18.0.7")[0] == LOGIN_FIRST[0], 60)
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")


def test_while_nobody_can_say_postfix_is_told_to_defer(hosts: TwoHosts) -> None:
    """The worker that Postfix asks is there, the process that owns the table stands still."""
    with site(hosts, Plan(workers=1, patience="20s")) as server:
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        worker = server.manager.pids("netmail_connmgr", "--worker")
        (owner,) = set(server.manager.pids("netmail_connmgr")) - set(worker)
        os.kill(owner, signal.SIGSTOP)
        try:
            code, text = server.send("198.18.0.7")
            assert code in LATER, text
            assert "problem talking to server" not in server.postfix.log_text()
            code, text = server.send("198.18.0.8", "x@elsewhere.example", "dave@example.net")
            assert code == 250, text
        finally:
            os.kill(owner, signal.SIGCONT)
        eventually(lambda: server.send("198.18.0.7")[0] == 250)


def test_a_post_login_script_does_it_for_dovecots_without_a_policy(hosts: TwoHosts) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs the Debian package curl")
    with site(hosts, Plan("dovecot-post-login.conf")) as server:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        eventually(lambda: server.send("198.18.0.7")[0] == 250)
        assert server.pop3("198.18.0.8", "bob@example.org")
        eventually(lambda: server.relays("198.18.0.8", "bob@example.org"))
        assert server.imap("198.18.0.9", word="wrong") == "NO"
        assert not server.relays("198.18.0.9")


def test_from_other_hosts_postfix_asks_by_tcp_and_dovecot_tells_by_tls(hosts: TwoHosts) -> None:
    with site(hosts, Plan(manager="postfix-dovecot-remote.yaml")) as server:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        # The client's host is none of those that may ask or tell.
        for port in server.plan.policy_port, server.plan.report_port:
            with (
                server.connect("198.18.0.8", port) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(b"request=smtpd_access_policy\n\n")
                assert connection.recv(1) == b""
