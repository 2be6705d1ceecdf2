"""kill -9 of any agent: nothing that got a 250 is lost, nothing is twice in a mailbox."""

import os
import random
import smtplib
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.crash.harness import (
    AGENTS,
    Count,
    Ledger,
    Sender,
    kill_one,
    stop_all,
    take_count,
    wait_for_queue,
    wait_until_serving,
)
from tests.support.installation import installation

KILLS = int(os.environ.get("NETMAIL_CRASH_KILLS", "20"))


def quick_retries(data: dict[str, Any]) -> None:
    """Lets the queue try again within a second, so that the test need not wait."""
    for server in data["messaging_servers"]:
        server["nmap"]["queue"] = {"first_retry": 1, "max_retry": 2}
        server.setdefault("deliver", {})["lease"] = 45


def show(kills: Counter[str], ledger: Ledger, count: Count) -> None:
    """Prints what happened; `pytest -s` shows it."""
    print(f"\nkills: {dict(kills)}; acknowledged: {len(ledger.acknowledged)}")
    print(f"answer never seen: {len(ledger.unknown)}; still queued: {count.queued}")
    print(
        f"missing: {len(count.missing)}; twice in a mailbox: {len(count.doubled)};"
        f" duplicates at the sink: {count.sink_duplicates}"
    )


@pytest.mark.timeout(120 + 6 * KILLS)
def test_kill_9_of_any_agent_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(2005)
    ledger = Ledger()
    kills: Counter[str] = Counter()
    with installation(tmp_path, change=quick_retries) as running:
        senders = [Sender(running.port(2525), ledger, seed) for seed in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(1.0)
        while kills.total() < KILLS:
            agent = rng.choice(list(AGENTS))
            if kill_one(running, agent, rng):
                kills[agent] += 1
            time.sleep(rng.uniform(0.3, 2.0))
        stop_all(senders)
        wait_until_serving(running)
        wait_for_queue(running, 60)
        count = take_count(running, ledger, tmp_path / "demo-sink")
    show(kills, ledger, count)
    assert len(ledger.acknowledged) > KILLS
    assert count.missing == []
    assert count.doubled == []
    # A duplicate at the sink needs a deliver that died between a final dot and its report. It holds
    # at most twice `concurrency_per_destination` messages for one destination.
    assert count.sink_duplicates <= 2 * 20 * kills["smtp deliver"]


@pytest.mark.parametrize("agent", ["nmap", "smtp serve"])
def test_a_kill_between_the_end_of_data_and_the_reply_never_doubles_the_message(
    tmp_path: Path, agent: str
) -> None:
    rng = random.Random(7)
    ledger = Ledger()
    with installation(tmp_path, change=quick_retries) as running:
        for number in range(3):
            mark = f"{number:032x}"
            with smtplib.SMTP("127.0.0.1", running.port(2525), timeout=10) as client:
                client.ehlo()
                client.mail("a@example.com")
                client.rcpt("alice@example.org")
                client.docmd("DATA")
                client.send(f"From: a@example.com\r\nX-Crash-Id: {mark}\r\n\r\nx\r\n.\r\n".encode())
                time.sleep(rng.uniform(0, 0.004))
                kill_one(running, agent, rng)
                try:
                    code, _ = client.getreply()
                    if code == 250:
                        ledger.acknowledge(mark, ("alice@example.org",))
                except (OSError, smtplib.SMTPException):
                    ledger.lose_sight(mark)
                client.close()
            wait_until_serving(running)
        count = take_count(running, ledger, tmp_path / "demo-sink")
    assert count.missing == []
    assert count.doubled == []
