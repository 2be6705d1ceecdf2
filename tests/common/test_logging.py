"""Logging must never stop the work."""

import subprocess
import sys

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
