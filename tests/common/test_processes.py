"""Processes: readiness, drain on signals, restarts, the end of the parent."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import structlog
from netmail_common.lifecycle import EXIT_CONFIG, EXIT_FAILED, Lifecycle
from netmail_common.workers import ChildProcess, StartFailed, run_workers

from tests.support.waiting import eventually, until

AGENT = """
import asyncio, os, pathlib, sys
from netmail_common.lifecycle import run_agent

async def main(lifecycle):
    pathlib.Path(sys.argv[1], f"{os.getpid()}.up").touch()
    lifecycle.announce_ready()
    await lifecycle.wait_for_drain()
    await asyncio.sleep(float(sys.argv[2]))
    pathlib.Path(sys.argv[1], f"{os.getpid()}.drained").touch()

sys.exit(run_agent(main))
"""


def agent(folder: Path, drain: float = 0.0) -> list[str]:
    return [sys.executable, "-c", AGENT, str(folder), str(drain)]


def logging_agent(statement: str) -> "subprocess.CompletedProcess[str]":
    """An agent that logs, and whose main function is STATEMENT; how it ended."""
    script = f"""
        import asyncio, gc, socket, sys
        from netmail_common.config import ConfigError, LogConfig
        from netmail_common.lifecycle import run_agent
        from netmail_common.logging import configure_logging
        configure_logging(LogConfig(format="json"), service="x", instance="y")
        async def main(lifecycle):
            {statement}
        sys.exit(run_agent(main))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )


def files(folder: Path, kind: str) -> set[int]:
    return {int(path.stem) for path in folder.glob(f"*.{kind}")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_more_signals_change_nothing(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(agent(tmp_path, 0.3), start_new_session=True)
    eventually(lambda: files(tmp_path, "up"))
    for _ in range(5):
        process.send_signal(number)
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert process.wait(10) == 0
    assert files(tmp_path, "drained") == {process.pid}


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("raise ConfigError('tls.key: no such file')", EXIT_CONFIG),
        ("raise OSError('cannot listen')", EXIT_FAILED),
        ("raise RuntimeError('a bug')", EXIT_FAILED),
    ],
)
def test_an_error_at_the_start_ends_with_an_exit_code_and_a_log_line(
    statement: str, code: int
) -> None:
    done = logging_agent(statement)
    assert done.returncode == code
    assert '"level": "error"' in done.stderr


@pytest.mark.parametrize(
    ("error", "is_logged"), [("socket.gaierror(-3, 'again')", False), ("OSError(5, 'bad')", True)]
)
def test_what_a_look_up_ends_with_that_nobody_waits_for_is_no_error(
    error: str, is_logged: bool
) -> None:
    done = logging_agent(
        f"asyncio.get_running_loop().create_future().set_exception({error}); gc.collect()"
    )
    assert done.returncode == 0
    assert ('"level": "error"' in done.stderr) == is_logged
    assert ("never retrieved" in done.stderr) == is_logged


def test_an_agent_may_open_as_many_files_as_the_system_lets_it() -> None:
    script = """
        import resource, sys
        from netmail_common.lifecycle import run_agent
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        async def main(lifecycle):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        sys.exit(run_agent(main))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 0


async def test_a_dead_process_is_restarted_and_said_so(tmp_path: Path) -> None:
    died: list[tuple[str, int, float]] = []
    child = ChildProcess("one", agent(tmp_path), lambda *what: died.append(what))
    run = asyncio.ensure_future(child.run())
    await asyncio.wait_for(child.ready.wait(), 20)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.ready.is_set() and child.pid not in (None, first))
    assert died == [("one", -signal.SIGKILL, 0.2)]
    await child.stop(10)
    await run
    assert len(files(tmp_path, "drained")) == 1


async def test_the_delay_before_a_restart_grows() -> None:
    died: list[float] = []
    script = "import os; os.write(int(os.environ['NETMAIL_READY_FD']), b'ready\\n')"
    child = ChildProcess("x", [sys.executable, "-c", script], lambda *what: died.append(what[2]))
    run = asyncio.ensure_future(child.run())
    await until(lambda: len(died) == 3)
    assert died == [0.2, 0.4, 0.8]
    await child.stop(10)
    await run


async def test_a_process_that_never_gets_ready_fails_the_start() -> None:
    with pytest.raises(StartFailed, match="exit code 7"):
        await ChildProcess("x", [sys.executable, "-c", "raise SystemExit(7)"]).run()


async def test_a_process_that_does_not_drain_in_time_is_killed(tmp_path: Path) -> None:
    child = ChildProcess("slow", agent(tmp_path, 60))
    run = asyncio.ensure_future(child.run())
    await asyncio.wait_for(child.ready.wait(), 20)
    with structlog.testing.capture_logs() as logs:
        await child.stop(0.2)
    await run
    assert [line["event"] for line in logs] == ["did not drain in time, killed"]
    assert files(tmp_path, "drained") == set()


async def test_workers_announce_when_all_are_ready_and_drain_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    monkeypatch.setenv("NETMAIL_READY_FD", str(write))
    lifecycle = Lifecycle()
    run = asyncio.ensure_future(run_workers(2, lambda _: agent(tmp_path), lifecycle))
    announced = asyncio.Event()
    asyncio.get_running_loop().add_reader(read, announced.set)
    await asyncio.wait_for(announced.wait(), 20)
    asyncio.get_running_loop().remove_reader(read)
    assert os.read(read, 10) == b"ready\n"
    assert len(files(tmp_path, "up")) == 2
    lifecycle.drain()
    await run
    assert files(tmp_path, "drained") == files(tmp_path, "up")
    os.close(read)


async def test_a_worker_that_cannot_start_ends_them_all(tmp_path: Path) -> None:
    lifecycle = Lifecycle()

    def argv(index: int) -> list[str]:
        return agent(tmp_path) if index else [sys.executable, "-c", "raise SystemExit(3)"]

    with pytest.raises(StartFailed):
        await run_workers(2, argv, lifecycle)
    await until(lambda: files(tmp_path, "drained") == files(tmp_path, "up"))


def test_children_drain_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = f"""
        import asyncio
        from netmail_common.workers import ChildProcess
        asyncio.run(ChildProcess("child", {agent(tmp_path)!r}).run())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    eventually(lambda: files(tmp_path, "up"))
    parent.kill()
    parent.wait(10)
    eventually(lambda: files(tmp_path, "drained"))
