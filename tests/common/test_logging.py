"""Logging must never stop the work."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO, cast

import structlog
from netmail_common.config import LogConfig
from netmail_common.logging import configure_logging, get_logger, in_one_write

_PROGRAM = """
import logging, sys
from netmail_common.config import LogConfig
from netmail_common.logging import configure_logging, get_logger
configure_logging(LogConfig(level="info", format="json"), service="x", instance="y")
for _ in range(3):
    get_logger("a").info("nobody reads this")
    logging.getLogger("b").warning("nor this")
print("still working")
"""


def test_a_process_goes_on_when_nobody_reads_its_log() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.close()
    assert process.stdout.read() == "still working\n"
    process.stdout.close()
    process.wait(10)


_LEVELS = """
import logging
from netmail_common.config import LogConfig
from netmail_common.logging import configure_logging, get_logger, set_log_level
configure_logging(LogConfig(level="info", format="json"), service="x", instance="y")
log = get_logger("a")
bound = log.bind(session=1)
for level in ("info", "error", "debug"):
    set_log_level(level)
    for one in (log, bound, get_logger("b")):
        one.debug("debug at " + level)
        one.warning("warning at " + level)
        one.error("error at " + level)
"""


def test_a_change_of_the_level_reaches_loggers_that_are_there() -> None:
    process = subprocess.run(
        [sys.executable, "-c", _LEVELS], capture_output=True, text=True, check=True
    )
    said = Counter(json.loads(line)["event"] for line in process.stderr.splitlines())
    assert said == {
        "warning at info": 3,
        "error at info": 3,
        "error at error": 3,
        "debug at debug": 3,
        "warning at debug": 3,
        "error at debug": 3,
    }


class _Written:
    """Standard error as a list of writes."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    def flush(self) -> None:
        pass

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in "".join(self.writes).splitlines()]


@contextlib.contextmanager
def logged() -> Iterator[_Written]:
    """What is logged, as JSON, while the block runs."""
    written, before, root = _Written(), structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with contextlib.redirect_stderr(cast("TextIO", written)):
        configure_logging(LogConfig(level="info", format="json"), service="connmgr", instance="m")
        yield written
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_says_what_how_bad_when_and_who() -> None:
    log = get_logger("netmail.test")
    with logged() as written:
        log.warning("something \N{SNOWMAN}\n", user="alice", number=1, odd=b"\xff")
        log.error("failed", exc_info=ZeroDivisionError("by nothing"))
    first, second = written.lines()
    when = datetime.fromisoformat(first.pop("timestamp"))
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)
    assert first == {
        "component": "netmail.test",
        "user": "alice",
        "number": 1,
        "odd": "b'\\xff'",
        "event": "something \N{SNOWMAN}\n",
        "level": "warning",
        "service": "connmgr",
        "instance": "m",
    }
    assert second["level"] == "error"
    assert second["exception"] == "ZeroDivisionError: by nothing"


def test_lines_of_one_block_are_written_together_at_its_end() -> None:
    log = get_logger("netmail.test")
    with logged() as written:
        with in_one_write():
            for number in range(3):
                with in_one_write():
                    log.info("one", number=number)
            assert not written.writes
        assert len(written.writes) == 1
        assert [line["number"] for line in written.lines()] == [0, 1, 2]
        log.info("after")
        assert len(written.writes) == 2
        with in_one_write():
            pass
        assert len(written.writes) == 2


def test_a_block_that_fails_has_written_its_lines() -> None:
    log = get_logger("netmail.test")
    with logged() as written:
        with contextlib.suppress(ValueError), in_one_write():
            log.info("before")
            raise ValueError
        assert [line["event"] for line in written.lines()] == ["before"]
        log.info("after")
        assert [line["event"] for line in written.lines()] == ["before", "after"]


def test_a_block_keeps_nothing_of_other_threads() -> None:
    log = get_logger("netmail.test")
    with logged() as written:
        with in_one_write():
            log.info("ours")
            thread = threading.Thread(target=log.info, args=("theirs",))
            thread.start()
            thread.join()
            assert [line["event"] for line in written.lines()] == ["theirs"]
        assert [line["event"] for line in written.lines()] == ["theirs", "ours"]
