"""POP3 clients of other makers fetch mail from a whole installation."""

import os
import poplib
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mail_users import MailUser, ca_file, deliver, make_user
from tests.support.installation import RunningInstallation


@pytest.fixture(scope="module")
def user(running: RunningInstallation) -> MailUser:
    return make_user(running, "popper")


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*argv: str | Path, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def is_empty(running: RunningInstallation, user: MailUser) -> bool:
    client = poplib.POP3("127.0.0.1", running.port(2110), timeout=20)
    client.user(user.name)
    client.pass_(user.password)
    messages, _ = client.stat()
    client.quit()
    return messages == 0


def test_poplib_plain_stls_and_implicit_tls(running: RunningInstallation, user: MailUser) -> None:
    context = ssl.create_default_context(cafile=str(ca_file(running)))
    subject = deliver(running, user)
    plain = poplib.POP3("localhost", running.port(2110), timeout=20)
    plain.stls(context)
    assert "UIDL" in plain.capa()
    plain.user(user.name)
    plain.pass_(user.password)
    _, lines, _ = plain.retr(1)
    assert f"Subject: {subject}".encode() in lines
    assert lines[-5:] == [b"A line", b".", b"..two dots", b".leading dot", b"last line"]
    assert plain.quit().startswith(b"+OK")
    secure = poplib.POP3_SSL("localhost", running.port(2995), timeout=20, context=context)
    secure.user(user.address)
    secure.pass_(user.password)
    assert len(secure.list()[1]) == 1
    secure.dele(1)
    secure.quit()
    assert is_empty(running, user)


