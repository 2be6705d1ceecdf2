"""Users and mail for the clients of other makers."""

import smtplib
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from tests.support.installation import ROOT, RunningInstallation

DOTS = "A line\n.\n..two dots\n.leading dot\nlast line\n"


@dataclass(frozen=True, slots=True)
class MailUser:
    """A user of mail1 of his own test module."""

    name: str
    password: str

    @property
    def address(self) -> str:
        """His mail address."""
        return f"{self.name}@example.org"


def make_user(running: RunningInstallation, name: str) -> MailUser:
    """Makes a user by the `netmail` command."""
    user = MailUser(name, "correct-horse")
    subprocess.run(
        [sys.executable, "-m", "netmail_cli", "user", "add", name, "--context", "users.demo",
         "--password-stdin", "--config", str(running.config_path), "--state", str(running.state)],
        input=user.password + "\n", check=True, capture_output=True, text=True, timeout=60,
        cwd=ROOT,
    )  # fmt: skip
    return user


def message(sender: str, recipient: str, body: str = DOTS) -> tuple[str, bytes]:
    """A message and its subject, which no other has."""
    subject = f"interop {uuid.uuid4().hex}"
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, recipient, subject
    mail.set_content(body)
    return subject, mail.as_bytes().replace(b"\n", b"\r\n")


def deliver(running: RunningInstallation, user: MailUser) -> str:
    """Sends the user a message from outside and gives its subject."""
    subject, octets = message("outside@example.com", user.address)
    with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=20) as client:
        client.sendmail("outside@example.com", [user.address], octets)
    return subject


def ca_file(running: RunningInstallation) -> Path:
    """The local CA's certificate, which the listeners' certificate is from."""
    return running.state / "tls" / "ca.pem"


def at_sink(running: RunningInstallation, subject: str, within: float = 30.0) -> bytes:
    """The message of that subject as the remote world got it."""
    folder = running.state / "demo-sink"
    deadline = time.monotonic() + within
    while True:
        for path in sorted(folder.glob("*.eml")):
            octets = path.read_bytes()
            if subject.encode() in octets:
                return octets
        assert time.monotonic() < deadline, f"{subject} never reached the sink"
        time.sleep(0.1)
