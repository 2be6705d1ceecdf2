"""`netmail export` and `netmail import` with an NMAP agent of this process."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from netmail_cli.admin import administrator
from netmail_cli.commands.users import find_user
from netmail_cli.exit_codes import ExitCode
from netmail_cli.mailbox_client import MailboxClient
from netmail_cli.mailfiles.message import FileMessage
from netmail_cli.main import app
from typer.testing import CliRunner, Result

from tests.cli.nmap_agents import agents, settings

T = TypeVar("T")
Netmail = Callable[..., Result]

MESSAGES = [
    FileMessage("INBOX", ("\\Seen",), 1_700_000_000, b"Subject: one\r\n\r\nFrom here\r\n"),
    FileMessage("INBOX", (), 1_600_000_000, b"Subject: two\r\n\r\n>From there, and no end"),
    FileMessage("INBOX", (), 1_600_000_000, b"Subject: two\r\n\r\n>From there, and no end"),
    FileMessage("Sent", ("\\Flagged", "$Forwarded", "Work"), 0, b"A: b\n\nlone LF\n"),
    FileMessage("Työ/a.b", ("\\Deleted", "\\Draft"), 5, b"A: b\r\n\r\n" + b"large\r\n" * 200_000),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Path]:
    """NMAP agents that run."""
    folder = tmp_path_factory.mktemp("transfer")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder / "state", certificates)))
    with agents(path):
        yield path


@pytest.fixture
def netmail(config: Path) -> Netmail:
    def run(*argv: str) -> Result:
        return CliRunner().invoke(app, [*argv, "--config", str(config)])

    return run


@pytest.fixture
def user(netmail: Netmail) -> Callable[[str], str]:
    def make(name: str) -> str:
        done = netmail("user", "add", name, "--context", "users.demo", "--generate")
        assert done.exit_code == 0, done.stderr
        return name

    return make


def with_client(
    config: Path, user: str, work: Callable[[MailboxClient], Coroutine[Any, Any, T]]
) -> T:
    async def run() -> T:
        async with administrator(config, None) as admin:
            server, found = await find_user(admin, user, None)
            return await work(MailboxClient(admin.mailboxes(server), found.id))

    return asyncio.run(run())


def fill(config: Path, user: str) -> None:
    async def work(client: MailboxClient) -> None:
        await client.names()
        for name in ("Työ", "Työ/a.b", "Empty"):
            await client.create(name)
        await client.subscribe("Työ/a.b")
        for message in MESSAGES:
            await client.append(message, message.mailbox, message.flags)

    with_client(config, user, work)


def mail_of(config: Path, user: str) -> dict[str, list[tuple[frozenset[str], int, bytes]]]:
    """Flags, date and octets of every message, by mailbox."""

    async def work(client: MailboxClient) -> dict[str, list[tuple[frozenset[str], int, bytes]]]:
        found = {}
        for name in await client.names():
            opened = await client.open(name)
            known = {one.uid: one for one in opened.messages}
            found[name] = [
                (frozenset(known[uid].flags), known[uid].date, data)
                async for uid, data in client.bodies(opened.id, list(known))
            ]
        return found

    return with_client(config, user, work)


def subscriptions(config: Path, user: str) -> list[str]:
    return with_client(config, user, lambda client: client.subscriptions())


def test_a_maildir_takes_everything_and_gives_it_back_once(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    fill(config, user("from1"))
    root = str(tmp_path / "mail")
    done = json.loads(netmail("export", "from1", "--maildir", root, "--json").stdout)
    assert (done["written"], done["present"]) == (5, 0)
    again = json.loads(netmail("export", "from1", "--maildir", root, "--json").stdout)
    assert (again["written"], again["present"]) == (0, 5)
    first = netmail("import", user("to1"), "--maildir", root, "--json")
    assert json.loads(first.stdout) == {"imported": 5, "present": 0, "problems": []}
    assert mail_of(config, "to1") == mail_of(config, "from1")
    assert subscriptions(config, "to1") == subscriptions(config, "from1")
    second = netmail("import", "to1", "--maildir", root, "--skip-existing", "--json")
    assert json.loads(second.stdout) == {"imported": 0, "present": 5, "problems": []}
    assert mail_of(config, "to1") == mail_of(config, "from1")


def test_an_mbox_takes_every_mailbox_and_an_import_that_was_stopped_goes_on(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    fill(config, user("from2"))
    file = tmp_path / "mail.mbox"
    assert netmail("export", "from2", "--mbox", str(file)).exit_code == 0
    assert netmail("export", "from2", "--mbox", str(file)).exit_code == ExitCode.EXISTS
    cut = tmp_path / "cut.mbox"
    octets = file.read_bytes()
    cut.write_bytes(octets[: octets.rindex(b"From netmail-export") + 1000])
    stopped = netmail("import", user("to2"), "--mbox", str(cut))
    assert stopped.exit_code == ExitCode.FAILED
    assert "message 5: is cut off" in stopped.stderr
    done = netmail("import", "to2", "--mbox", str(file), "--skip-existing", "--json")
    assert json.loads(done.stdout) == {"imported": 1, "present": 4, "problems": []}
    given = {name: mail for name, mail in mail_of(config, "from2").items() if mail}
    assert {name: mail for name, mail in mail_of(config, "to2").items() if mail} == given


def test_chosen_mailboxes_and_everything_into_one(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    fill(config, user("from3"))
    root = tmp_path / "mail"
    assert netmail("export", "from3", "--maildir", str(root), "--mailbox", "Sent").exit_code == 0
    assert [path.name for path in root.glob(".*") if path.is_dir()] == [".Sent"]
    missing = netmail("export", "from3", "--maildir", str(root), "--mailbox", "Sint")
    assert missing.exit_code == ExitCode.NOT_FOUND
    done = netmail("import", user("to3"), "--maildir", str(root), "--into", "Old/Mail")
    assert done.exit_code == 0, done.stderr
    assert len(mail_of(config, "to3")["Old/Mail"]) == 1
    missing = netmail("import", "to3", "--maildir", str(root), "--mailbox", "Drafts")
    assert missing.exit_code == ExitCode.NOT_FOUND
    assert netmail("import", "to3").exit_code == ExitCode.USAGE
    assert netmail("export", "to3", "--mbox", "a", "--maildir", "b").exit_code == ExitCode.USAGE


def test_lines_that_end_in_lf_are_asked_about(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "foreign.mbox"
    file.write_bytes(b"From a Wed Nov 25 17:00:00 2026\nA: b\n\ntext\n\n")
    asked = netmail("import", user("to4"), "--mbox", str(file))
    assert asked.exit_code == ExitCode.USAGE
    assert "--line-ends" in asked.stderr
    assert netmail("import", "to4", "--mbox", str(file), "--line-ends", "crlf").exit_code == 0
    assert netmail("import", "to4", "--mbox", str(file), "--line-ends", "keep").exit_code == 0
    bodies = [data for _, _, data in mail_of(config, "to4")["INBOX"]]
    assert bodies == [b"A: b\r\n\r\ntext\r\n", b"A: b\n\ntext\n"]


def test_what_cannot_go_in_is_named_and_the_rest_goes_in(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    root = tmp_path / "mail"
    (root / "cur").mkdir(parents=True)
    (root / "cur" / "1:2,a").write_bytes(b"A: b\r\n\r\n")
    (root / "dovecot-keywords").write_text("0 no(atom\n")
    (root / (".x" + "y" * 250) / "cur").mkdir(parents=True)
    (root / ".A.B" / "cur").mkdir(parents=True)
    (root / ".A.B" / "cur" / "2").symlink_to("/etc/passwd")
    done = netmail("import", user("to5"), "--maildir", str(root))
    assert done.exit_code == ExitCode.FAILED
    assert "a keyword is none" in done.stderr
    assert "Too many levels of symbolic links" in done.stderr
    assert "to5: 1 messages imported" in done.stdout
    assert netmail("import", "to5", "--maildir", str(tmp_path)).exit_code == ExitCode.FAILED
    assert netmail("import", "to5", "--mbox", str(tmp_path / "nothing")).exit_code == 1
    assert netmail("import", "to5", "--mbox", str(root / "cur" / "1:2,a")).exit_code == 1


def test_a_full_mailbox_stops_an_import_and_says_how_to_go_on(
    netmail: Netmail, config: Path, user: Callable[[str], str], tmp_path: Path
) -> None:
    fill(config, user("from6"))
    file = str(tmp_path / "mail.mbox")
    netmail("export", "from6", "--mbox", file)
    netmail("user", "set", user("to6"), "--quota", "1000")
    done = netmail("import", "to6", "--mbox", file)
    assert done.exit_code == ExitCode.FAILED
    assert "the mailbox is full, after 4 messages" in done.stderr
    assert "--skip-existing" in done.stderr
    netmail("user", "set", "to6", "--quota", "0")
    assert netmail("import", "to6", "--mbox", file, "--skip-existing").exit_code == 0
    assert sum(map(len, mail_of(config, "to6").values())) == 5
