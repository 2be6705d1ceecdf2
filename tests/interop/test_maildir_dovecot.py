"""Our Maildir++ is read by Dovecot, and what Dovecot makes of one is read by us."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from netmail_cli.mailfiles.maildir import (
    MaildirFolder,
    maildir_mailboxes,
    read_folder,
    read_subscriptions,
    write_subscriptions,
)
from netmail_cli.mailfiles.message import FileMessage

pytestmark = pytest.mark.skipif(shutil.which("doveadm") is None, reason="needs dovecot-imapd")

_CONFIG = r"""
base_dir = {root}/run
log_path = {root}/log
protocols =
mail_location = maildir:{root}/mail
first_valid_uid = 1
mail_plugins = listescape
plugin {{
  listescape_char = "\\"
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
"""

MESSAGES = [
    FileMessage("INBOX", ("\\Seen", "$Work"), 1_000_000_000, b"Subject: one\r\n\r\nFrom x\r\n"),
    FileMessage(
        "Työ/a.b & c\\d",
        ("\\Flagged", "\\Answered", "Later", "$Forwarded"),
        1_100_000_000,
        b"Subject: two\r\n\r\nhello\r\n",
    ),
]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that `nobody` can reach."""
    with tempfile.TemporaryDirectory(prefix="netmail-maildir-") as made:
        root = Path(made)
        root.chmod(0o755)
        for name in ("run", "home"):
            (root / name).mkdir()
        (root / "conf").write_text(_CONFIG.format(root=root))
        yield root


def doveadm(root: Path, *argv: str) -> str:
    """Runs it as nobody: Dovecot reads no mail as root."""
    prefix = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "nobody:nogroup", str(root)], check=True)
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    done = subprocess.run(
        [*prefix, "env", f"HOME={root}/home", "USER=nobody", "doveadm", "-c", str(root / "conf"),
         *argv],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dovecot_reads_our_maildir_and_we_read_what_it_made_of_it(root: Path) -> None:
    maildir = root / "mail"
    for uid, message in enumerate(MESSAGES, 1):
        folder = MaildirFolder(maildir, message.mailbox)
        base = folder.base(message.date or 0, uid, 7, len(message.data))
        folder.add(base, message)
        folder.finish()
    deep = MESSAGES[1].mailbox
    write_subscriptions(maildir, ["INBOX", deep])

    assert set(doveadm(root, "mailbox", "list").splitlines()) >= {"INBOX", deep}
    assert doveadm(root, "mailbox", "list", "-s").splitlines() == ["INBOX", deep]
    fields = "flags date.received.unixtime size.physical"
    first = doveadm(root, "-f", "tab", "fetch", fields, "mailbox", "INBOX").splitlines()[1]
    assert set(first.split("\t")[0].split()) - {"\\Recent"} == {"\\Seen", "$Work"}
    assert first.split("\t")[1:] == ["1000000000", str(len(MESSAGES[0].data))]
    second = doveadm(root, "-f", "tab", "fetch", fields, "mailbox", deep).splitlines()[1]
    assert set(second.split("\t")[0].split()) - {"\\Recent"} == set(MESSAGES[1].flags)

    doveadm(root, "flags", "add", "Fresh \\Draft", "mailbox", "INBOX", "all")
    doveadm(root, "mailbox", "create", "-s", "Neu/x\\y")
    found, problems = maildir_mailboxes(maildir)
    assert not problems
    assert {"INBOX", deep, "Neu/x\\y"} <= {name for name, _ in found}
    assert set(read_subscriptions(maildir) or ()) == {"INBOX", deep, "Neu/x\\y"}
    (inbox,) = [folder for name, folder in found if name == "INBOX"]
    (read,) = read_folder("INBOX", inbox, limit=1000)
    assert isinstance(read, FileMessage)
    assert set(read.flags) == {"\\Seen", "\\Draft", "$Work", "Fresh"}
    assert (read.data, read.date) == (MESSAGES[0].data, MESSAGES[0].date)
