"""Faults under steady load: nothing acknowledged is lost, nobody relays who may not."""

import random
import time

import pytest

from tests.cluster.ha.faults import AGENTS, Scene, for_each_agent, node_is_ready
from tests.cluster.ha.shared_stores import new_tag
from tests.cluster.support.release import TAG, image_values
from tests.cluster.support.stages import play
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def whole(scene: Scene) -> None:
    """Each fault meets an installation that has got over the last one."""
    scene.wait_until_whole()


def test_the_six_stages(scene: Scene) -> None:
    play(scene.release, scene.sink, scene.hosts[0], scene.hosts[1], scene.hosts[3])
    for component in AGENTS:
        assert len({pod.node for pod in scene.release.pods(component)}) == 2


@pytest.mark.parametrize("component", AGENTS)
def test_kill_9_of_any_agent(scene: Scene, component: str) -> None:
    with scene.load(f"kill -9 of a pod of {component}, then of the other") as load:
        for pod in scene.ready(component):
            scene.kill(pod)
            load.wait_for(6)
            scene.release.wait_for(component, 2, 600)


def test_drain_of_a_node(scene: Scene) -> None:
    node = f"node{random.Random(7).choice(scene.cluster.nodes())}"
    with scene.load(f"drain of {node}, and back"):
        scene.release.cluster.kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s",
            timeout=320,
        )  # fmt: skip
        scene.cluster.kubectl("uncordon", node)
        scene.wait_until_whole()


def test_loss_of_each_node_in_turn(scene: Scene) -> None:
    for number in scene.cluster.nodes():
        node = f"node{number}"
        with scene.load(f"loss of {node}, and its return") as load:
            scene.cluster.do("node", "kill", str(number))
            _wait_for_node(scene, node, ready=False)
            load.wait_for(10, within=240)
            scene.cluster.do("node", "start", str(number), timeout=240)
            _wait_for_node(scene, node, ready=True)
            scene.wait_until_whole()


def _wait_for_node(scene: Scene, node: str, *, ready: bool) -> None:
    eventually(lambda: node_is_ready(scene.cluster, node) is ready, 120, pause=0.5)


def test_rolling_upgrade_and_rollback(scene: Scene) -> None:
    tag = new_tag(scene.cluster, TAG)
    with scene.load("rolling upgrade to a new image"):
        scene.install(image_values(tag))
        for component in AGENTS:
            scene.release.rollout(component, 600)
        scene.wait_until_whole()
    with scene.load("helm rollback"):
        scene.release.helm("rollback", scene.release.name)
        for component in AGENTS:
            scene.release.rollout(component, 600)
        scene.wait_until_whole()


def test_each_agent_scales_from_one_to_four_and_back(scene: Scene) -> None:
    one = for_each_agent(autoscaling={"mode": "none"}, replicas=1)
    scene.install(one)
    for component in AGENTS:  # their autoscalers may have had the last word before they went
        scene.release.scale(component, 1, 300)
    try:
        for component in AGENTS:
            with scene.load(f"{component} from 1 to 4 and back") as load:
                for replicas in (1, 4, 1):
                    began = time.monotonic()
                    scene.release.scale(component, replicas, 600)
                    print(f"\n{component} at {replicas} after {time.monotonic() - began:.1f} s")
                    load.wait_for(6)
    finally:
        scene.install()


def test_failover_of_redis(scene: Scene) -> None:
    primary = scene.stores.primary_of_redis()
    with scene.load("failover of Redis, its primary standing still") as load:
        with scene.standing_still(primary):
            load.wait_for(20, within=240)
            eventually(lambda: scene.stores.primary_of_redis() != primary, 60, pause=1)
        scene.wait_until_whole()
    with scene.load("kill -9 of the primary of Redis") as load:
        scene.kill(scene.stores.primary_of_redis())
        load.wait_for(20, within=240)


def test_failover_of_postgresql(scene: Scene) -> None:
    primary = scene.stores.primary_of_the_database()
    with scene.load("failover of PostgreSQL, its primary standing still") as load:
        with scene.standing_still(primary):
            load.wait_for(20, within=300)
        scene.wait_until_whole()
    with scene.load("kill -9 of the primary of PostgreSQL") as load:
        scene.kill(scene.stores.primary_of_the_database())
        load.wait_for(20, within=240)
