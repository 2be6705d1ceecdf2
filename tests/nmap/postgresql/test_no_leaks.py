"""When all mail is gone, nothing of it is left, whichever agent took or removed it."""

import pytest
from netmail_nmap.adapters.postgresql import Place, open_postgresql
from netmail_nmap.adapters.sql._sweeper import Sweeper

from tests.nmap.postgresql.conftest import make_user, rows_of
from tests.nmap.sqlite.test_no_leaks import EMPTY, Clock, Traffic

pytestmark = pytest.mark.server


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_left_of_mail_that_is_gone(place: Place, seed: int) -> None:
    clock = Clock()
    async with (
        open_postgresql(place, clock=clock) as first,
        open_postgresql(place, clock=clock) as second,
    ):
        users = [await make_user(first, name) for name in ("a", "b")]
        traffic = Traffic(first, users, seed)
        for _ in range(60):
            traffic.store = traffic.random.choice([first, second])
            step = traffic.random.choice(
                [traffic.submit, traffic.submit, traffic.work, traffic.work, traffic.tidy]
            )
            await step()
            clock.now += traffic.random.choice([0, 20, 400])
            if traffic.random.random() < 0.2:
                await Sweeper(traffic.store.core).sweep()
        await traffic.end()
        clock.now += 10 * 86_400
        while await Sweeper(second.core).sweep():
            pass
        for user in users:
            assert (await first.mail.quota(user)).used_bytes == 0
        left = {table: await rows_of(first, table) for table in EMPTY}
    assert left == dict.fromkeys(EMPTY, 0)
