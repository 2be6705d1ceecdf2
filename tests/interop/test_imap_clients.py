"""IMAP clients of other makers against a whole installation."""

import asyncio
import imaplib
import os
import pty
import select
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import aioimaplib
import imapclient
import pytest

from tests.interop.mail_users import MailUser, ca_file, deliver, make_user
from tests.support.installation import RunningInstallation


@pytest.fixture(scope="module")
def user(running: RunningInstallation) -> MailUser:
    return make_user(running, "imapper")


@pytest.fixture
def inbox(running: RunningInstallation, user: MailUser) -> Iterator[list[str]]:
    """Two new messages in an INBOX that was empty; their subjects."""
    yield [deliver(running, user) for _ in range(2)]
    client = imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20)
    client.login(user.name, user.password)
    client.select()
    client.store("1:*", "+FLAGS.SILENT", "\\Deleted")
    client.close()
    client.logout()


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*argv: str | Path, good: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [str(word) for word in argv], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in good, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_imaplib_reads_flags_and_removes(
    tls: str, running: RunningInstallation, user: MailUser, inbox: list[str]
) -> None:
    context = ssl.create_default_context(cafile=str(ca_file(running)))
    client: imaplib.IMAP4
    if tls == "implicit":
        client = imaplib.IMAP4_SSL("localhost", running.port(2993), ssl_context=context, timeout=20)
    else:
        client = imaplib.IMAP4("localhost", running.port(2143), timeout=20)
    if tls == "starttls":
        client.starttls(context)
    client.login(user.address, user.password)
    assert client.select()[1] == [b"2"]
    _, data = client.fetch("1", "(RFC822)")
    assert isinstance(data[0], tuple)
    assert message_from_bytes(data[0][1])["Subject"] == inbox[0]
    assert client.search(None, "SUBJECT", f'"{inbox[1]}"')[1] == [b"2"]
    client.store("1", "+FLAGS", "\\Deleted")
    assert client.expunge()[1] == [b"1"]
    assert client.logout()[0] == "BYE"


def test_imapclient_uses_what_it_finds(
    running: RunningInstallation, user: MailUser, inbox: list[str]
) -> None:
    context = ssl.create_default_context(cafile=str(ca_file(running)))
    with imapclient.IMAPClient(
        "localhost", running.port(2993), ssl_context=context, timeout=20
    ) as client:
        client.login(user.name, user.password)
        assert client.namespace().personal == (("", "/"),)
        assert client.find_special_folder(b"\\Sent") == "Sent"
        selected = client.select_folder("INBOX")
        assert selected[b"EXISTS"] == 2
        uids = client.search(["UNSEEN"])
        fetched = client.fetch(uids, ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "RFC822.SIZE"])
        subjects = [fetched[uid][b"ENVELOPE"].subject.decode() for uid in uids]
        assert subjects == inbox
        assert fetched[uids[0]][b"BODYSTRUCTURE"][0].lower() == b"text"
        client.create_folder("Büro/Ablage")
        client.move(uids[:1], "Büro/Ablage")
        assert client.folder_status("Büro/Ablage", ["MESSAGES"]) == {b"MESSAGES": 1}
        client.idle()
        subject = deliver(running, user)
        assert (2, b"EXISTS") in client.idle_check(timeout=10)
        client.idle_done()
        assert client.search(["SUBJECT", subject])
        client.delete_folder("Büro/Ablage")
        assert client.get_quota_root("INBOX")


