"""Finds the fuzz targets and their seeds."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Target:
    """One fuzz target.

    Attributes:
        one_input: takes any octets; raises only when something is wrong.
        seeds: inputs to begin with.
    """

    name: str
    one_input: Callable[[bytes], None]
    seeds: list[bytes]


def names() -> list[str]:
    """Every target's name, sorted."""
    return sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.py"))


def load(name: str) -> Target:
    """Imports a target; its seeds are those it makes and those kept in corpus/NAME."""
    module = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    kept = sorted((FOLDER / "corpus" / name).glob("*"))
    return Target(name, module.one_input, [*module.seeds(), *(path.read_bytes() for path in kept)])


def write_seeds(target: Target, folder: Path) -> None:
    """Writes the seeds as libFuzzer reads them: one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