@pytest.mark.parametrize("scheme", ["pop3", "pop3-starttls", "pop3s"])
def test_curl_reads_and_removes(
    scheme: str, running: RunningInstallation, user: MailUser, tmp_path: Path
) -> None:
    curl = need("curl")
    subject = deliver(running, user)
    port = running.port(2995 if scheme == "pop3s" else 2110)
    url = f"{'pop3s' if scheme == 'pop3s' else 'pop3'}://localhost:{port}/"
    tls = ["--cacert", str(ca_file(running))]
    if scheme == "pop3-starttls":
        tls.append("--ssl-reqd")
    common = [curl, "--silent", "--show-error", *tls, "--user", f"{user.name}:{user.password}"]
    assert run(*common, url).startswith("1 ")
    run(*common, "--output", tmp_path / "message", url + "1")
    octets = (tmp_path / "message").read_bytes()
    assert f"Subject: {subject}\r\n".encode() in octets
    assert octets.endswith(b"A line\r\n.\r\n..two dots\r\n.leading dot\r\nlast line\r\n")
    run(*common, "--request", "DELE", "--head", url + "1")
    assert is_empty(running, user)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl_authenticates_with_every_mechanism_it_has(
    mechanism: str, running: RunningInstallation, user: MailUser
) -> None:
    done = subprocess.run(
        [need("curl"), "--silent", "--show-error", "--verbose",
         "--login-options", f"AUTH={mechanism}", "--user", f"{user.name}:{user.password}",
         f"pop3://127.0.0.1:{running.port(2110)}/"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"AUTH {mechanism}" in done.stderr


@pytest.mark.parametrize("tls", ["none", "stls", "implicit"])
def test_fetchmail_fetches_everything(
    tls: str, running: RunningInstallation, user: MailUser, tmp_path: Path
) -> None:
    fetchmail = need("fetchmail")
    subjects = [deliver(running, user) for _ in range(2)]
    port = running.port(2995 if tls == "implicit" else 2110)
    options = {
        "none": "sslproto ''",
        "stls": f"sslproto 'TLS1.2+' sslcertck sslcertfile '{ca_file(running)}'",
        "implicit": f"ssl sslcertck sslcertfile '{ca_file(running)}'",
    }[tls]
    box = tmp_path / "box"
    rc = tmp_path / "fetchmailrc"
    rc.write_text(
        f"poll localhost protocol pop3 service {port} uidl\n"
        f"  username '{user.name}' password '{user.password}' {options}\n"
        f"  nokeep fetchall mda '/bin/sh -c \"cat >> {box}\"'\n"
    )
    rc.chmod(0o700)
    run(
        fetchmail, "--fetchmailrc", rc, "--idfile", tmp_path / "ids", "--pidfile",
        tmp_path / "pid", "--nosyslog",
    )  # fmt: skip
    text = box.read_text()
    assert all(f"Subject: {subject}\n" in text for subject in subjects)
    assert text.count("\n.\n..two dots\n.leading dot\n") == 2
    assert is_empty(running, user)


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder of the user nobody: getmail does not deliver as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("cur", "new", "tmp"):
            (folder / "box" / part).mkdir(parents=True)
        yield folder


def own_by_nobody(folder: Path) -> dict[str, object]:
    """Options that run a program as nobody, if we are root."""
    if os.getuid() != 0:
        return {}
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    return {"user": "nobody", "group": "nogroup", "env": {"HOME": str(folder), "PATH": "/usr/bin"}}


@pytest.mark.parametrize("secure", [False, True])
def test_getmail_retrieves_once_and_removes(
    secure: bool, running: RunningInstallation, user: MailUser, nobodys_folder: Path
) -> None:
    getmail = need("getmail")
    subject = deliver(running, user)
    shutil.copy(ca_file(running), nobodys_folder / "ca.pem")
    kind = "SimplePOP3SSLRetriever" if secure else "SimplePOP3Retriever"
    (nobodys_folder / "getmailrc").write_text(
        f"[retriever]\ntype = {kind}\nserver = localhost\n"
        f"port = {running.port(2995 if secure else 2110)}\n"
        f"username = {user.name}\npassword = {user.password}\n"
        + (f"ca_certs = {nobodys_folder}/ca.pem\n" if secure else "")
        + f"[destination]\ntype = Maildir\npath = {nobodys_folder}/box/\n"
        "[options]\ndelete = true\nread_all = false\ndelivered_to = false\nreceived = false\n"
    )
    options = own_by_nobody(nobodys_folder)
    for _ in range(2):
        run(getmail, "--getmaildir", nobodys_folder, **options)
    (found,) = (nobodys_folder / "box" / "new").iterdir()
    assert f"Subject: {subject}\n".encode() in found.read_bytes().replace(b"\r\n", b"\n")
    assert is_empty(running, user)


@pytest.mark.parametrize("authenticator", ["user", "plain"])
def test_mutt_fetches_by_pop(
    authenticator: str, running: RunningInstallation, user: MailUser, tmp_path: Path
) -> None:
    mutt, script = need("mutt"), need("script")
    subject = deliver(running, user)
    (tmp_path / "spool").touch()
    (tmp_path / "muttrc").write_text(
        f'set pop_host="pop://{user.name}:{user.password}@127.0.0.1:{running.port(2110)}/"\n'
        f'set spoolfile="{tmp_path}/spool" mbox_type=mbox folder="{tmp_path}"\n'
        "set pop_delete=yes ssl_starttls=no ssl_force_tls=no move=no quit=yes\n"
        f'set header_cache="" record="" certificate_file="{tmp_path}/certificates"\n'
        f"set pop_authenticators={authenticator}\n"
    )
    command = f"{mutt} -n -F {tmp_path}/muttrc -e 'push <fetch-mail><sync-mailbox><quit>y'"
    run(
        script, "--quiet", "--return", "--command", command, "/dev/null",
        stdin=subprocess.DEVNULL, env={"TERM": "xterm", "HOME": str(tmp_path), "PATH": "/usr/bin"},
    )  # fmt: skip
    assert f"Subject: {subject}\n" in (tmp_path / "spool").read_text()
    assert is_empty(running, user)
