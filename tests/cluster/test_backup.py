"""Backups by the CronJob while the agents run, and one of them put in the place of the store."""

import json
import re

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.release import Release, default_values, merged, namespace
from tests.cluster.support.stages import imap_login, in_mailbox, receive, subject_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

_WITHIN = 180


def backup_now(made: Release, name: str) -> str:
    """Runs the CronJob's Job once; gives the file's name."""
    made.kubectl("create", "job", name, "--from=cronjob/netmail-nmap-backup")
    made.kubectl("wait", f"job/{name}", "--for=condition=complete", f"--timeout={_WITHIN}s",
                 timeout=_WITHIN + 10)  # fmt: skip
    said = made.kubectl("logs", f"job/{name}")
    match = re.search(r"/backups/(netmail-\d{8}T\d{6}Z\.tar): mail, (\d+) octets", said)
    assert match, said
    print(f"\n{match[0]}")
    return match[1]


def test_mail_and_users_of_a_backup_come_back_and_what_was_there_is_kept(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    backups = {"nmap": {"backup": {"enabled": True, "persistence": {"size": "1Gi"}}}}
    image = {"nmap": {"backup": {"image": default_values()["cli"]["image"]}}}
    values = merged(default_values(), values_for(sink), backups, image)
    with namespace(cluster, f"{NAMESPACE}-backup") as where:
        made = Release(cluster, where)
        made.install(values)
        before = receive(hosts[0], hosts[1], Doors.of(made), "bob")
        file = backup_now(made, "backup-1")
        later = receive(hosts[0], hosts[1], Doors.of(made), "alice")
        made.netmail("user", "remove", "bob", "--yes")
        restore = {"file": file, "replace": True}
        made.install(merged(values, {"nmap": {"restore": restore}}))
        said = json.loads(made.kubectl("logs", "job/netmail-nmap-restore").splitlines()[-1])
        print(f"restored: {said}")
        assert (said["users"], said["messages"]) == (2, 1)
        assert ".before-" in said["kept"]
        assert not made.pods("nmap")
        made.install(values)
        doors = Doors.of(made)
        assert in_mailbox(hosts[1], doors.imaps, "bob", subject_of(before), _WITHIN) == before
        imap_login(hosts[1], doors.imaps, "alice")
        with pytest.raises(AssertionError):
            in_mailbox(hosts[1], doors.imaps, "alice", subject_of(later), 5)
        assert backup_now(made, "backup-2") > file
        made.uninstall()
        claims = made.kubectl("get", "persistentvolumeclaims", "-o", "name").split()
        assert "persistentvolumeclaim/netmail-nmap-backups" in claims
