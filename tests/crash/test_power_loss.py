"""Loss of power: every write that was not synced is dropped, and what got a 250 is there."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.harness import Ledger, Sender, stop_all, take_count, wait_until_serving
from tests.crash.test_kills import quick_retries
from tests.support.installation import installation

SHIM = Path(__file__).with_name("powerloss.c")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library that keeps a shadow of what was synced."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs the Debian packages gcc and libc6-dev")
    library = tmp_path_factory.mktemp("shim") / "powerloss.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", library, SHIM, "-ldl"], check=True, timeout=60
    )
    return library


def test_the_shim_keeps_synced_writes_and_drops_the_others(shim: Path, tmp_path: Path) -> None:
    root, shadow = tmp_path / "root", tmp_path / "shadow"
    root.mkdir()
    program = (
        "import os; fd = os.open('file', os.O_RDWR | os.O_CREAT);"
        "os.pwrite(fd, b'synced', 0); os.fsync(fd); os.pwrite(fd, b'lost', 6);"
        "os.write(os.open('never', os.O_RDWR | os.O_CREAT), b'lost')"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=root,
        env={**os.environ, **preload(shim, root, shadow)},
    )
    assert (root / "file").read_bytes() == b"syncedlost"
    assert (shadow / "file").read_bytes() == b"synced"
    assert not (shadow / "never").exists()


@pytest.mark.timeout(300)
def test_what_got_a_250_survives_the_loss_of_every_write_that_was_not_synced(
    shim: Path, tmp_path: Path
) -> None:
    state, shadow = tmp_path / "state", tmp_path / "shadow"
    ledger = Ledger()
    with installation(state, change=quick_retries, env=preload(shim, state, shadow)) as running:
        senders = [Sender(running.port(2525), ledger, seed) for seed in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(8)
        running.power_off()
        stop_all(senders)
    databases = [path.name for path in state.glob("nmap-*.db")]
    assert databases
    for path in state.glob("nmap-*.db*"):
        path.unlink()
    for path in shadow.glob("nmap-*.db*"):
        shutil.copyfile(path, state / path.name)
    with installation(state, change=quick_retries, ports=running.ports) as again:
        wait_until_serving(again)
        count = take_count(again, ledger, state / "demo-sink")
    assert len(ledger.acknowledged) > 10
    assert count.missing == []
    assert count.doubled == []


def preload(shim: Path, root: Path, shadow: Path) -> dict[str, str]:
    """The environment that puts the shim in front of the C library."""
    return {
        "LD_PRELOAD": str(shim),
        "POWERLOSS_ROOT": str(root.resolve()),
        "POWERLOSS_SHADOW": str(shadow),
    }
