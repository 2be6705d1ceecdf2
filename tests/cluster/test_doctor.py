"""Doctor, asked in the cluster and from outside, about the objects and addresses that are there."""

import json
import poplib
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.cluster.support import Outside, Release
from tests.cluster.support.doors import Doors
from tests.cluster.support.stages import pop3_login
from tests.cluster.test_addresses import traffic_policy
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

LISTENERS = {"mx", "submission", "submissions", "pop3", "pop3s", "imap", "imaps"}


def doctor(installed: Release) -> tuple[int, dict[str, Any]]:
    """Its exit code and what it says in JSON."""
    done = subprocess.run(
        [
            *installed.cluster._command("kubectl"), "-n", installed.namespace, "exec",
            f"deploy/{installed.name}-cli", "--", "netmail", "doctor", "--json",
        ],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def from_outside(host: Outside, token: str) -> tuple[int, list[dict[str, Any]]]:
    done = host.run(
        "env", f"PYTHONPATH={':'.join(filter(None, sys.path))}",
        sys.executable, "-m", "netmail_cli", "doctor", "--from-outside", token, "--json",
        timeout=180,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def about(said: dict[str, Any], word: str) -> list[dict[str, Any]]:
    return [one for one in said["findings"] if word in one["about"]]


def test_it_finds_nothing_bad_in_the_default_installation(installed: Release) -> None:
    code, said = doctor(installed)
    assert [one for one in said["findings"] if one["level"] == "bad"] == []
    assert code == 0
    services = about(said, "Service netmail-")
    assert {one["about"].split(",")[0].removeprefix("mail ") for one in services} == LISTENERS
    assert all("externalTrafficPolicy Local" in one["said"] for one in services)
    assert next(one["said"] for one in about(said, "gRPC")).startswith("mutual TLS")
    assert [one["said"] for one in about(said, "NMAP agent")] == ["answers"]


def test_a_person_outside_is_told_which_address_arrives(
    installed: Release, hosts: list[Outside]
) -> None:
    _, said = doctor(installed)
    code, answers = from_outside(hosts[0], said["tokens"]["mail"])
    assert {one["listener"]: one["arrived"] for one in answers} == dict.fromkeys(
        LISTENERS, hosts[0].address
    )
    assert all(one["grants"] for one in answers)
    assert code == 0


def test_where_nodes_replace_the_address_it_says_so_in_and_outside(
    installed: Release, hosts: list[Outside]
) -> None:
    with traffic_policy(installed, "Cluster"):
        code, said = doctor(installed)
        assert code == 1
        services = about(said, "Service netmail-")
        assert {one["level"] for one in services} == {"bad"}
        assert all("set externalTrafficPolicy: Local" in one["do"] for one in services)
        nodes = {
            address["address"]
            for node in installed.cluster.get("nodes")["items"]
            for address in node["status"]["addresses"]
        }
        pods = {pod["status"]["podIP"] for pod in installed.get("pods")["items"]}

        def replaced() -> list[dict[str, Any]]:
            time.sleep(0.5)
            code, answers = from_outside(hosts[1], said["tokens"]["mail"])
            arrived = {one["arrived"] for one in answers}
            return answers if code == 1 and arrived.isdisjoint({hosts[1].address, ""}) else []

        answers = eventually(replaced, 60)
        # A node has several addresses: its own, and one on the pods' side.
        assert not pods & {one["arrived"] for one in answers}
        assert nodes & {one["arrived"] for one in answers} or all(
            "private" in one["said"] for one in answers
        )
        assert not any(one["grants"] for one in answers)


def test_it_tells_where_clients_came_from(installed: Release, hosts: list[Outside]) -> None:
    doors = Doors.of(installed)

    def seen() -> bool:
        with suppress(OSError, poplib.error_proto):  # the path may still be changing back
            pop3_login(hosts[2], doors.pop3s, "alice")
        _, said = doctor(installed)
        (finding,) = about(said, "pop3s, last hour")
        return hosts[2].address in finding["clients"]

    eventually(seen, 120)
