"""Logging must never stop the work."""

import json
import subprocess
import sys
from collections import Counter

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
