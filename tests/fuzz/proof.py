"""Shows that the targets find bugs: each patch in planted/ breaks a copy of the tree.

A patch is named `TARGET-WHAT.patch`; the target must crash on the broken copy.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.runner import AT_ONCE, ROOT, Outcome, fuzz

PLANTED = Path(__file__).parent / "planted"
_COPIED = ("services", "protos", "tests/fuzz")


def prove(seconds: int) -> Iterator[tuple[Path, Outcome]]:
    """Fuzzes each broken copy for at most that long; gives the patch and the outcome."""
    patches = sorted(PLANTED.glob("*.patch"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(patches, pool.map(lambda patch: _try(patch, seconds), patches), strict=True)


def _try(patch: Path, seconds: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="netmail-planted-") as folder:
        root = Path(folder)
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in _COPIED:
            shutil.copytree(ROOT / part, root / part, ignore=ignore)
        (root / "tests" / "__init__.py").touch()
        subprocess.run(
            ["git", "apply", "--whitespace=nowarn", str(patch)],
            check=True,
            capture_output=True,
            cwd=root,
            timeout=30,
            env={"GIT_CEILING_DIRECTORIES": str(root.parent), "PATH": "/usr/bin:/bin"},
        )
        return fuzz(patch.stem.partition("-")[0], seconds, root=root)
