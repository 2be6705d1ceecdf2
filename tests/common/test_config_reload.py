"""The configuration file is followed while a process runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import ConfigError, FixedKeys, Installation, load_config
from netmail_common.config_reload import ConfigFollower
from netmail_common.logging import set_log_level
from prometheus_client import REGISTRY


def settings(**more: Any) -> dict[str, Any]:
    return {"connection_managers": [{"name": "main", "listen": ["127.0.0.1:0"]}], **more}


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"netmail_config_{name}", labels) or 0.0


class World:
    """A process that follows its configuration file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(settings())
        self.taken: list[str] = []
        self.fails_with: Exception | None = None
        self.follower = ConfigFollower(
            path,
            None,
            load_config(path),
            FixedKeys.of_connection_manager("main"),
            self.take,
        )

    async def take(self, installation: Installation) -> None:
        if self.fails_with is not None:
            raise self.fails_with
        self.taken.append(installation.log.level)

    def write(self, data: Any) -> None:
        """Replaces the file in one step."""
        new = self.path.with_suffix(".new")
        new.write_text(data if isinstance(data, str) else json.dumps(data))
        new.replace(self.path)

    async def settle(self) -> None:
        """Two looks: a file is taken when it is still the same at the second."""
        await self.follower.look()
        await self.follower.look()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "netmail.json")


@pytest.fixture(autouse=True)
def _level_as_before() -> Iterator[None]:
    yield
    set_log_level("info")


async def test_a_change_is_taken_once(world: World) -> None:
    before = metric("reloads_total", outcome="taken")
    world.write(settings(log={"level": "debug"}))
    await world.settle()
    await world.settle()
    assert world.taken == ["debug"]
    assert world.follower.running.log.level == "debug"
    assert metric("reloads_total", outcome="taken") == before + 1


async def test_a_file_that_is_still_being_written_is_left_alone(world: World) -> None:
    await world.settle()
    world.write(settings(log={"level": "debug"}))
    await world.follower.look()
    world.write(settings(log={"level": "error"}))
    await world.follower.look()
    assert world.taken == []
    await world.follower.look()
    assert world.taken == ["error"]


async def test_a_change_of_a_symbolic_link_counts_as_kubernetes_makes_it(tmp_path: Path) -> None:
    for name, level in (("one", "info"), ("two", "debug")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "netmail.json").write_text(json.dumps(settings(log={"level": level})))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "netmail.json").symlink_to("..data/netmail.json")
    path = tmp_path / "netmail.json"
    taken: list[str] = []

    async def take(installation: Installation) -> None:
        taken.append(installation.log.level)

    follower = ConfigFollower(
        path, None, load_config(path), FixedKeys.of_connection_manager("main"), take
    )
    await follower.look()
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").replace(tmp_path / "..data")
    await follower.look()
    await follower.look()
    assert taken == ["debug"]


@pytest.mark.parametrize(
    "bad",
    ["{", "[]", json.dumps(settings(nonsense=1)), json.dumps(settings(log={"level": "loud"}))],
    ids=["no JSON", "no mapping", "an unknown key", "a bad value"],
)
async def test_a_bad_file_keeps_the_last_good_one(world: World, bad: str) -> None:
    world.write(settings(log={"level": "debug"}))
    await world.settle()
    before = metric("reloads_total", outcome="unusable")
    world.write(bad)
    await world.settle()
    await world.settle()
    assert world.follower.running.log.level == "debug"
    assert metric("usable") == 0
    assert metric("reloads_total", outcome="unusable") == before + 1
    world.write(settings(log={"level": "error"}))
    await world.settle()
    assert world.taken == ["debug", "error"]
    assert metric("usable") == 1


async def test_a_file_that_is_gone_keeps_the_last_good_one(world: World) -> None:
    world.path.unlink()
    await world.settle()
    assert metric("usable") == 0
    world.write(settings())
    await world.settle()
    assert metric("usable") == 1
    assert world.taken == []


async def test_what_a_process_refuses_keeps_the_last_good_one(world: World) -> None:
    world.fails_with = ConfigError("not with me")
    world.write(settings(log={"level": "debug"}))
    await world.settle()
    assert world.follower.running.log.level == "info"
    assert metric("usable") == 0
    world.fails_with = None
    await world.settle()
    assert world.taken == []  # it is refused, and looked at again when it changes


async def test_what_could_not_be_taken_for_another_reason_is_tried_again(world: World) -> None:
    world.fails_with = OSError("no database")
    world.write(settings(log={"level": "debug"}))
    await world.settle()
    assert (metric("usable"), world.taken) == (0, [])
    world.fails_with = None
    await world.settle()
    assert (metric("usable"), world.taken) == (1, ["debug"])


async def test_what_needs_a_restart_is_counted_until_it_is_taken_back(world: World) -> None:
    world.write(settings(installation="other"))
    await world.settle()
    assert metric("restart_needed") == 1
    assert world.taken == []
    assert world.follower.running.installation == "netmail"
    world.write(settings())
    await world.settle()
    assert metric("restart_needed") == 0
