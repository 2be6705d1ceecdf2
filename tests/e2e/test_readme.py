"""The README's commands, pasted in their order."""

import itertools
import re
import shutil
import subprocess
import time

import pytest

from tests.support.installation import ROOT, RunningInstallation

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]


def here(command: str, running: RunningInstallation) -> str:
    """The command on this installation's ports and in its state directory."""
    moved = re.sub(r":([0-9]{4})\b", lambda m: f":{running.port(int(m[1]))}", command)
    moved = re.sub(r"(?<![^ ])(?:var|/tmp)/", f"{running.state}/", moved)
    return f"{moved} --state {running.state}" if "netmail " in moved else moved


def run_until_it_prints(command: str, words: str) -> None:
    end = time.monotonic() + 60
    while True:
        done = subprocess.run(
            command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode == 0 and words in done.stdout:
            return
        assert time.monotonic() < end, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "grep -h" in command, f"{command}: {done.returncode}\n{done.stderr}"
        time.sleep(0.1)


def test_the_readmes_commands_print_what_it_says(running: RunningInstallation) -> None:
    text = (ROOT / "README.md").read_text()
    lines = [
        line
        for block in re.findall(r"```\n(\$ .*?)```", text, re.DOTALL)
        for line in block.split("\n")
    ]
    assert len(lines) > 8
    for line, after in itertools.pairwise(lines):
        if line.startswith("$ "):
            expected = "" if after.startswith("$ ") else after
            run_until_it_prints(here(line[2:], running), expected)
