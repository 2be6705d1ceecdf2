"""The command line without agents: configuration, versions, exit codes, the table."""

import json
import re
from pathlib import Path

import pytest
import yaml
from netmail_cli.demo import DEMO_CONFIG
from netmail_cli.exit_codes import ExitCode
from netmail_cli.main import app
from netmail_cli.processes import process_specs
from netmail_cli.state import RunRecord, StateLock, issue_certificates
from netmail_cli.table import print_services, service_rows
from netmail_common.config import ConfigError, load_config
from netmail_common.roles import Role
from rich.console import Console
from typer.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("_elsewhere")


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def netmail(*argv: str) -> Result:
    return CliRunner().invoke(app, list(argv))


def test_the_version_is_printed() -> None:
    assert netmail("version").stdout.startswith("netmail 0.")
    assert set(json.loads(netmail("version", "--json").stdout)) == {"netmail", "python"}


def test_the_demonstrations_configuration_is_good_and_the_default() -> None:
    done = netmail("config", "check", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"config": str(DEMO_CONFIG), "good": True}


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_a_configuration_may_be_json_or_toml(kind: str) -> None:
    text = '{"messaging_servers": []}' if kind == "json" else "messaging_servers = []"
    Path(f"config.{kind}").write_text(text)
    done = netmail("config", "check", "--config", f"config.{kind}")
    assert done.exit_code == ExitCode.CONFIG
    assert "there are no messaging_servers and no connection_managers" in done.stderr
    if kind == "json":
        good = json.dumps(yaml.safe_load(DEMO_CONFIG.read_text()))
        Path("good.json").write_text(good)
        assert netmail("config", "check", "--config", "good.json").exit_code == 0


def test_a_connection_manager_may_stand_alone() -> None:
    path = Path("config.yaml")
    path.write_text('connection_managers: [{name: cm1, listen: ["127.0.0.1:0"]}]')
    assert netmail("config", "check", "--config", str(path)).exit_code == 0


def test_the_schema_knows_every_key_of_the_demonstration() -> None:
    schema = json.loads(netmail("config", "schema").stdout)
    data = yaml.safe_load(DEMO_CONFIG.read_text())
    assert set(data) <= set(schema["properties"])
    assert schema["properties"]["installation"]["description"].startswith("Trust domain")


def test_the_effective_configuration_has_defaults_and_no_passwords() -> None:
    for argv in ([], ["--json"]):
        done = netmail("config", "show", "--state", "elsewhere", *argv)
        assert done.exit_code == 0
        assert "wonderland" not in done.stdout
        data = yaml.safe_load(done.stdout)
        assert data["connection_managers"][0]["login_lifetime"] == 900
        assert data["messaging_servers"][0]["tls"]["certificate"] == (
            "elsewhere/tls/listeners/mail1.pem"
        )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("messaging_server: []", "messaging_server: unknown key"),
        ("messaging_servers: []", "messaging_servers"),
        ("[", "config.yaml"),
    ],
)
def test_a_bad_configuration_is_named_and_has_its_exit_code(text: str, word: str) -> None:
    path = Path("config.yaml")
    path.write_text(text)
    done = netmail("config", "check", "--config", str(path))
    assert done.exit_code == ExitCode.CONFIG
    assert word in done.stderr
    assert netmail("run", "--config", str(path)).exit_code == ExitCode.CONFIG
    done = netmail("config", "check", "--json", "--config", str(path))
    assert json.loads(done.stderr)["exit_code"] == ExitCode.CONFIG


def test_a_context_held_twice_stops_the_start_and_names_both() -> None:
    data = yaml.safe_load(DEMO_CONFIG.read_text())
    data["messaging_servers"][1]["contexts"][0]["name"] = "users.demo"
    Path("config.yaml").write_text(yaml.safe_dump(data))
    done = netmail("run", "--config", "config.yaml")
    assert done.exit_code == ExitCode.CONFIG
    assert all(word in done.stderr for word in ("users.demo", "mail1", "mail2"))


def test_commands_without_certificates_say_so() -> None:
    done = netmail("user", "list", "--state", "nowhere")
    assert done.exit_code == ExitCode.CONFIG
    assert "nowhere" in done.stderr


def test_agents_that_do_not_answer_have_their_exit_code() -> None:
    data = yaml.safe_load(DEMO_CONFIG.read_text())
    data["connection_managers"][0]["listen"] = ["127.0.0.1:1"]
    Path("config.yaml").write_text(yaml.safe_dump(data))
    issue_certificates(load_config(Path("config.yaml")))
    done = netmail("login", "list", "--config", "config.yaml")
    assert done.exit_code == ExitCode.UNAVAILABLE


