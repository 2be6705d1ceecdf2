"""Backups by the CronJob, and one of them put in the place of the store."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.cluster.support.doors import Doors
from tests.cluster.support.outside import Outside
from tests.cluster.support.release import Release, default_values
from tests.cluster.support.stages import imap_login, in_mailbox, receive, subject_of

_WITHIN = 180


def backup_values() -> dict[str, Any]:
    """The chart's values that turn backups on."""
    image = default_values()["cli"]["image"]
    return {"nmap": {"backup": {"enabled": True, "persistence": {"size": "1Gi"}, "image": image}}}


def backup_now(release: Release, name: str) -> str:
    """Runs the CronJob's Job once; gives the file's name."""
    release.kubectl("create", "job", name, "--from=cronjob/netmail-nmap-backup")
    release.kubectl("wait", f"job/{name}", "--for=condition=complete", f"--timeout={_WITHIN}s",
                    timeout=_WITHIN + 10)  # fmt: skip
    said = release.kubectl("logs", f"job/{name}")
    match = re.search(r"/backups/(netmail-\d{8}T\d{6}Z\.tar): mail, (\d+) octets", said)
    assert match, said
    print(f"\n{match[0]}")
    return match[1]


def lose_and_restore(
    release: Release, hosts: Sequence[Outside], install: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Takes a backup, loses a user and gets more mail, restores: all is as it was before.

    Args:
        install: with these values over those that backups are on with; waits until agents serve,
            as far as there are any.

    Returns: what the Job that restored said.
    """
    before = receive(hosts[0], hosts[1], Doors.of(release), "bob")
    file = backup_now(release, "backup-1")
    later = receive(hosts[0], hosts[1], Doors.of(release), "alice")
    release.netmail("user", "remove", "bob", "--yes")
    install({"nmap": {"restore": {"file": file, "replace": True}}})
    said: dict[str, Any] = json.loads(
        release.kubectl("logs", "job/netmail-nmap-restore").splitlines()[-1]
    )
    print(f"restored: {said}")
    assert not [pod for pod in release.pods("nmap") if not pod.ending]
    install({})
    doors = Doors.of(release)
    assert in_mailbox(hosts[1], doors.imaps, "bob", subject_of(before), _WITHIN) == before
    imap_login(hosts[1], doors.imaps, "alice")
    with pytest.raises(AssertionError):
        in_mailbox(hosts[1], doors.imaps, "alice", subject_of(later), 5)
    assert backup_now(release, "backup-2") > file
    return said