async def test_aioimaplib_idles_and_fetches(
    running: RunningInstallation, user: MailUser, inbox: list[str]
) -> None:
    client = aioimaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20)
    await client.wait_hello_from_server()
    await client.login(user.name, user.password)
    await client.select("INBOX")
    idle = await client.idle_start(timeout=20)
    await asyncio.to_thread(deliver, running, user)
    pushed: list[bytes] = []
    while b"3 EXISTS" not in pushed:
        pushed += await client.wait_server_push(timeout=10)
    client.idle_done()
    await asyncio.wait_for(idle, 10)
    response = await client.fetch("1:3", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    assert response.result == "OK"
    assert any(inbox[1].encode() in bytes(line) for line in response.lines)
    await client.logout()


@pytest.mark.parametrize("scheme", ["imap", "imap-starttls", "imaps"])
def test_curl_lists_searches_fetches_and_appends(
    scheme: str, running: RunningInstallation, user: MailUser, inbox: list[str], tmp_path: Path
) -> None:
    port = running.port(2993 if scheme == "imaps" else 2143)
    url = f"{'imaps' if scheme == 'imaps' else 'imap'}://localhost:{port}"
    tls = ["--ssl-reqd"] if scheme == "imap-starttls" else []
    curl = [need("curl"), "--silent", "--show-error", "--cacert", str(ca_file(running)), *tls,
            "--user", f"{user.name}:{user.password}"]  # fmt: skip
    assert '"/" INBOX' in run(*curl, url + "/")
    assert run(*curl, f"{url}/INBOX?SUBJECT%20{inbox[1]}".replace("interop ", "")).strip() != ""
    run(*curl, "--output", tmp_path / "message", f"{url}/INBOX/;MAILINDEX=1")
    octets = (tmp_path / "message").read_bytes()
    assert f"Subject: {inbox[0]}\r\n".encode() in octets
    run(*curl, "--upload-file", tmp_path / "message", f"{url}/INBOX")
    assert "* STATUS INBOX (MESSAGES 3)" in run(
        *curl, "--request", "STATUS INBOX (MESSAGES)", url + "/"
    )


def test_mbsync_mirrors_both_ways(
    running: RunningInstallation, user: MailUser, inbox: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mail").mkdir()
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f"""
IMAPAccount ours
Host localhost
Port {running.port(2143)}
User {user.name}
Pass {user.password}
SSLType STARTTLS
CertificateFile {ca_file(running)}

IMAPStore far
Account ours

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns INBOX Archive
Create Both
Expunge Both
SyncState *
""",
        encoding="utf-8",
    )
    mbsync = [need("mbsync"), "--config", str(config), "all"]
    run(*mbsync)
    messages = sorted((tmp_path / "mail/INBOX/new").iterdir())
    assert len(messages) == 2
    texts = [path.read_bytes() for path in messages]
    assert all(any(subject.encode() in text for text in texts) for subject in inbox)
    # Near to far: one is read, one is removed, one is new in another mailbox.
    messages[0].rename(tmp_path / "mail/INBOX/cur" / (messages[0].name.split(":")[0] + ":2,S"))
    messages[1].unlink()
    (tmp_path / "mail/Archive/new/1.new").write_bytes(b"Subject: from near\n\nbody\n")
    run(*mbsync)
    client = imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20)
    client.login(user.name, user.password)
    assert client.select()[1] == [b"1"]
    assert client.search(None, "SEEN")[1] == [b"1"]
    client.select("Archive")
    assert client.search(None, "SUBJECT", '"from near"')[1] == [b"1"]
    client.store("1:*", "+FLAGS", "\\Deleted")
    client.close()
    client.logout()
    run(*mbsync)


def test_fetchmail_fetches_and_removes(
    running: RunningInstallation, user: MailUser, inbox: list[str], tmp_path: Path
) -> None:
    box = tmp_path / "box"
    config = tmp_path / "fetchmailrc"
    config.write_text(
        f"poll localhost service {running.port(2143)} protocol imap\n"
        f"  user '{user.name}' password '{user.password}' sslproto 'TLS1.2+' sslcertck"
        f" sslcertfile '{ca_file(running)}' fetchall nokeep\n"
        f'  mda "cat >> {box}"\n',
        encoding="utf-8",
    )
    config.chmod(0o600)
    run(need("fetchmail"), "--fetchmailrc", config, "--pidfile", tmp_path / "pid", "--nosyslog")
    octets = box.read_bytes()
    assert all(subject.encode() in octets for subject in inbox)
    run(need("fetchmail"), "--fetchmailrc", config, "--pidfile", tmp_path / "pid", "--nosyslog",
        good=(1,))  # fmt: skip


def on_a_terminal(argv: list[str], env: dict[str, str], seconds: float) -> str:
    """Runs a program that wants a terminal; gives what it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, env)
    shown = b""
    readable = select.poll()  # `select` knows descriptors below 1024 only
    readable.register(terminal, select.POLLIN)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if readable.poll(200):
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
    else:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = shown.decode(errors="replace")
    assert os.waitstatus_to_exitcode(status) == 0, text[-3000:]
    return text


def test_mutt_reads_copies_and_removes(
    running: RunningInstallation, user: MailUser, inbox: list[str], tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    (tmp_path / "muttrc").write_text(
        f"""
set folder="imap://{user.name}@localhost:{running.port(2143)}/"
set spoolfile="+INBOX"
set imap_pass="{user.password}"
set ssl_starttls=yes ssl_force_tls=yes certificate_file="{ca_file(running)}"
set mbox_type=mbox quit=yes delete=yes move=no confirmappend=no confirmcreate=no copy=no
set sleep_time=0 wait_key=no save_empty=yes
push "<first-entry><copy-message><kill-line>{saved}<enter><next-entry><copy-message><kill-line>\
{saved}<enter><first-entry><delete-message><sync-mailbox><quit>"
""",
        encoding="utf-8",
    )
    env = {**os.environ, "HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    on_a_terminal([need("mutt"), "-n", "-F", str(tmp_path / "muttrc")], env, 40)
    octets = saved.read_bytes()
    assert all(subject.encode() in octets for subject in inbox)
    client = imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20)
    client.login(user.name, user.password)
    assert client.select()[1] == [b"1"]
    client.logout()


def test_a_user_of_the_other_messaging_server_reads_his_mail_here(
    running: RunningInstallation,
) -> None:
    client = imaplib.IMAP4("127.0.0.1", running.port(2143), timeout=20)
    client.login("carol", "branch-office")
    client.append("Drafts", "", "", b"Subject: far away\r\n\r\nbody\r\n")
    client.select("Drafts")
    assert client.search(None, "SUBJECT", '"far away"')[1] == [b"1"]
    client.store("1:*", "+FLAGS", "\\Deleted")
    client.close()
    client.logout()
