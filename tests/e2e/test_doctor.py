"""Doctor on one machine: what it looks at there, and what the listeners tell who asks."""

import json
from typing import Any

from tests.support.installation import RunningInstallation
from tests.support.waiting import eventually


def doctor(running: RunningInstallation, *options: str) -> tuple[int, Any, str]:
    done = running.netmail("doctor", "--json", *options, check=False)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_it_looks_at_agents_listeners_and_the_addresses_that_arrived(
    running: RunningInstallation,
) -> None:
    code, said, _ = doctor(running)
    assert code == 0
    answering = [one["about"] for one in said["findings"] if one["said"] == "answers"]
    assert sum(one.startswith("NMAP agent") for one in answering) == len(said["tokens"])
    assert any(one.startswith("Connection Manager") for one in answering)
    # The demonstration's loopback_grants lets whoever comes through a tunnel relay.
    assert any("loopback_grants" in one["said"] for one in said["findings"])


def test_each_listener_tells_which_address_arrived_to_who_has_the_token(
    running: RunningInstallation,
) -> None:
    _, said, _ = doctor(running)
    for token in said["tokens"].values():
        code, answers, _ = doctor(running, "--from-outside", token, "--host", "127.0.0.1")
        assert {one["arrived"] for one in answers} == {"127.0.0.1"}, answers
        assert {one["said"] for one in answers} == {"grants"}
        assert code == 0

    def counted() -> bool:
        _, later, _ = doctor(running)
        lines = [one["said"] for one in later["findings"] if "last hour" in one["about"]]
        return bool(lines) and all("127.0.0.1" in line for line in lines)

    eventually(counted, 90)


def test_a_token_that_is_none_is_refused(running: RunningInstallation) -> None:
    code, _, error = doctor(running, "--from-outside", "nonsense")
    assert code == 2
    assert "no token of netmail doctor" in error
