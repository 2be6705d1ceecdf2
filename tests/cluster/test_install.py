"""The default installation: ready soon, and the six stages work from outside."""

import pytest

from tests.cluster.support import Outside, Release, Sink
from tests.cluster.support.stages import play

pytestmark = pytest.mark.timeout(600)


def test_the_six_stages_work_from_outside_by_the_clients_own_addresses(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    play(installed, sink, *hosts[:3])
