"""What alerts are about, made in an installation that runs."""

import imaplib
import json
import poplib
import smtplib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.support import USERS, Outside, Release
from tests.cluster.support.load import REMOTE
from tests.cluster.support.release import DOMAIN, merged
from tests.cluster.support.stages import pop3_login

UDP_PORT = 689
AUDIT = "/var/lib/netmail/audit"
_CONFIG = "netmail.yaml"
_HUNG_WATCHERS = (Path(__file__).parent / "hung_watchers.py").read_text(encoding="utf-8")
_TROUBLES = (OSError, EOFError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto)


@dataclass(slots=True)
class ConfigurationFile:
    """The installation's ConfigMap."""

    release: Release

    def text(self) -> str:
        """The file."""
        return str(self.release.get("configmap", "netmail-config")["data"][_CONFIG])

    def put(self, text: str) -> None:
        """Writes the file; a change of the pods makes the kubelet bring it at once."""
        data = {"data": {_CONFIG: text}}
        self.release.kubectl("patch", "configmap", "netmail-config", "-p", json.dumps(data))
        self.release.kubectl("annotate", "pods", "--all", "--overwrite", f"changed={time.time()}")

    def change_manager(self, **keys: Any) -> None:
        """Sets keys of the Connection Manager's part; None takes one out."""
        whole = yaml.safe_load(self.text())
        (manager,) = whole["connection_managers"]
        changed = {k: v for k, v in merged(manager, keys).items() if v is not None}
        self.put(yaml.safe_dump({**whole, "connection_managers": [changed]}))