def test_the_last_run_in_a_state_directory_is_what_commands_mean() -> None:
    Path("var").mkdir()
    other = Path("other.yaml")
    other.write_text(DEMO_CONFIG.read_text())
    RunRecord(str(other.absolute()), 1).write(Path("var"))
    done = netmail("config", "check", "--json")
    assert json.loads(done.stdout)["config"] == str(other.absolute())


def test_two_runs_do_not_share_a_state_directory() -> None:
    lock = StateLock(Path("var"))
    with pytest.raises(ConfigError, match="another netmail run"):
        StateLock(Path("var"))
    lock.release()
    StateLock(Path("var")).release()


def test_the_local_ca_makes_every_certificate_that_is_needed() -> None:
    installation = load_config(DEMO_CONFIG)
    issue_certificates(installation)
    made = {path.name for path in Path("var/tls").iterdir()}
    assert made == {
        "ca.pem",
        "listeners",
        *(f"{role.value}.{kind}" for role in Role for kind in ("pem", "key")),
    }
    assert {path.stem for path in Path("var/tls/listeners").iterdir()} == {"mail1", "mail2"}


def test_certificates_that_the_configuration_names_are_left_alone() -> None:
    data = yaml.safe_load(DEMO_CONFIG.read_text())
    data["grpc"] = {"certificates": "given"}
    data["messaging_servers"][0]["tls"] = {"certificate": "a.pem", "key": "a.key"}
    Path("config.yaml").write_text(yaml.safe_dump(data))
    issue_certificates(load_config(Path("config.yaml")))
    assert not Path("given").exists()
    assert not Path("a.pem").exists()
    assert {path.stem for path in Path("var/tls/listeners").iterdir()} == {"mail2"}


def test_storage_and_logins_start_before_who_uses_them() -> None:
    specs = process_specs(load_config(DEMO_CONFIG), DEMO_CONFIG)
    stages = {spec.name: spec.stage for spec in specs}
    assert set(stages) == {
        "connmgr main",
        "nmap mail1",
        "nmap mail2",
        "sink world",
        "smtp deliver mail1",
        "smtp deliver mail2",
        "smtp serve mail1",
        "smtp serve mail2",
        "pop_imap mail1",
        "pop_imap mail2",
    }
    assert stages["nmap mail1"] < stages["smtp deliver mail1"] < stages["smtp serve mail1"]
    assert stages["connmgr main"] < stages["pop_imap mail1"]
    assert not any("wonderland" in word for spec in specs for word in spec.argv)


def test_the_tables_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    installation = load_config(DEMO_CONFIG)
    print_services(installation, "netmail", Console(width=40))
    printed = capsys.readouterr().out
    for service, address, command in service_rows(installation, "netmail"):
        line = next(line for line in printed.splitlines() if line.startswith(f"{service}  "))
        assert address in line
        assert line.endswith(command)


def test_passwords_are_in_the_table_only_if_nobody_else_can_reach_the_listeners() -> None:
    data = yaml.safe_load(DEMO_CONFIG.read_text())
    shown = service_rows(load_config(DEMO_CONFIG), "netmail")
    assert any("alice:wonderland" in row[2] for row in shown)
    data["connection_managers"][0]["loopback_grants"] = False
    data["messaging_servers"][0]["smtp"]["listeners"][0]["listen"] = ["0.0.0.0:2525"]
    Path("config.yaml").write_text(yaml.safe_dump(data))
    hidden = service_rows(load_config(Path("config.yaml")), "netmail")
    assert not any("wonderland" in row[2] for row in hidden)


def test_the_configurations_in_the_documents_are_good() -> None:
    blocks = [
        block
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if "messaging_servers:" in block and "connection_managers:" in block
    ]
    assert blocks
    for block in blocks:
        Path("documented.yaml").write_text(block)
        done = netmail("config", "check", "--config", "documented.yaml")
        assert done.exit_code == 0, done.stderr


def test_every_netmail_command_in_the_documents_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    mentioned = set(
        re.findall(r"^(?:\$ )?(?:\.venv/bin/)?netmail ([a-z]+(?: [a-z]+)?)", text, re.MULTILINE)
    )
    mentioned |= set(re.findall(r"`netmail ([a-z]+(?: [a-z]+)?)", text))
    assert mentioned
    for words in mentioned:
        argv = words.split()
        group = netmail(argv[0], "--help")
        assert group.exit_code == 0, words
        if len(argv) == 2 and "COMMAND" in group.stdout:
            assert netmail(*argv, "--help").exit_code == 0, words
