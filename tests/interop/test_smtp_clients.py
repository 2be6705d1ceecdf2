"""SMTP clients of other makers send through a whole installation."""

import asyncio
import shutil
import smtplib
import ssl
import subprocess
from pathlib import Path

import aiosmtplib
import pytest

from tests.interop.mail_users import MailUser, at_sink, ca_file, make_user, message
from tests.support.installation import RunningInstallation

RECIPIENT = "friend@example.net"


@pytest.fixture(scope="module")
def user(running: RunningInstallation) -> MailUser:
    return make_user(running, "sender")


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*argv: str | Path, octets: bytes = b"") -> str:
    done = subprocess.run(
        [str(word) for word in argv], input=octets, capture_output=True, timeout=60, check=False
    )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, text
    return text


def carries_the_user(octets: bytes, user: MailUser) -> bool:
    """The trace names the user who sent it."""
    return f"X-Auth-OK: {user.name}".encode() in octets


@pytest.mark.parametrize("way", ["plain", "starttls", "implicit"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl(
    way: str, mechanism: str, running: RunningInstallation, user: MailUser, tmp_path: Path
) -> None:
    curl = need("curl")
    subject, octets = message(user.address, RECIPIENT)
    (tmp_path / "message").write_bytes(octets)
    port = running.port(2465 if way == "implicit" else 2587)
    run(
        curl, "--silent", "--show-error", "--cacert", ca_file(running),
        *(["--ssl-reqd"] if way == "starttls" else []),
        "--login-options", f"AUTH={mechanism}", "--user", f"{user.name}:{user.password}",
        "--mail-from", user.address, "--mail-rcpt", RECIPIENT,
        "--upload-file", tmp_path / "message",
        f"{'smtps' if way == 'implicit' else 'smtp'}://localhost:{port}",
    )  # fmt: skip
    received = at_sink(running, subject)
    assert carries_the_user(received, user)
    assert received.endswith(b"A line\r\n.\r\n..two dots\r\n.leading dot\r\nlast line\r\n")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_swaks(mechanism: str, tls: str, running: RunningInstallation, user: MailUser) -> None:
    swaks = need("swaks")
    subject, octets = message(user.address, RECIPIENT)
    port = running.port(2465 if tls == "implicit" else 2587)
    run(
        swaks, "--server", "127.0.0.1", "--port", str(port), "--from", user.address,
        "--to", RECIPIENT, "--auth", mechanism, "--auth-user", user.name,
        "--auth-password", user.password, "--data", "-",
        *{"none": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[tls],
        octets=octets,
    )  # fmt: skip
    assert carries_the_user(at_sink(running, subject), user)


def test_swaks_without_auth_is_told_what_to_do(
    running: RunningInstallation, user: MailUser
) -> None:
    swaks = need("swaks")
    done = subprocess.run(
        [swaks, "--server", "127.0.0.1", "--port", str(running.port(2525)),
         "--local-interface", "127.0.0.77", "--from", user.address, "--to", RECIPIENT],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "550 5.7.1" in done.stdout
    assert "POP3" in done.stdout


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256"])
@pytest.mark.parametrize("tls", ["off", "starttls", "implicit"])
def test_msmtp(
    mechanism: str, tls: str, running: RunningInstallation, user: MailUser, tmp_path: Path
) -> None:
    msmtp = need("msmtp")
    subject, octets = message(user.address, RECIPIENT)
    port = running.port(2465 if tls == "implicit" else 2587)
    config = tmp_path / "msmtprc"
    config.write_text(
        f"account default\nhost localhost\nport {port}\nfrom {user.address}\n"
        f"auth {mechanism}\nuser {user.name}\npassword {user.password}\n"
        f"tls {'off' if tls == 'off' else 'on'}\n"
        f"tls_starttls {'on' if tls == 'starttls' else 'off'}\n"
        + (f"tls_trust_file {ca_file(running)}\n" if tls != "off" else "")
    )
    config.chmod(0o600)
    run(msmtp, f"--file={config}", RECIPIENT, octets=octets)
    assert carries_the_user(at_sink(running, subject), user)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_smtplib(tls: str, running: RunningInstallation, user: MailUser) -> None:
    context = ssl.create_default_context(cafile=str(ca_file(running)))
    subject, octets = message(user.address, RECIPIENT)
    if tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            "localhost", running.port(2465), timeout=20, context=context
        )
    else:
        client = smtplib.SMTP("localhost", running.port(2587), timeout=20)
        client.starttls(context=context)
    with client:
        client.login(user.name, user.password)
        assert client.sendmail(user.address, [RECIPIENT], octets) == {}
    assert carries_the_user(at_sink(running, subject), user)


def test_aiosmtplib_sends_many_at_once(running: RunningInstallation, user: MailUser) -> None:
    context = ssl.create_default_context(cafile=str(ca_file(running)))
    mails = [message(user.address, RECIPIENT) for _ in range(5)]

    async def send(octets: bytes) -> None:
        async with aiosmtplib.SMTP(
            hostname="localhost",
            port=running.port(2587),
            start_tls=True,
            tls_context=context,
            timeout=20,
        ) as client:
            await client.login(user.name, user.password)
            await client.sendmail(user.address, [RECIPIENT], octets)

    async def send_all() -> None:
        await asyncio.gather(*(send(octets) for _, octets in mails))

    asyncio.run(send_all())
    for subject, _ in mails:
        assert carries_the_user(at_sink(running, subject), user)
