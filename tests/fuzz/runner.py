"""Runs fuzz targets in processes of their own and reads what libFuzzer says about them."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2
_STARTUP = 120
_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERAGE = re.compile(r"\bcov: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the fuzzing of one target went.

    Attributes:
        crashed: an input was found that it must not fail at.
        executions: inputs tried.
        coverage: edges reached.
        output: everything that was printed.
    """

    name: str
    crashed: bool
    executions: int
    coverage: int
    output: str

    def line(self) -> str:
        """One line for people."""
        verdict = "CRASHED" if self.crashed else "ok"
        return (
            f"{self.name:24} {self.executions:>10} executions {self.coverage:>6} edges  {verdict}"
        )


def fuzz(name: str, seconds: int, *, root: Path = ROOT) -> Outcome:
    """Fuzzes one target for that long, with the code below `root`."""
    packages = [root / "protos", *sorted((root / "services").glob("*"))]
    path = os.pathsep.join(map(str, [root, *packages]))
    with tempfile.TemporaryDirectory(prefix=f"netmail-fuzz-{name}-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run_one", name, folder, str(seconds)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + _STARTUP,
            cwd=root,
            env={**os.environ, "PYTHONPATH": path},
        )
        output = done.stdout + done.stderr
        for artifact in sorted(Path(folder).glob("*-*")):
            output += f"\n{artifact.name}: {artifact.read_bytes()!r}\n"
    executions = _EXECUTIONS.findall(output)
    coverage = _COVERAGE.findall(output)
    return Outcome(
        name,
        done.returncode != 0,
        int(executions[-1]) if executions else 0,
        int(coverage[-1]) if coverage else 0,
        output,
    )


def fuzz_all(names: Iterable[str], seconds: int) -> Iterator[Outcome]:
    """Fuzzes targets, a few at a time; gives each outcome in the order of the names."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda name: fuzz(name, seconds), names)
