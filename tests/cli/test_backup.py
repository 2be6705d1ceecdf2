"""`netmail backup` and `netmail restore` with NMAP agents of this process."""

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from netmail_cli.admin import one_address
from netmail_cli.exit_codes import ExitCode
from netmail_cli.main import app
from netmail_common.backup_archive import Archive, ArchiveError
from typer.testing import CliRunner, Result

from tests.cli.nmap_agents import agents, settings
from tests.support.postgresql import postgresql

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


def test_only_the_newest_are_kept(netmail: Netmail, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    old = [f"b-2020010{day}T000000Z.tar" for day in range(1, 4)]
    others = ["b-2020.tar", "c-20200101T000000Z.tar", "b-20200101T000000Z.tar.asc"]
    unfinished = ["b-20200101T000001Z.tar.part", "b-20200101T000002Z.tar.part"]
    for name in (*old, *others, *unfinished):
        (folder / name).write_bytes(b"")
    os.utime(folder / unfinished[0], (0, 0))
    with agents(config):
        done = netmail("backup", str(folder / "b-{time}.tar"), "--keep", "2", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["removed"] == old[:2]
    newest = Path(json.loads(done.stdout)["file"]).name
    left = {one.name for one in folder.iterdir()}
    assert left == {old[2], newest, *others, unfinished[1]}
    refused = netmail("backup", str(folder / "fixed.tar"), "--keep", "2")
    assert refused.exit_code == ExitCode.USAGE
    failed = netmail("backup", str(folder / "b-{time}.tar"), "--keep", "1")
    assert failed.exit_code != ExitCode.OK
    assert {one.name for one in folder.iterdir()} == left


@pytest.mark.server
def test_a_store_on_postgresql_comes_back_by_the_command_and_by_the_agent_alone(
    tmp_path: Path, certificates: Path
) -> None:
    file = tmp_path / "all.tar"
    path = tmp_path / "config.yaml"
    data: dict[str, Any] = settings(tmp_path / "state", certificates)
    stores = [one["nmap"].setdefault("store", {}) for one in data["messaging_servers"]]

    def run(*argv: str) -> Result:
        return CliRunner().invoke(app, [*argv, "--config", str(path)])

    with postgresql() as server:
        for store in stores:
            store["url"] = server.create()
        path.write_text(yaml.safe_dump(data))
        with agents(path):
            run("user", "add", "dora", "--context", "users.demo", "--generate")
            assert run("backup", str(file)).exit_code == 0
            refused = run("restore", str(file), "--replace")
            assert refused.exit_code == ExitCode.FAILED
            assert "in use by NMAP agents" in refused.stderr
        again = run("restore", str(file), "--replace", "--server", "mail1", "--json")
        assert again.exit_code == 0, again.stderr
        (one,) = json.loads(again.stdout)["stores"]
        assert (one["users"], one["kept"][:16]) == (2, "schema before_20")
        stores[0]["url"] = server.create()
        path.write_text(yaml.safe_dump(data))
        alone = [sys.executable, "-m", "netmail_nmap.restore", "--config", str(path)]
        done = subprocess.run(
            [*alone, "--server", "mail1", "--archive", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"users": 2, "messages": 0, "queued": 0, "kept": None}
        missing = [*alone, "--server", "mail1", "--archive", str(tmp_path / "config.yaml")]
        assert subprocess.run(missing, capture_output=True, check=False).returncode == 1
        with agents(path):
            assert run("user", "show", "dora").exit_code == 0


async def test_calls_that_belong_together_go_to_one_of_the_addresses_behind_a_name() -> None:
    assert await one_address("localhost:7710") in {"127.0.0.1:7710", "[::1]:7710"}
    assert await one_address("dns:///127.0.0.1:7710") == "127.0.0.1:7710"
    assert await one_address("[::1]:7710") == "[::1]:7710"
    for other in ("unix:/run/nmap", "xds:///nmap", "nowhere.invalid:7710", "xds:///nmap:7710"):
        assert await one_address(other) == other


def test_a_backup_that_fails_leaves_no_file(netmail: Netmail, tmp_path: Path) -> None:
    done = netmail("backup", str(tmp_path / "x.tar"))
    assert done.exit_code == ExitCode.UNAVAILABLE
    assert not list(tmp_path.glob("x.tar*"))
    missing = netmail("backup", str(tmp_path / "nowhere" / "x.tar"))
    assert missing.exit_code == ExitCode.FAILED
