"""Fuzzes one target in this process: `python -m tests.fuzz.run_one NAME FOLDER SECONDS`.

FOLDER gets the corpus and, if something is found, the input that did it.
"""

import sys
from pathlib import Path

import atheris

from tests.fuzz.targets import load, write_seeds

# Memory of one input is bounded too: a parser that multiplies what it gets is a fault.
_LIBFUZZER = [
    "-rss_limit_mb=1024",
    "-timeout=10",
    "-max_len=4096",
    "-len_control=20",
    "-print_final_stats=1",
]
_PACKAGES = [
    "netmail_common",
    "netmail_connmgr",
    "netmail_nmap",
    "netmail_pop_imap",
    "netmail_smtp",
]


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with atheris.instrument_imports(include=[*_PACKAGES, f"tests.fuzz.fuzz_{name}"]):
        target = load(name)
    corpus = folder / "corpus"
    write_seeds(target, corpus)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", *_LIBFUZZER]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
