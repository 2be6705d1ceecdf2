"""The default installation: ready soon, and the six stages work from outside."""

import time

import pytest

from tests.cluster.conftest import NAMESPACE, values_for
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.doors import Doors
from tests.cluster.support.patience import patience
from tests.cluster.support.release import default_values, merged, namespace
from tests.cluster.support.stages import play

pytestmark = pytest.mark.timeout(600)


def test_the_six_stages_work_from_outside_by_the_clients_own_addresses(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    play(installed, sink, *hosts[:3])


def test_the_default_installation_is_ready_within_a_minute(cluster: Cluster, sink: Sink) -> None:
    with namespace(cluster, f"{NAMESPACE}-fresh") as where:
        fresh = Release(cluster, where)
        began = time.monotonic()
        said = fresh.install(merged(default_values(), values_for(sink)))
        took = time.monotonic() - began
        print(f"\nhelm install --wait: {took:.1f} s; patience {patience():.1f}")
        assert took < 60 * patience()
        assert "netmail user add NAME" in said
        assert "WARNING: initialUsers" in said
        fresh.uninstall()


def test_a_first_user_is_added_as_the_notes_say(installed: Release, hosts: list[Outside]) -> None:
    installed.kubectl(
        "exec", "-i", f"deploy/{installed.name}-cli", "--", "netmail", "user", "add", "carol",
        "--password-stdin", stdin="long-enough-secret\n",
    )  # fmt: skip
    try:
        with hosts[0].imap(*Doors.of(installed).imaps) as client:
            client.login("carol", "long-enough-secret")
    finally:
        installed.netmail("user", "remove", "carol", "--yes")
