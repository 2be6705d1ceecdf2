"""Backups of the store on PostgreSQL while several agents run, and one of them put in its place."""

from typing import Any

import pytest

from tests.cluster.ha.faults import Scene
from tests.cluster.support.backups import backup_values, lose_and_restore
from tests.cluster.support.release import merged

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_mail_and_users_of_a_backup_come_back_and_what_was_there_is_kept(scene: Scene) -> None:
    scene.wait_until_whole()
    backups = backup_values()

    def install(more: dict[str, Any]) -> None:
        scene.install(merged(backups, more))
        if "restore" not in more.get("nmap", {}):
            scene.wait_until_whole()

    try:
        install({})
        said = lose_and_restore(scene.release, scene.hosts, install)
        assert said["users"] == 2
        assert said["messages"] >= 1
        assert said["kept"]
    finally:
        scene.install()
