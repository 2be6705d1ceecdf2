"""`netmail backup` and `netmail restore` with NMAP agents of this process."""

import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from netmail_cli.backup_archive import Archive, ArchiveError
from netmail_cli.exit_codes import ExitCode
from netmail_cli.main import app
from typer.testing import CliRunner, Result

from tests.cli.nmap_agents import agents, settings

Netmail = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path, certificates: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path / "state", certificates)))
    return path


@pytest.fixture
def netmail(config: Path) -> Netmail:
    def run(*argv: str) -> Result:
        return CliRunner().invoke(app, [*argv, "--config", str(config)])

    return run


def names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM users ORDER BY name")]


def test_everything_comes_back_from_one_file(
    netmail: Netmail, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "all.tar"
    state = tmp_path / "state"
    with agents(config):
        netmail("user", "add", "dora", "--context", "users.demo", "--generate")
        before = json.loads(netmail("user", "show", "dora", "--json").stdout)
        done = netmail("backup", str(file), "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["stores"] == ["mail1", "mail2"]
        assert file.stat().st_mode & 0o777 == 0o600
        assert netmail("backup", str(file)).exit_code == ExitCode.EXISTS
        in_use = netmail("restore", str(file), "--replace")
        assert in_use.exit_code == ExitCode.FAILED
        assert "in use by another process" in in_use.stderr
        netmail("user", "remove", "dora", "--yes")
    refused = netmail("restore", str(file))
    assert refused.exit_code == ExitCode.FAILED
    assert "not empty" in refused.stderr
    assert names(state / "nmap-mail1.db") == ["alice"]
    restored = netmail("restore", str(file), "--replace", "--json")
    assert restored.exit_code == 0, restored.stderr
    stores = json.loads(restored.stdout)["stores"]
    assert [(one["server"], one["users"]) for one in stores] == [("mail1", 2), ("mail2", 1)]
    assert names(Path(stores[0]["kept"])) == ["alice"]
    with agents(config):
        after = json.loads(netmail("user", "show", "dora", "--json").stdout)
        assert after["credential_epoch"] > before["credential_epoch"]
        assert after["addresses"] == before["addresses"]


def test_one_store_of_several_and_names_with_the_time(
    netmail: Netmail, config: Path, tmp_path: Path
) -> None:
    with agents(config):
        assert netmail("backup", str(tmp_path / "b-{time}.tar"), "--server", "mail2").exit_code == 0
        assert netmail("backup", "x.tar", "--server", "mail9").exit_code == ExitCode.NOT_FOUND
        streamed = netmail("backup", "-", "--server", "mail2").stdout_bytes
    (file,) = tmp_path.glob("b-2*Z.tar")
    (tmp_path / "streamed.tar").write_bytes(streamed)
    assert [s.server for s in Archive.open(tmp_path / "streamed.tar").stores] == ["mail2"]
    assert [store.server for store in Archive.open(file).stores] == ["mail2"]
    assert netmail("restore", str(file), "--server", "mail1").exit_code == ExitCode.NOT_FOUND
    for left in (tmp_path / "state").glob("nmap-mail2.db*"):
        left.unlink()
    assert netmail("restore", str(file)).exit_code == 0
    assert names(tmp_path / "state" / "nmap-mail2.db") == ["carol"]


def test_a_file_that_is_cut_off_or_changed_is_refused_and_changes_nothing(
    netmail: Netmail, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "all.tar"
    with agents(config):
        assert netmail("backup", str(file)).exit_code == 0
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["mail1.db", "mail2.db", "manifest.json"]
        manifest_at = archive.getmember("manifest.json").offset
    database = (tmp_path / "state" / "nmap-mail1.db").read_bytes()
    damaged = bytearray(whole)
    damaged[manifest_at // 3] ^= 1
    for content, words in (
        (whole[:manifest_at], "manifest is missing"),
        (whole[: manifest_at // 3], "not a backup, or it is damaged"),
        (bytes(damaged), "not what was written"),
        (b"", "not a backup"),
        (b"From somebody\n" * 100, "not a backup"),
        (whole.replace(b'"format": 1', b'"format": 2'), "has form 2"),
    ):
        file.write_bytes(content)
        with pytest.raises(ArchiveError, match=words):
            Archive.open(file)
        done = netmail("restore", str(file), "--replace")
        assert done.exit_code == ExitCode.FAILED
        assert words in done.stderr
    assert (tmp_path / "state" / "nmap-mail1.db").read_bytes() == database


def test_a_backup_that_fails_leaves_no_file(netmail: Netmail, tmp_path: Path) -> None:
    done = netmail("backup", str(tmp_path / "x.tar"))
    assert done.exit_code == ExitCode.UNAVAILABLE
    assert not list(tmp_path.glob("x.tar*"))
    missing = netmail("backup", str(tmp_path / "nowhere" / "x.tar"))
    assert missing.exit_code == ExitCode.FAILED
