"""A small campaign of guessing against users who go on working; the large one is a benchmark."""

import pytest

from tests.support.guessing_campaign import Campaign, Plan


@pytest.mark.parametrize("days", [1.0, 0.02])
async def test_guessers_get_20_guesses_a_day_and_nobody_is_locked_out_at_home(days: float) -> None:
    plan = Plan(
        attempts=8000,
        addresses=400,
        users=40,
        infected=8,
        logins_a_day=24,
        trips=40,
        forgotten=2,
        days=days,
    )
    outcome = await Campaign(plan).run()
    assert outcome.known >= 40
    assert outcome.known_refused == 0
    assert 0 < outcome.most_tried <= 20
    assert outcome.new == 40
