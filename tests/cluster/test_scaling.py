"""Agents scale, and their pods die, under load: nothing that was acknowledged is lost."""

import time

import pytest

from tests.cluster.support import Outside, Release, Sink, SteadyLoad

pytestmark = pytest.mark.timeout(900)


def test_each_agent_scales_to_three_and_back_under_load_without_a_lost_message(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    with SteadyLoad(installed, sink, hosts) as load:
        load.wait_for(3)
        for component in ("smtp", "pop-imap", "deliver"):
            began = time.monotonic()
            installed.scale(component, 3)
            up = time.monotonic()
            load.wait_for(5)
            installed.scale(component, 1)
            load.wait_for(5)
            print(f"\n{component} 1 -> 3 in {up - began:.1f} s, and back: {load.gaps(began)}")
            print(f"  clients saw {load.troubles(began)}")
    finding = load.check()
    print(f"  {finding}; refused strangers: {len(load.strangers.successes)}")
