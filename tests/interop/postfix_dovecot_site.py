"""A mail server of Debian's Postfix and Dovecot, set up by the documentation's own examples."""

import contextlib
import imaplib
import json
import poplib
import shutil
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

import yaml

from tests.interop.dovecot_host import DovecotHost, dovecot_host
from tests.interop.postfix_host import PostfixHost, postfix_host
from tests.support.installation import ROOT, RunningInstallation, free_port, installation
from tests.support.namespaces import TwoHosts
from tests.support.other_network import connect_from

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
