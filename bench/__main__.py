"""`python -m bench [NAME ...]`: runs the benchmarks, prints ratios, writes a JSON file."""

import argparse
import importlib
import shutil
import sys
from pathlib import Path

from bench.harness import Result, print_table, write_json

BENCHMARKS = {
    "smtp_accept": (("smtp-source", "postfix"), "postfix"),
    "pop3": (("dovecot",), "dovecot-pop3d"),
    "imap": (("dovecot",), "dovecot-imapd"),
    "deliver": (("smtp-sink", "postfix"), "postfix"),
    "relay_decision": ((), ""),
    "postfix_policy": (("postgrey", "postfwd2"), "postgrey and postfwd"),
    "legacy_udp": (("gcc",), "gcc"),
    "login_table": ((), ""),
    "replica": ((), ""),
    "register": (("redis-server",), "redis-server"),
    "guessing": ((), ""),
    "store": (("pg_ctlcluster",), "postgresql"),
}
"""Name: the programs it needs and the Debian package that has them."""


def main() -> int:
    """Returns: exit status; 1 when a program is missing or a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="which; default: all")
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"))
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    missing = [
        f"{name}: install the Debian package {package}"
        for name in names
        for programs, package in [BENCHMARKS[name]]
        if any(shutil.which(p, path="/usr/sbin:/usr/bin:/bin:/sbin") is None for p in programs)
    ]
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    results: list[Result] = []
    for name in names:
        print(f"== {name}", flush=True)
        rows = importlib.import_module(f"bench.{name}").run()
        print_table(rows)
        results.extend(rows)
    print_table(results)
    write_json(results, options.json)
    return 1 if any(row.meets_target is False for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