@contextmanager
def again_and_again(*works: Callable[[], object], pause: float = 1.0) -> Iterator[None]:
    """Does each of them, whatever comes of it, until the block ends."""
    end = threading.Event()

    def loop(work: Callable[[], object]) -> None:
        while not end.is_set():
            with suppress(*_TROUBLES):
                work()
            end.wait(pause)

    threads = [threading.Thread(target=loop, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(60)


def log_in(release: Release, host: Outside, user: str = "alice") -> None:
    """In and out by POP3."""
    pop3_login(host, (release.address("pop-imap"), 995), user)


def hang_watchers(release: Release, watchers: int, thousands: int) -> list[str]:
    """As agents that stop to read while logins come in crowds; how their streams ended."""
    said = release.kubectl(
        "exec", "-i", release.workload("pop-imap"), "-c", "pop-imap", "--",
        *("python3", "-", str(watchers), str(thousands)), stdin=_HUNG_WATCHERS,
    )  # fmt: skip
    ends: list[str] = json.loads(said)
    return ends


def submission(release: Release, host: Outside, user: str = "alice") -> smtplib.SMTP:
    """A client of the submission port that is logged in."""
    client = host.smtp(release.address("smtp"), 587, starttls=True)
    client.login(user, USERS[user])
    return client


def submit(release: Release, host: Outside, number: int) -> None:
    """Messages to a remote recipient, by one connection."""
    client = submission(release, host)
    for _ in range(number):
        client.sendmail(f"alice@{DOMAIN}", [REMOTE[0]], message())
    client.quit()


def message() -> str:
    """One."""
    return f"From: alice@{DOMAIN}\r\nTo: {REMOTE[0]}\r\nSubject: cause\r\n\r\nx\r\n"


def change_password(release: Release, user: str) -> None:
    """To what it is; it ends his logins all the same."""
    release.kubectl(
        "exec", "-i", f"deploy/{release.name}-cli", "--",
        *("netmail", "user", "passwd", user, "--password-stdin"), stdin=f"{USERS[user]}\n",
    )  # fmt: skip


def ask_to_relay(release: Release, host: Outside) -> None:
    """As a stranger, or as who has logged in before."""
    client = host.smtp(release.address("smtp"))
    try:
        client.mail(f"alice@{DOMAIN}")
        client.rcpt(REMOTE[0])
        client.quit()
    finally:
        client.close()


def exceed_a_rate(release: Release, host: Outside, recipients: int) -> None:
    """Bob asks for more recipients than he may have."""
    client = submission(release, host, "bob")
    try:
        client.mail(f"bob@{DOMAIN}")
        replies = [client.rcpt(f"eve{n}@example.net")[0] for n in range(recipients)]
    finally:
        client.close()
    assert any(code >= 400 for code in replies), replies


def guess(release: Release, hosts: Sequence[Outside], clients: int, seconds: float) -> int:
    """Wrong passwords by many clients at once, as fast as they are answered; how many."""
    end = time.monotonic() + seconds
    address = release.address("pop-imap")

    def one(number: int) -> int:
        tried = 0
        while time.monotonic() < end:
            with suppress(*_TROUBLES):
                client = hosts[number % len(hosts)].imap(address, timeout=60)
                try:
                    while time.monotonic() < end:
                        tried += 1
                        with suppress(imaplib.IMAP4.error):
                            client.login(f"nobody{number}", "guess")
                        if client.state == "LOGOUT":
                            break
                        client.noop()
                finally:
                    client.shutdown()
        return tried

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(one, range(clients)))


def send_garbage(release: Release, host: Outside, datagrams: int) -> None:
    """To UDP port 689, from an agent's address."""
    address = release.address("front-ends")
    with host.datagrams() as sock:
        for number in range(datagrams):
            sock.sendto(b"\xff\xff\xff", (address, UDP_PORT))
            if number % 20 == 0:
                time.sleep(0.02)


@contextmanager
def half_sent(release: Release, host: Outside, number: int) -> Iterator[list[smtplib.SMTP]]:
    """Clients whose recipient was accepted, and whose message has not come yet."""
    clients: list[smtplib.SMTP] = []
    try:
        for _ in range(number):
            client = submission(release, host)
            clients.append(client)
            client.mail(f"alice@{DOMAIN}")
            assert client.rcpt(REMOTE[0])[0] == 250
        yield clients
    finally:
        for client in clients:
            client.close()


def send_the_rest(clients: Sequence[smtplib.SMTP]) -> list[int]:
    """What the messages are answered with, those of some at once."""

    def one(client: smtplib.SMTP) -> int:
        try:
            return client.data(message())[0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        except (OSError, smtplib.SMTPException):
            return 0

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(one, clients))


@contextmanager
def audit_log_read_only(release: Release) -> Iterator[None]:
    """The files of the Connection Manager's audit log cannot be written, on the node's disk."""
    claim = release.get("pvc", "state-netmail-connmgr-0")["spec"]["volumeName"]
    source = release.cluster.get("pv", claim)["spec"]
    folder = (source.get("local") or source.get("hostPath"))["path"]
    node = release.ready_pods("connmgr")[0].node.removeprefix("node")

    def mode(bits: str) -> None:
        release.cluster.do("node", "exec", node, "sh", "-c", f"chmod {bits} {folder}/audit/*")

    mode("0444")
    try:
        yield
    finally:
        mode("0600")


@contextmanager
def no_leave_to_learn_addresses(release: Release) -> Iterator[None]:
    """The Connection Manager may not read the cluster's API; it must start for it to matter."""
    name = f"{release.namespace}-netmail-connmgr"
    binding = release.cluster.get("clusterrolebinding", name)
    release.cluster.kubectl("delete", "clusterrolebinding", name)
    try:
        yield
    finally:
        meta = binding["metadata"]
        kept = {key: meta[key] for key in ("name", "labels", "annotations") if key in meta}
        release.cluster.apply({**binding, "metadata": kept})


@contextmanager
def slow_disk(release: Release, component: str, writes: int) -> Iterator[None]:
    """A component's disk takes so many writes a second, by its control group (cgroup v1)."""

    def limit(a_second: int) -> None:
        for pod in release.get("pods", "-l", release.selector(component))["items"]:
            file = f"*/pod{pod['metadata']['uid']}/*/blkio.throttle.write_iops_device"
            release.cluster.do(
                *("node", "exec", pod["spec"]["nodeName"].removeprefix("node"), "sh", "-ec"),
                f"for file in $(find /sys/fs/cgroup/blkio -path '{file}'); do"
                f' echo "$(stat --format %Hd:%Ld /) {a_second}" > $file; done',
            )

    limit(writes)
    try:
        yield
    finally:
        limit(0)
