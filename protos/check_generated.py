"""Proves that the committed generated code is what the .proto files give."""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Regenerates into a scratch folder and compares file by file.

    Returns: the exit status; 1 with the names of the files that differ.
    """
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([HERE / "generate.sh", scratch], check=True)
        fresh = {p.relative_to(scratch) for p in Path(scratch).rglob("*_pb2*.py*")}
        kept = {p.relative_to(HERE) for p in HERE.rglob("*_pb2*.py*")}
        stale = sorted(fresh ^ kept) + [
            name
            for name in sorted(fresh & kept)
            if not filecmp.cmp(Path(scratch) / name, HERE / name, shallow=False)
        ]
    for name in stale:
        print(f"generated code differs: protos/{name}; run protos/generate.sh", file=sys.stderr)
    if not stale:
        print(f"generated code is current ({len(kept)} files)")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
