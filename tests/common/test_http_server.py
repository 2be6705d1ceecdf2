"""Health and metrics by HTTP; logs."""

import asyncio
import json
import logging
from collections.abc import Iterator

import aiohttp
import pytest
import structlog
from netmail_common.config import LogConfig
from netmail_common.http_server import Health, http_server
from netmail_common.logging import configure_logging, get_logger
from netmail_common.metrics import counter, duration, timed


async def get(port: int | None, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_without_an_address_nothing_listens() -> None:
    async with http_server(None, Health()) as port:
        assert port is None


async def test_readiness_follows_what_is_set_and_the_checks() -> None:
    health = Health()
    good = True
    seen: list[bool] = []
    health.watch(seen.append)
    health.add_check("store", lambda: good)
    async with http_server("127.0.0.1:0", health) as port:
        assert (await get(port, "/healthz/ready"))[0] == 503
        health.set_ready(True)
        assert await get(port, "/healthz/ready") == (200, "ok\n")
        good = False
        assert await get(port, "/healthz/ready") == (503, "store\n")
        assert await get(port, "/healthz/live") == (200, "ok\n")
        health.live = False
        assert (await get(port, "/healthz/live"))[0] == 503
    assert seen == [True]


async def test_a_port_that_a_predecessor_still_has_is_waited_for() -> None:
    async with http_server("127.0.0.1:0", Health()) as port:
        waiting = http_server(f"127.0.0.1:{port}", Health())
        entering = asyncio.ensure_future(waiting.__aenter__())
        await asyncio.sleep(0.05)
        assert not entering.done()
    assert await entering == port
    await waiting.__aexit__(None, None, None)


async def test_a_port_that_stays_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmail_common.http_server._PORT_TAKEN_FOR", 0.0)
    async with http_server("127.0.0.1:0", Health()) as port:
        with pytest.raises(OSError, match="in use"):
            async with http_server(f"127.0.0.1:{port}", Health()):
                pass


async def test_metrics_are_counts_and_durations_with_our_prefix() -> None:
    counter("test_verbs", "verbs", ["verb"]).labels("QUIT").inc(3)
    with timed(duration("test", "time")):
        pass
    async with http_server("127.0.0.1:0", Health()) as port:
        status, text = await get(port, "/metrics")
    assert status == 200
    assert 'netmail_test_verbs_total{verb="QUIT"} 3.0' in text
    assert "netmail_test_seconds_count 1.0" in text


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def test_a_log_line_is_json_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="json"), service="smtp", instance="mail1/0")
    get_logger("here").info("relay decided", user="alice", address="192.0.2.1")
    logging.getLogger("grpc").error("from a library")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["event"] == "relay decided"
    assert (lines[0]["service"], lines[0]["instance"]) == ("smtp", "mail1/0")
    assert (lines[0]["user"], lines[0]["level"]) == ("alice", "info")
    assert (lines[1]["event"], lines[1]["level"]) == ("from a library", "error")


def test_a_line_break_from_outside_does_not_make_a_second_log_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogConfig(format="json"), service="smtp", instance="x")
    get_logger("here").info("hello", name="a\r\n{}")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_level_is_the_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(format="console", level="warning"), service="smtp", instance="x")
    get_logger("here").info("not this")
    get_logger("here").warning("but this")
    written = capsys.readouterr().err
    assert "not this" not in written
    assert "but this" in written


def test_text_from_outside_says_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogConfig(format="console"), service="smtp", instance="x")
    get_logger("here").info("hello", name="\x1b]0;owned\x07")
    written = capsys.readouterr().err
    assert "\x1b]0" not in written
    assert "owned" in written
