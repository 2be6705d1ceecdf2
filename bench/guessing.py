"""A day of guessing: 1,000,000 attempts from 10,000 addresses at 1,000 users who go on working.

In virtual time, with all of our code but the network between agents and Connection Manager; see
tests/support/guessing_campaign.py.
"""

import asyncio
import time

from netmail_common.config import LogConfig
from netmail_common.logging import configure_logging

from bench.harness import Result
from tests.support.guessing_campaign import Campaign, Outcome, Plan

PLAN = Plan()


def run() -> list[Result]:
    """Plays the day once; one row for each figure."""
    configure_logging(LogConfig(level="error"), service="bench", instance="guessing")
    started = time.process_time()
    outcome = asyncio.run(Campaign(PLAN).run())
    return _rows(outcome, time.process_time() - started)


def _rows(outcome: Outcome, seconds: float) -> list[Result]:
    attempts = f"{PLAN.attempts:,} attempts from {PLAN.addresses:,} addresses"
    logins = outcome.known + outcome.new
    calls = ", ".join(f"{kind} {number:,}" for kind, number in sorted(outcome.calls.items()))
    return [
        Result(
            "guesses tried at one user in a day, at most",
            "guesses",
            outcome.most_tried,
            target=20,
            note=attempts,
        ),
        Result(
            "real logins refused, from known addresses",
            "logins",
            outcome.known_refused,
            target=0,
            note=f"of {outcome.known:,}",
        ),
        Result("the longest that one of them waited", "s", outcome.slowest_known),
        Result(
            "real logins refused, from new addresses",
            "%",
            100 * outcome.new_refused / max(1, outcome.new),
            note=f"{outcome.new_refused:,} of {outcome.new:,}",
        ),
        Result(
            "guesses whose password was looked at",
            "%",
            100 * outcome.looked_at_guesses / PLAN.attempts,
            note=f"{outcome.tried_at_home:,} would have counted at the user's own address",
        ),
        Result(
            "time of a login or guess, all of it",
            "\u00b5s",
            1e6 * seconds / (PLAN.attempts + logins),
            note=f"calls: {calls}",
        ),
    ]


if __name__ == "__main__":
    from bench.harness import print_table

    print_table(run())
