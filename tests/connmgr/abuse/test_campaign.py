"""A small campaign of guessing against users who go on working; the large one is a benchmark."""

import pytest

from tests.support.guessing_campaign import Campaign, Plan


@pytest.mark.parametrize("days", [1.0, 0.02])
async def test_guessers_get_20_guesses_a_day_and_nobody_is_locked_out_at_home(days: float) -> None:
    plan = Plan(
        attempts=1000,
        addresses=100,
        users=12,
        infected=3,
        logins_a_day=12,
        trips=10,
        forgotten=2,
        days=days,
    )
    outcome = await Campaign(plan).run()
    assert outcome.known >= 12
    assert outcome.known_refused == 0
    assert outcome.slowest_known <= 1.0
    assert 0 < outcome.most_tried <= 20
    assert outcome.new == 10
