"""The login table in memory: what a login takes, and what each operation costs at every size.

Each size in a process of its own; processor time, so that other work on the machine counts little.
The curve goes to docs/login-table-cost.png.
"""

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.model import Revocation, SenderQuestion
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.table import LoginTable, TableLimits

from bench.harness import Result
from bench.logins import LIFETIME, client_address, place, registration, resident, user
from bench.replica import question

SIZES = (1000, 10_000, 100_000, 1_000_000)
PICTURE = Path("docs/login-table-cost.png")
_OPERATIONS = 1000
_ROUNDS = 5
_RUNS = 2
_START = 1_000_000.0

T = TypeVar("T")


def run() -> list[Result]:
    """Measures; the memory of a login, and of each operation how much dearer it grows."""
    curves: dict[str, list[float]] = {}
    memory = [0.0]
    for size in SIZES:
        runs = [_in_a_process(size) for _ in range(_RUNS)]
        memory = sorted(one.pop("memory") for one in runs)
        for name in runs[0]:
            curves.setdefault(name, []).append(min(one[name] for one in runs))
    note = f"{SIZES[-1]:,} logins, change log included"
    middle = memory[len(memory) // 2]
    rows = [
        Result(
            "memory of a login in the table", "octets", middle, target=300.0, runs_ours=memory,
            note=note,
        )
    ]  # fmt: skip
    for name, costs in curves.items():
        told = ", ".join(f"{cost:.1f}" for cost in costs)
        rows.append(
            Result(
                f"{name}: cost at {SIZES[-1]:,} logins by that at {SIZES[0]:,}",
                "ratio",
                costs[-1] / costs[0],
                target=3.0,
                runs_ours=costs,
                note=f"us at 10^3 to 10^6: {told}",
            )
        )
    _draw(curves)
    return rows


def _in_a_process(size: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.login_table", str(size)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=900,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _measure(size: int) -> dict[str, float]:
    """Memory in octets a login, and microseconds of each operation."""
    table = LoginTable(TableLimits(LIFETIME, max_logins=size + 10_000), ChangeLog())
    gc.collect()
    before = resident()
    for number in range(size):
        table.register(registration(number), _START + number / size)
    gc.collect()
    figures = {"memory": (resident() - before) / size}
    gc.freeze()
    networks = NetworkMap(AddressRules())
    now = _START + 2.0
    known = [random.sample(range(size), _OPERATIONS) for _ in range(_ROUNDS)]
    new = [
        [size + turn * _OPERATIONS + number for number in range(_OPERATIONS)]
        for turn in range(_ROUNDS)
    ]

    def decision(asked: tuple[bytes, bytes, SenderQuestion]) -> None:
        address, where, what = asked
        located = networks.locate(address)
        decide(what, located.standing, table.find(where, now).logins, max_users=8)

    figures["registration of a login"] = _cost(
        new, registration, lambda login: table.register(login, now)
    )
    figures["renewal by a session"] = _cost(
        known,
        lambda number: registration(number, renewal=True),
        lambda login: table.register(login, now),
    )
    figures["relay decision"] = _cost(known, _asked, decision)
    figures["revocation of a user"] = _cost(
        new, lambda number: Revocation(now + 1, user(number), None, 0), table.revoke
    )
    return figures


def _asked(number: int) -> tuple[bytes, bytes, SenderQuestion]:
    return client_address(number), place(number), question(number)


def _cost(
    rounds: list[list[int]], prepare: Callable[[int], T], operation: Callable[[T], object]
) -> float:
    """Microseconds of processor time; the best round, which others disturbed least."""
    best = float("inf")
    for numbers in rounds:
        prepared = [prepare(number) for number in numbers]
        start = time.process_time()
        for one in prepared:
            operation(one)
        best = min(best, time.process_time() - start)
    return best / _OPERATIONS * 1e6


def _draw(curves: dict[str, list[float]]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, costs in curves.items():
        axes.plot(SIZES, costs, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("logins in the table")
    axes.set_ylabel("processor time, microseconds")
    axes.set_title("Cost of an operation against the size of the login table")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
