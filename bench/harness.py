"""Interleaved runs of ours and the peer's, and the table they end in."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """One row: medians of interleaved runs.

    `ratio` says how much better ours is: ours/theirs where more is better, else theirs/ours.
    """

    name: str
    unit: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    target: float | None = None
    peer: str = ""
    runs_ours: list[float] = field(default_factory=list)
    runs_theirs: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def meets_target(self) -> bool | None:
        """None: only reported. Without a peer, `target` is the most that ours may be."""
        if self.target is None:
            return None
        if self.ratio is not None:
            return self.ratio >= self.target
        return self.ours <= self.target


def compare(
    name: str,
    unit: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    peer: str,
    target: float | None = None,
    runs: int = 5,
    less_is_better: bool = False,
    note: str = "",
) -> Result:
    """Runs both in turn, after one warm-up each.

    Args:
        ours: measures ours once and gives a figure in `unit`.
        theirs: the same for the peer.
        runs: counted runs of each.
    """
    ours()
    theirs()
    mine: list[float] = []
    peers: list[float] = []
    for _ in range(runs):
        mine.append(ours())
        peers.append(theirs())
    a, b = statistics.median(mine), statistics.median(peers)
    ratio = b / a if less_is_better else a / b
    return Result(name, unit, a, b, ratio, target, peer, mine, peers, note)


def report(
    name: str,
    unit: str,
    ours: Callable[[], float],
    *,
    target: float | None = None,
    runs: int = 5,
    note: str = "",
) -> Result:
    """Measures ours alone, where there is no peer."""
    ours()
    figures = [ours() for _ in range(runs)]
    return Result(
        name, unit, statistics.median(figures), target=target, runs_ours=figures, note=note
    )


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def print_table(results: Iterable[Result]) -> None:
    """Prints one row a result."""
    table = Table(title="ours beside the peer, medians")
    for column in ("benchmark", "unit", "ours", "theirs", "ratio", "target", "peer", "note"):
        table.add_column(
            column, justify="right" if column in {"ours", "theirs", "ratio"} else "left"
        )
    for row in results:
        verdict = {None: "", True: " ok", False: " MISSED"}[row.meets_target]
        table.add_row(
            row.name,
            row.unit,
            f"{row.ours:,.4g}" if row.ours < 1000 else f"{row.ours:,.0f}",
            ""
            if row.theirs is None
            else f"{row.theirs:,.0f}"
            if row.theirs >= 1000
            else f"{row.theirs:,.4g}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.target is None else f"{row.target:g}{verdict}",
            row.peer,
            row.note,
        )
    Console(width=160).print(table)


def write_json(results: Iterable[Result], path: Path) -> None:
    """Writes the rows and the machine's description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine(), "results": [asdict(row) for row in results]}
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
