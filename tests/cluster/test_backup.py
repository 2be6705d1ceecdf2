"""Backups of the store on a volume while the agents run, and one of them put in its place."""

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Sink
from tests.cluster.support.backups import backup_values, lose_and_restore
from tests.cluster.support.release import Release, default_values, merged, namespace

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_mail_and_users_of_a_backup_come_back_and_what_was_there_is_kept(
    cluster: Cluster, sink: Sink, hosts: list[Outside]
) -> None:
    values = merged(default_values(), values_for(sink), backup_values())
    with namespace(cluster, f"{NAMESPACE}-backup") as where:
        made = Release(cluster, where)
        made.install(values)
        said = lose_and_restore(made, hosts, lambda more: made.install(merged(values, more)))
        assert (said["users"], said["messages"]) == (2, 1)
        assert ".before-" in said["kept"]
        made.uninstall()
        claims = made.kubectl("get", "persistentvolumeclaims", "-o", "name").split()
        assert "persistentvolumeclaim/netmail-nmap-backups" in claims
