"""`python -m tests.fuzz [--seconds N] [--only NAME ...] [--proof]`."""

import argparse
import sys

from tests.fuzz.proof import prove
from tests.fuzz.runner import fuzz_all
from tests.fuzz.targets import names


def main() -> int:
    """Returns: exit status; 1 when a target crashed, or when a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--only", action="append", choices=names(), help="may be repeated")
    parser.add_argument("--proof", action="store_true", help="look for the planted bugs")
    options = parser.parse_args()
    return _proof(options.seconds) if options.proof else _run(options.only, options.seconds)


def _run(only: list[str] | None, seconds: int) -> int:
    failed = False
    for outcome in fuzz_all(only or names(), seconds):
        print(outcome.line(), flush=True)
        if outcome.crashed or not outcome.executions:
            print(outcome.output[-6000:], flush=True)
            failed = True
    return int(failed)


def _proof(seconds: int) -> int:
    missed = False
    for patch, outcome in prove(seconds):
        # A target that does not even start has found nothing.
        found = outcome.crashed and "Uncaught Python exception" in outcome.output
        missed = missed or not found
        print(f"{patch.stem:44} {'found' if found else 'MISSED'}", flush=True)
        if not found:
            print(outcome.output[-3000:], flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
